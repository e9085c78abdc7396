"""Deterministic CBOR, strict in both directions (RFC 8949 section 4.2.1).

`encode` writes the core deterministic encoding; `decode` accepts nothing else. One walk over the heads checks size,
depth, item count, tags, definite and shortest lengths, and that the keys of each map ascend, before any object is
built; only then does cbor2 build the value. Floating point is deliberately absent: values are scaled integers, so that
x86 and ARM agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2

from protocol.errors import MalformedError
from protocol.numbers import CBOR_BYTES_MAX, CBOR_DEPTH_MAX, CBOR_ITEMS_MAX

_NO_TAGS: frozenset[int] = frozenset()
_KEY_MAJORS = frozenset({0, 1, 3})  # integers and text
# An argument that fits a shorter head must use it: the smallest argument of each longer head, by its info bits.
_ARGUMENT_MIN = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}


def encode(value: object) -> bytes:
    """Return the deterministic encoding of `value` (int, bytes, str, bool, None, sequence, mapping, `cbor2.CBORTag`).

    Raises `TypeError` or `ValueError` for what the wire has no form for: that is a fault of ours, never of a peer.
    """
    return cbor2.dumps(_ordered(value))


def _ordered(value: object) -> object:
    """Return `value` with the keys of its maps in wire order; refuse what the wire has no form for."""
    if value is None or isinstance(value, bool | bytes | str):
        return value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError("an integer on the wire has at most 64 bits")
        return value
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    if isinstance(value, Mapping):
        # Not cbor2's canonical mode: that sorts shorter keys first (RFC 8949 section 4.2.3, the older rule).
        return {key: _ordered(value[key]) for key in sorted(value, key=_encoded_key)}
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, _ordered(value.value))
    raise TypeError(f"the wire has no form for {type(value).__name__}")


def _encoded_key(key: object) -> bytes:
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise TypeError("a map key on the wire is an integer or a text string")
    return cbor2.dumps(_ordered(key))


def decode(
    data: bytes,
    *,
    bytes_max: int = CBOR_BYTES_MAX,
    items_max: int = CBOR_ITEMS_MAX,
    tags: frozenset[int] = _NO_TAGS,
) -> Any:
    """Return the one value that `data` encodes deterministically: lists as lists, maps as dicts, named tags as CBORTag.

    Raises `MalformedError` for anything else, without building it first.
    """
    if len(data) > bytes_max:
        raise MalformedError(f"{len(data)} bytes of CBOR where at most {bytes_max} are allowed")
    _check(data, items_max=items_max, tags=tags)
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MalformedError("CBOR that does not decode") from error
    return _plain(value) if tags else value


def _plain(value: object) -> object:
    # Inside tags cbor2 builds immutable containers; the callers want one kind of list and one kind of map.
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, _plain(value.value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _check(data: bytes, *, items_max: int, tags: frozenset[int]) -> None:
    """Walk one item without building it; raise `MalformedError` at the first byte that is not allowed."""
    at, end, items = 0, len(data), 0
    remaining = [1]  # items still to come, for each open container
    last_keys: list[bytes | None] = [None]  # the key before, for each open map
    while remaining:
        if remaining[-1] == 0:
            remaining.pop()
            last_keys.pop()
            continue
        last_key = last_keys[-1]
        is_key = last_key is not None and remaining[-1] % 2 == 0
        remaining[-1] -= 1
        items += 1
        if items > items_max:
            raise MalformedError(f"more than {items_max} CBOR items")
        if at >= end:
            raise MalformedError("CBOR ends in the middle of an item")
        start = at
        major, argument, at = _read_head(data, at)
        if is_key and major not in _KEY_MAJORS:
            raise MalformedError("a map key on the wire is an integer or a text string")
        if major == 1 and argument >= 1 << 63:
            raise MalformedError("a negative integer of more than 64 bits")
        if major in (2, 3):
            at += argument
        if at > end:
            raise MalformedError("CBOR ends in the middle of an item")
        if is_key:
            key = data[start:at]
            if last_key is not None and key <= last_key:
                raise MalformedError("map keys that repeat or do not ascend (RFC 8949 section 4.2.1)")
            last_keys[-1] = key
        if major == 6 and argument not in tags:
            raise MalformedError(f"CBOR tag {argument} is not allowed here")
        if 4 <= major <= 6:
            inner = argument if major == 4 else 2 * argument if major == 5 else 1
            if inner > end - at or inner > items_max:
                raise MalformedError("a CBOR container announces more items than its input holds")
            if len(remaining) > CBOR_DEPTH_MAX:
                raise MalformedError(f"CBOR nested deeper than {CBOR_DEPTH_MAX}")
            remaining.append(inner)
            last_keys.append(b"" if major == 5 else None)
    if at != end:
        raise MalformedError(f"{end - at} trailing bytes after the CBOR item")


def _read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return major type, argument and the place after the head at `at`; the argument must be in its shortest form."""
    major, info = data[at] >> 5, data[at] & 0x1F
    at += 1
    if major == 7:
        if info not in (20, 21, 22):
            raise MalformedError("floating point and other simple values are not on the wire")
        return major, 0, at
    if info < 24:
        return major, info, at
    if info > 27:
        raise MalformedError("indefinite lengths and reserved heads are not on the wire")
    after = at + (1 << (info - 24))
    if after > len(data):
        raise MalformedError("CBOR ends in the middle of an item")
    argument = int.from_bytes(data[at:after], "big")
    if argument < _ARGUMENT_MIN[info]:
        raise MalformedError("a CBOR head longer than its argument needs (RFC 8949 section 4.2.1)")
    return major, argument, after
