"""What else telemetry could be encoded with, each written as its users would: a batch of rows to bytes.

Rows are scaled integers. What is for people or standards (JSON, SenML) gets decimals; what is binary gets the integers.
Columnar ones get, per column, the differences from row to row (zigzag varints, or for pcodec the shorter integers that
fit), and before them, where a column has holes, a bit for each row. None is signed and none carries the schema: names
are in those that need them on the wire.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import brotli
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pcodec import ChunkConfig, standalone

from edge.recording import Recording
from gateway.exports.senml import SenmlCborWriter
from gateway.series import Column, TableRow
from protocol.rows import Row
from tests.bench.traces import row_json

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_LEVEL = 19
_BROTLI_QUALITY = 11
Encoder = Callable[[Sequence[Row]], bytes]


@dataclass(frozen=True, slots=True)
class Rival:
    """An encoding, and the bytes a row that the design measured on truck-a at 1, 10, 60, 160, 360 and 1440 rows."""

    name: str
    encode: Encoder
    design: tuple[float | None, ...]


def rivals(recording: Recording) -> list[Rival]:
    """Return the encodings for rows of a recording."""
    as_json, as_protobuf = _json(recording), _protobuf(recording)
    return [
        Rival("JSON", as_json, (223, 223, 222, None, 222, 222)),
        Rival("JSON + zstd-19", lambda rows: _zstd(as_json(rows)), (171, 38.5, 22.3, None, 18.6, 18.2)),
        Rival("SenML CBOR", _senml_cbor(recording), (294, 310, 317, None, 318, 327)),
        Rival("protobuf", as_protobuf, (None,) * 6),
        Rival("protobuf + zstd-19", lambda rows: _zstd(as_protobuf(rows)), (67, 30.0, 22.8, None, 20.5, 20.3)),
        Rival("pcodec, flat deltas", _pcodec, (45, 18.2, 11.1, None, 9.4, 9.2)),
        Rival("columnar delta + zstd-19", lambda rows: _zstd(_deltas(rows)), (50, 16.9, 10.3, None, 8.3, 7.9)),
        Rival("columnar delta + brotli-11", lambda rows: _brotli(_deltas(rows)), (49, 17.0, 9.9, None, 7.7, 7.1)),
        Rival("columnar delta + deflate-9", lambda rows: zlib.compress(_deltas(rows), 9, -15), (None,) * 6),
    ]


def _json(recording: Recording) -> Encoder:
    return lambda rows: b"[" + b",".join(row_json(recording, row) for row in rows) + b"]"


def _senml_cbor(recording: Recording) -> Encoder:
    columns = [Column(name, "") for name in recording.names]

    def encode(rows: Sequence[Row]) -> bytes:
        writer = SenmlCborWriter("truck", columns)
        table = [
            TableRow(
                time * 1000 // recording.ticks_per_s,
                tuple(
                    None if value is None else value / scale
                    for value, scale in zip(values, recording.scales, strict=True)
                ),
                0,
            )
            for time, values in rows
        ]
        return writer.begin() + writer.rows(table) + writer.end()

    return encode


def _protobuf(recording: Recording) -> Encoder:
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    row = file.message_type.add(name="Row")
    field = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(("t", *(f"c{at}" for at in range(len(recording.names)))), start=1):
        row.field.add(name=name, number=number, type=field.TYPE_SINT64, label=field.LABEL_OPTIONAL)
    batch = file.message_type.add(name="Batch")
    batch.field.add(name="rows", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED, type_name=".bench.Row")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    make = message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Batch"))

    def encode(rows: Sequence[Row]) -> bytes:
        message = make()
        for time, values in rows:
            message.rows.add(t=time, **{f"c{at}": value for at, value in enumerate(values) if value is not None})
        return bytes(message.SerializeToString())

    return encode


def _columns(rows: Sequence[Row]) -> tuple[bytes, list[list[int]]]:
    """Return which values are missing (nothing if none is), and the differences down each column."""
    holes = b""
    columns = []
    for column in ([row[0] for row in rows], *zip(*(row[1] for row in rows), strict=True)):
        if any(value is None for value in column):
            bits = sum(1 << at for at, value in enumerate(column) if value is None)
            holes += bits.to_bytes((len(column) + 7) // 8, "little")
        present = [value for value in column if value is not None]
        columns.append([now - before for before, now in zip([0, *present], present, strict=False)])
    return holes, columns


def _deltas(rows: Sequence[Row]) -> bytes:
    holes, columns = _columns(rows)
    out = bytearray(holes)
    for delta in (delta for column in columns for delta in column):
        number = delta << 1 if delta >= 0 else ~(delta << 1)
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


def _pcodec(rows: Sequence[Row]) -> bytes:
    holes, columns = _columns(rows)
    flat = np.array([delta for column in columns for delta in column], dtype=np.int64)
    if np.all(flat == flat.astype(np.int32)):
        flat = flat.astype(np.int32)
    return holes + bytes(standalone.simple_compress(flat, ChunkConfig(compression_level=12)))


def _zstd(data: bytes) -> bytes:
    return zstd.compress(data, _ZSTD_LEVEL)


def _brotli(data: bytes) -> bytes:
    return bytes(brotli.compress(data, quality=_BROTLI_QUALITY))
