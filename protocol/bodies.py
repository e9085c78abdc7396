"""The two fallback bodies: plain enough to be decoded by anyone, for ever.

CBOR rows: an array of [time, value or null, ...] rows, deterministic CBOR. Delta zstd: a zstd frame (RFC 8878) that
holds the row count, then column by column the zigzag LEB128 varints of each difference (times first), each channel's
column led by a presence byte (0: all present, 1: a bit mask of the present rows follows).
The frame is read through a bounded decompressor: its own header is never believed (43 bytes became 1 GiB).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from protocol import cbor
from protocol.errors import MalformedError
from protocol.rows import TIME_MAX, TIME_MIN, Row
from protocol.schema import VALUE_MAX, VALUE_MIN, Schema

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_LEVEL: Final = 19
_WINDOW_LOG_MAX: Final = 23  # 8 MiB
_VARINT_BITS_MAX: Final = 70  # a zigzag difference of two 64-bit integers has 66
_COLUMN_BYTES_A_ROW_MAX: Final = 11


def encode_cbor_rows(rows: Sequence[Row]) -> bytes:
    """Return rows as one deterministic CBOR array."""
    return cbor.encode([[time, *values] for time, values in rows])


def decode_cbor_rows(schema: Schema, body: bytes, *, rows_max: int) -> list[Row]:
    """Return the rows of `encode_cbor_rows`."""
    width = len(schema.channels) + 1
    value = cbor.decode(body, items_max=1 + rows_max * (width + 1))
    if not isinstance(value, list) or len(value) > rows_max:
        raise MalformedError(f"a body is an array of at most {rows_max} rows")
    return [_row(item, width) for item in value]


def encode_delta_zstd(schema: Schema, rows: Sequence[Row]) -> bytes:
    """Return rows as column-wise differences, zstd-compressed."""
    out = bytearray(_varint(len(rows)))
    last = 0
    for time, _ in rows:
        out += _zigzag(time - last - schema.period_ticks)
        last = time
    for index, channel in enumerate(schema.channels):
        column = [values[index] for _, values in rows]
        if None in column:
            mask = sum(1 << at for at, value in enumerate(column) if value is not None)
            out += b"\x01" + mask.to_bytes((len(column) + 7) // 8, "little")
        else:
            out += b"\x00"
        last = channel.nominal
        for value in column:
            if value is not None:
                out += _zigzag(value - last)
                last = value
    return zstd.compress(bytes(out), level=_ZSTD_LEVEL)


def decode_delta_zstd(schema: Schema, body: bytes, *, rows_max: int) -> list[Row]:
    """Return the rows of `encode_delta_zstd`; never builds more than `rows_max` rows can need."""
    reader = _Reader(_decompress(body, bytes_max=16 + rows_max * _COLUMN_BYTES_A_ROW_MAX * (len(schema.channels) + 1)))
    count = reader.varint()
    if count > rows_max:
        raise MalformedError(f"a body of {count} rows where at most {rows_max} are allowed")
    times = []
    last = 0
    for _ in range(count):
        last = _bounded(last + schema.period_ticks + reader.zigzag(), TIME_MIN, TIME_MAX)
        times.append(last)
    columns: list[list[int | None]] = []
    for channel in schema.channels:
        present = reader.presence(count)
        column: list[int | None] = []
        last = channel.nominal
        for at in range(count):
            if present >> at & 1:
                last = _bounded(last + reader.zigzag(), VALUE_MIN, VALUE_MAX)
                column.append(last)
            else:
                column.append(None)
        columns.append(column)
    reader.finish()
    return list(zip(times, zip(*columns, strict=True), strict=True))


def _row(item: Any, width: int) -> Row:
    if not isinstance(item, list) or len(item) != width:
        raise MalformedError(f"a row is an array of {width} numbers")
    time, *values = item
    if not _is_integer(time) or not TIME_MIN <= time <= TIME_MAX:
        raise MalformedError("a row's time is out of bounds")
    for value in values:
        if value is not None and not (_is_integer(value) and value <= VALUE_MAX):
            raise MalformedError("a row's value is no 64-bit integer")
    return time, tuple(values)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bounded(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise MalformedError("a decoded value is out of bounds")
    return value


def _decompress(body: bytes, *, bytes_max: int) -> bytes:
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
    try:
        data = decompressor.decompress(body, max_length=bytes_max + 1)
    except zstd.ZstdError as error:
        raise MalformedError(f"a body is no zstd frame: {error}") from error
    if len(data) > bytes_max or not decompressor.eof or decompressor.unused_data:
        raise MalformedError("a zstd body is cut short, too long, or followed by more")
    return data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


class _Reader:
    """Reads varints from decompressed bytes that are still untrusted."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            if self._at >= len(self._data) or shift > _VARINT_BITS_MAX:
                raise MalformedError("a varint is cut short or too long")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def zigzag(self) -> int:
        value = self.varint()
        return value >> 1 if not value & 1 else -(value + 1 >> 1)

    def presence(self, count: int) -> int:
        kind = self._take(1)[0]
        if kind == 0:
            return (1 << count) - 1
        if kind != 1:
            raise MalformedError("a column's presence byte is 0 or 1")
        return int.from_bytes(self._take((count + 7) // 8), "little")

    def finish(self) -> None:
        if self._at != len(self._data):
            raise MalformedError("bytes follow the last column")

    def _take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise MalformedError("a column is cut short")
        self._at += length
        return taken
