"""Deterministic CBOR, strict in both directions (RFC 8949 section 4.2.1).

`encode` writes the core deterministic encoding; `decode` accepts nothing else. A scan of the heads checks size, depth,
item count, tags and definite lengths before any object is built; cbor2 then builds the value, and encoding it again
must give the same bytes, which rules out longer heads, unordered or duplicate keys and trailing bytes in one
comparison. Floating point is deliberately absent: values are scaled integers, so that x86 and ARM agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2

from protocol.errors import MalformedError
from protocol.numbers import CBOR_BYTES_MAX, CBOR_DEPTH_MAX, CBOR_ITEMS_MAX

_NO_TAGS: frozenset[int] = frozenset()


def encode(value: object) -> bytes:
    """Return the deterministic encoding of `value` (int, bytes, str, bool, None, sequence, mapping, `cbor2.CBORTag`).

    Raises `TypeError` or `ValueError` for what the wire has no form for: that is a fault of ours, never of a peer.
    """
    _check_encodable(value)
    return cbor2.dumps(value, canonical=True)


def _check_encodable(value: object) -> None:
    if value is None or isinstance(value, bool | bytes | str):
        return
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError("an integer on the wire has at most 64 bits")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_encodable(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise TypeError("a map key on the wire is an integer or a text string")
            _check_encodable(item)
    elif isinstance(value, cbor2.CBORTag):
        _check_encodable(value.value)
    else:
        raise TypeError(f"the wire has no form for {type(value).__name__}")


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
    _check_heads(data, items_max=items_max, tags=tags)
    try:
        value = _plain(cbor2.loads(data)) if tags else cbor2.loads(data)
        again = cbor2.dumps(value, canonical=True)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MalformedError("CBOR that does not decode") from error
    if again != data:
        raise MalformedError("CBOR that is not in deterministic encoding (RFC 8949 section 4.2.1)")
    return value


def _plain(value: object) -> object:
    # Inside tags cbor2 builds immutable containers; the callers want one kind of list and one kind of map.
    if isinstance(value, cbor2.CBORTag):
        return cbor2.CBORTag(value.tag, _plain(value.value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _check_heads(data: bytes, *, items_max: int, tags: frozenset[int]) -> None:
    """Walk the heads of one item without building it; raise `MalformedError` at the first that is not allowed."""
    at, end, items = 0, len(data), 0
    remaining = [1]  # items still to come, for each open container
    while remaining:
        if remaining[-1] == 0:
            remaining.pop()
            continue
        remaining[-1] -= 1
        items += 1
        if items > items_max:
            raise MalformedError(f"more than {items_max} CBOR items")
        if at >= end:
            raise MalformedError("CBOR ends in the middle of an item")
        major, info = data[at] >> 5, data[at] & 0x1F
        at += 1
        if major == 7:
            if info not in (20, 21, 22):
                raise MalformedError("floating point and other simple values are not on the wire")
            continue
        argument = info
        if info >= 24:
            if info > 27:
                raise MalformedError("indefinite lengths and reserved heads are not on the wire")
            width = 1 << (info - 24)
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
        if major == 1:
            if argument >= 1 << 63:
                raise MalformedError("a negative integer of more than 64 bits")
        elif major in (2, 3):
            at += argument
        elif major == 6 and argument not in tags:
            raise MalformedError(f"CBOR tag {argument} is not allowed here")
        if at > end:
            raise MalformedError("CBOR ends in the middle of an item")
        if major >= 4:
            inner = argument if major == 4 else 2 * argument if major == 5 else 1
            if inner > end - at or inner > items_max:
                raise MalformedError("a CBOR container announces more items than its input holds")
            if len(remaining) > CBOR_DEPTH_MAX:
                raise MalformedError(f"CBOR nested deeper than {CBOR_DEPTH_MAX}")
            remaining.append(inner)
    if at != end:
        raise MalformedError(f"{end - at} trailing bytes after the CBOR item")
