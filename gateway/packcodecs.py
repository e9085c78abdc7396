"""Frames packed: every codec is tried, the smallest is kept."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from dataclasses import dataclass

import hdiffpatch

from protocol.errors import MalformedError
from protocol.pack.cursor import Cursor, varint
from protocol.pack.frames import Codec, unpack
from protocol.pack.zstds import squeeze

_LZMA_SETTINGS = ((3, 0, 2), (3, 0, 0), (0, 0, 0), (4, 0, 0), (0, 2, 2), (1, 2, 2))


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A frame as it travels."""

    codec: Codec
    body: bytes


@dataclass(frozen=True, slots=True)
class Cover:
    """A stretch of the new bytes that is much like one of the old."""

    old: int
    new: int
    length: int


def pack_frame(data: bytes, prefix: bytes) -> PackedFrame:
    """Return the smallest form of a frame that decodes to exactly its bytes."""
    tries: list[tuple[Codec, Callable[[], bytes]]] = [
        (Codec.STORED, lambda: data),
        (Codec.ZSTD, lambda: squeeze(data, prefix)),
        (Codec.DELTA if prefix else Codec.LZMA, lambda: delta(data, prefix) if prefix else pack_lzma(data)),
    ]
    made = sorted(((codec, make()) for codec, make in tries), key=lambda each: len(each[1]))
    for codec, body in made:
        if body and _decodes(codec, body, prefix, data):
            return PackedFrame(codec, body)
    raise AssertionError("a stored frame decodes")


def _decodes(codec: Codec, body: bytes, prefix: bytes, data: bytes) -> bool:
    try:
        return unpack(codec, body, prefix, len(data)) == data
    except MalformedError:
        return False


def pack_lzma(data: bytes) -> bytes:
    """Return the smallest raw LZMA stream of some bytes, with its settings in front."""
    return min((_lzma(data, *settings) for settings in _LZMA_SETTINGS), key=len)


def _lzma(data: bytes, lc: int, lp: int, pb: int) -> bytes:
    filters = [
        {
            "id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "lc": lc, "lp": lp, "pb": pb,
            "dict_size": max(4096, len(data)), "nice_len": 273,
        }
    ]  # fmt: skip
    return bytes([(pb * 5 + lp) * 9 + lc]) + lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)


def pack_stream(data: bytes) -> bytes:
    """Return one stream of a delta frame in its smallest form."""
    forms = [(Codec.STORED, data)]
    if data:
        forms += [(Codec.LZMA, pack_lzma(data)), (Codec.ZSTD, squeeze(data, b""))]
    codec, body = min(forms, key=lambda form: len(form[1]))
    return bytes([codec]) + varint(len(data)) + varint(len(body)) + body


def delta(data: bytes, prefix: bytes) -> bytes:
    """Return a frame as covers of its prefix, differences and literals."""
    return _delta(data, prefix, find_covers(prefix, data))


def _delta(data: bytes, prefix: bytes, covers: list[Cover]) -> bytes:
    lengths, gaps, steps = bytearray(), bytearray(), bytearray()
    differences, literals = bytearray(), bytearray()
    new = old = 0
    for cover in covers:
        lengths += varint(cover.length)
        gaps += varint(cover.new - new)
        step = cover.old - old
        steps += varint(step << 1 if step >= 0 else (-step << 1) - 1)
        literals += data[new : cover.new]
        new, old = cover.new + cover.length, cover.old + cover.length
        differences += subtract_bytes(data[cover.new : new], prefix[cover.old : old])
    literals += data[new:]
    control = varint(len(covers)) + lengths + gaps + steps
    return b"".join(pack_stream(bytes(each)) for each in (control, differences, literals))


def subtract_bytes(left: bytes, right: bytes) -> bytes:
    """Return the differences, modulo 256, of two byte strings of one length."""
    high = int.from_bytes(b"\x80" * len(left), "little")
    x, y = int.from_bytes(left, "little"), int.from_bytes(right, "little")
    return (((x | high) - (y & ~high)) ^ ((x ^ ~y) & high)).to_bytes(len(left), "little")


def find_covers(old: bytes, new: bytes) -> list[Cover]:
    """Return where the new bytes resemble the old, in ascending order of the new, as HDiffPatch finds it."""
    diff = hdiffpatch.diff(old, new, hdiffpatch.COMPRESSION_NONE, validate=False)
    fields = Cursor(diff[diff.index(b"\0") + 1 :])
    numbers = [_number(fields) for _ in range(11)]
    covers = []
    old_at = new_at = 0
    for _ in range(numbers[2]):
        first = fields.byte()
        step = _number(fields, first, bits=6)
        old_at += -step if first & 0x80 else step
        new_at += _number(fields)
        length = _number(fields)
        covers.append(Cover(old_at, new_at, length))
        old_at += length
        new_at += length
    return covers


def _number(fields: Cursor, first: int | None = None, bits: int = 7) -> int:
    """Return a number of HDiffPatch's: groups of 7 bits, the highest first; the first group may have fewer."""
    byte = fields.byte() if first is None else first
    value = byte & ((1 << bits) - 1)
    more = byte & (1 << bits)
    while more:
        byte = fields.byte()
        value = value << 7 | byte & 0x7F
        more = byte & 0x80
    return value
