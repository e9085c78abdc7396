"""Parquet (format 2.x of Apache Parquet): `time`, a nullable double for each column, and `repaired`.

Written by hand, because the library that does it weighs ten times what a gateway installs: plain values in one page
for each column and row group, compressed with zstd. Labels carry the units, as in CSV. The footer is Thrift's compact
protocol (`_Thrift`), field by field as parquet.thrift numbers them.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from gateway.series import Column, TableRow

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC = b"PAR1"
_GROUP_ROWS = 20_000
_ZSTD_LEVEL = 6
_CREATED_BY = "digitruck"


class _Type(IntEnum):
    INT32 = 1
    INT64 = 2
    DOUBLE = 5


_REQUIRED, _OPTIONAL = 0, 1
_TIMESTAMP_MILLIS = 9
_PLAIN, _RLE = 0, 3
_ZSTD = 6
_DATA_PAGE = 0
_PACKING = {_Type.INT32: "i", _Type.INT64: "q", _Type.DOUBLE: "d"}


class ParquetWriter:
    """Writes the rows of one truck as a Parquet file; holds at most one row group and the places of those before."""

    def __init__(self, truck: str, columns: Sequence[Column]) -> None:
        self._truck = truck
        self._names = ["time", *(column.label for column in columns), "repaired"]
        self._types = [_Type.INT64, *(_Type.DOUBLE for _ in columns), _Type.INT32]
        self._waiting: list[TableRow] = []
        self._groups: list[_Struct] = []
        self._rows = 0
        self._at = 0

    def begin(self) -> bytes:
        """Return the mark of the format."""
        self._at = len(_MAGIC)
        return _MAGIC

    def rows(self, rows: Sequence[TableRow]) -> bytes:
        """Take some rows; return a row group when enough have come together."""
        self._waiting.extend(rows)
        return self._group() if len(self._waiting) >= _GROUP_ROWS else b""

    def end(self) -> bytes:
        """Return the last row group and the footer."""
        data = self._group() if self._waiting else b""
        footer = _Thrift.encode(self._file())
        return data + footer + struct.pack("<I", len(footer)) + _MAGIC

    def _group(self) -> bytes:
        rows, self._waiting = self._waiting, []
        columns: list[Sequence[Any]] = [
            [row.time_ms for row in rows],
            *([row.values[at] for row in rows] for at in range(len(self._names) - 2)),
            [row.repaired for row in rows],
        ]
        data = bytearray()
        chunks = []
        for name, kind, values in zip(self._names, self._types, columns, strict=True):
            page, raw_size = _page(kind, values)
            chunks.append(_chunk(name, kind, len(values), self._at + len(data), raw_size, len(page)))
            data += page
        self._groups.append({1: chunks, 2: len(data), 3: len(rows)})
        self._rows += len(rows)
        self._at += len(data)
        return bytes(data)

    def _file(self) -> _Struct:
        schema: list[_Struct] = [{4: "samples", 5: _I32(len(self._names))}]
        for name, kind in zip(self._names, self._types, strict=True):
            element: _Struct = {1: _I32(kind), 3: _I32(_OPTIONAL if kind is _Type.DOUBLE else _REQUIRED), 4: name}
            if kind is _Type.INT64:
                element |= {6: _I32(_TIMESTAMP_MILLIS), 10: {8: {1: True, 2: {1: {}}}}}
            schema.append(element)
        return {
            1: _I32(2),
            2: schema,
            3: self._rows,
            4: self._groups,
            5: [{1: "truck", 2: self._truck}],
            6: _CREATED_BY,
        }


def _page(kind: _Type, values: Sequence[Any]) -> tuple[bytes, int]:
    """Return one data page with its header, and its size before compression, header included."""
    body = b""
    present = values
    if kind is _Type.DOUBLE:
        present = [value for value in values if value is not None]
        levels = _levels(values)
        body = struct.pack("<I", len(levels)) + levels
    body += struct.pack(f"<{len(present)}{_PACKING[kind]}", *present)
    packed = zstd.compress(body, _ZSTD_LEVEL)
    header = _Thrift.encode(
        {
            1: _I32(_DATA_PAGE),
            2: _I32(len(body)),
            3: _I32(len(packed)),
            5: {1: _I32(len(values)), 2: _I32(_PLAIN), 3: _I32(_RLE), 4: _I32(_RLE)},
        }
    )
    return header + packed, len(header) + len(body)


def _levels(values: Sequence[object]) -> bytes:
    """Return which values are there, one bit each, as a single bit-packed run of groups of eight."""
    bits = "".join("0" if value is None else "1" for value in reversed(values))
    groups = (len(values) + 7) // 8
    return _varint(groups << 1 | 1) + int(bits, 2).to_bytes(groups, "little")


def _chunk(name: str, kind: _Type, count: int, at: int, raw_size: int, size: int) -> _Struct:
    described: _Struct = {
        1: _I32(kind),
        2: [_I32(_PLAIN), _I32(_RLE)],
        3: [name],
        4: _I32(_ZSTD),
        5: count,
        6: raw_size,
        7: size,
        9: at,
    }
    return {2: at, 3: described}


class _I32(int):
    """An integer of 32 bits; a plain int is written as one of 64."""


_Struct = dict[int, Any]


class _Thrift:
    """Thrift's compact protocol, as far as the footer needs it: a struct is a dict by field number, ascending."""

    @staticmethod
    def encode(fields: _Struct) -> bytes:
        """Return the struct's bytes."""
        out = bytearray()
        last = 0
        for number, value in fields.items():
            kind = _Thrift._kind(value)
            out.append(number - last << 4 | kind)
            last = number
            if not isinstance(value, bool):  # a boolean is all in its kind
                out += _Thrift._value(value)
        out.append(0)
        return bytes(out)

    @staticmethod
    def _kind(value: Any) -> int:
        match value:
            case bool():
                return 1 if value else 2
            case _I32():
                return 5
            case int():
                return 6
            case str():
                return 8
            case list():
                return 9
        return 12

    @staticmethod
    def _value(value: Any) -> bytes:
        match value:
            case int():
                return _varint(value << 1 if value >= 0 else ~(value << 1))
            case str():
                text = value.encode()
                return _varint(len(text)) + text
            case list():
                kind = _Thrift._kind(value[0]) if value else 12
                size = len(value)
                head = bytes([size << 4 | kind]) if size < 15 else bytes([0xF0 | kind]) + _varint(size)
                return head + b"".join(_Thrift._value(each) for each in value)
        return _Thrift.encode(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
