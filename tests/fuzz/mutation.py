"""Hostile bytes from honest ones: mutations of real messages, and generated heads that lie about what follows.

Everything is drawn from one `random.Random`, so a seed replays a run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

INPUT_BYTES_MAX = 4_096

# What parsers stumble over: lengths at their borders, CBOR heads of every width, reserved and indefinite ones.
_HEADS = tuple(
    bytes([major << 5 | info]) + tail
    for major in range(8)
    for info, tail in (
        (23, b""),
        (24, b"\xff"),
        (25, b"\xff\xff"),
        (26, b"\xff\xff\xff\xff"),
        (27, b"\xff" * 8),
        (27, b"\x00" * 8),
        (28, b""),
        (31, b""),
    )
)
_NUMBERS = tuple(
    value.to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for value in (0, 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, (1 << 8 * width) - 1)
    for order in ("big", "little")
)
_TEXT = (
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"%00",
    b"../",
    b"\x00",
    b"\r\n\r\n",
    b"e\xcc\x81",
    b"9" * 400,
)

Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], bytearray]


def _flip_bit(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def _set_byte(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    if data:
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return data


def _cut(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    return data[: dice.randrange(len(data) + 1)]


def _drop(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = dice.randrange(len(data) + 1)
    del data[at : at + dice.randint(1, 8)]
    return data


def _repeat(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = dice.randrange(len(data) + 1)
    part = data[at : at + dice.randint(1, 32)]
    return data[:at] + part * dice.choice((1, 2, 3, 40)) + data[at:]


def _insert(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice((dice.randbytes(dice.randint(1, 16)), dice.choice(_HEADS))) + data[at:]


def _overwrite(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    new = dice.choice((*_HEADS, *_NUMBERS, *_TEXT))
    at = dice.randrange(len(data) + 1)
    data[at : at + len(new)] = new
    return data


def _splice(dice: random.Random, data: bytearray, seeds: Sequence[bytes]) -> bytearray:
    other = dice.choice(seeds)
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other) + 1) :]


def _nest(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    return (
        bytearray(dice.choice((b"\x81", b"\xa1\x01", b"\xd2", b"\xc1", b"\x9f")) * dice.choice((1, 15, 17, 900))) + data
    )


def _pad(dice: random.Random, data: bytearray, _: Sequence[bytes]) -> bytearray:
    return data + dice.choice((b"\x00", b"\xff", dice.randbytes(3), b"\x00" * 900))


_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bit,
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_byte,
    _cut,
    _drop,
    _repeat,
    _insert,
    _overwrite,
    _overwrite,
    _splice,
    _nest,
    _pad,
)


def mutate(dice: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one input: a seed with one to four mutations, now and then noise, or a seed as it is."""
    kind = dice.random()
    if kind < 0.02:
        return dice.choice(seeds)
    if kind < 0.08:
        return dice.randbytes(dice.randrange(1, 64))
    data = bytearray(dice.choice(seeds))
    for _ in range(1 if kind < 0.6 else dice.randint(2, 4)):
        data = dice.choice(_MUTATIONS)(dice, data, seeds)
    return bytes(data[:INPUT_BYTES_MAX])


def generate_coap(dice: random.Random) -> bytes:
    """Return a datagram that looks like CoAP (RFC 7252 section 3): any type, code, token and options, some lies."""
    token = dice.randbytes(dice.choice((0, 1, 2, 8, 8, 9, 15)))
    length = dice.choice((len(token), dice.randrange(16))) & 15
    code = dice.choice((0, 1, 2, 3, 4, 5, 6, 7, 0x1F, 0x41, 0x45, 0x80, 0x81, 0xA0, 0xE0, 0xFF, dice.randrange(256)))
    version = 1 if dice.random() < 0.95 else dice.randrange(4)
    head = bytes([version << 6 | dice.randrange(4) << 4 | length, code]) + dice.randbytes(2) + token
    options = b""
    number = 0
    for _ in range(dice.choice((0, 1, 2, 3, 5, 40))):
        # Uri-Host, ETag, Observe, OSCORE, Uri-Path, Uri-Query, Block2, Block1, EDHOC, Echo and what is not in use.
        wanted = dice.choice(
            (1, 3, 4, 5, 6, 7, 9, 9, 11, 11, 12, 15, 17, 21, 23, 27, 28, 35, 39, 60, 252, 258, 292, 65535)
        )
        if wanted < number and dice.random() < 0.8:
            continue
        value = dice.choice(
            (
                b"",
                b"u",
                b"x",
                b".well-known",
                b"core",
                b"\x09\x00",
                b"\xff",
                dice.randbytes(dice.randint(0, 20)),
                b"u" * 300,
            )
        )
        options += _option(dice, max(0, wanted - number), value)
        number = max(number, wanted)
    payload = dice.choice(
        (b"", b"\xff", b"\xff" + dice.randbytes(dice.randint(1, 60)), b"\xff\xf5" + dice.randbytes(37))
    )
    return head + options + payload


def _option(dice: random.Random, delta: int, value: bytes) -> bytes:
    delta_nibble, delta_more = _extended(delta)
    length_nibble, length_more = _extended(len(value) if dice.random() < 0.95 else dice.randrange(70_000) & 0xFFFF)
    if dice.random() < 0.02:
        delta_nibble = 15
    return bytes([delta_nibble << 4 | length_nibble]) + delta_more + length_more + value


def _extended(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, min(0xFFFF, value - 269).to_bytes(2, "big")
