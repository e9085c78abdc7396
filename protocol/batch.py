"""Batch bodies: the telemetry rows of one schema in as few bytes as we know how, and back.

A row is (time, values): the time in the schema's ticks, and one scaled integer or None (missing) a channel. A
range-coded body is the row count (LEB128 varint) and one range-coded stream of rows (see `rows`, `residuals`). What is
learnt begins afresh in each batch, so any batch decodes alone; but one of the codec CARRIED may have a `base`: what
another batch, which the gateway has acknowledged, had learnt when it ended, its last row included. That spares the
first row's cost and the learning. The fallback bodies are in `bodies`.

Deliberately absent: which schema and which base a body has (the batch payload says so), and any checksum: signatures
are verified before anything is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocol import bodies
from protocol.errors import LocalError, MalformedError
from protocol.rangecoder import RangeDecoder, RangeEncoder
from protocol.rows import Row, RowModel, check_row, first_time
from protocol.schema import Codec, Schema

ROWS_MAX: Final = 4096
FALLBACKS: Final = frozenset({Codec.CBOR_ROWS, Codec.DELTA_ZSTD})
RANGE_CODED: Final = frozenset({Codec.CONTEXT, Codec.CARRIED})
_COUNT_BYTES_MAX: Final = 2


def encode(schema: Schema, rows: Iterable[Row], *, base: RowModel | None = None) -> bytes:
    """Return the body of at most `ROWS_MAX` rows; raise `LocalError` for rows that do not fit the schema."""
    encoder = BatchEncoder(schema, base=base)
    for row in rows:
        encoder.append(row)
    return encoder.finish()


def decode(schema: Schema, body: bytes, *, rows_max: int = ROWS_MAX, base: RowModel | None = None) -> list[Row]:
    """Return the rows of `body`; raise `MalformedError` for bytes that `encode` would not write for this schema."""
    if schema.codec is Codec.CBOR_ROWS:
        return bodies.decode_cbor_rows(schema, body, rows_max=rows_max)
    if schema.codec is Codec.DELTA_ZSTD:
        return bodies.decode_delta_zstd(schema, body, rows_max=rows_max)
    return decode_on(schema, body, rows_max=rows_max, base=base)[0]


def decode_on(
    schema: Schema, body: bytes, *, rows_max: int = ROWS_MAX, base: RowModel | None = None
) -> tuple[list[Row], RowModel]:
    """Return the rows of a range-coded body, and what was learnt at its end: a base for other batches."""
    if schema.codec not in RANGE_CODED:
        raise MalformedError("a body that is not range-coded teaches nothing, and a summary holds no rows")
    count, at = _read_count(body, rows_max)
    decoder = RangeDecoder(body[at:])
    model = RowModel(schema, base)
    blank: Row = (0, (None,) * len(schema.channels))
    rows = [model.code(decoder, blank) for _ in range(count)]
    decoder.finish()
    return rows, model


def peek(schema: Schema, body: bytes, *, rows_max: int = ROWS_MAX) -> tuple[int, int]:
    """Return the time of the first row (in ticks) and the number of rows of a body.

    Of a range-coded body nothing else is read, which is some hundred times quicker than `decode`: that these are what
    the body really holds is known only once it was decoded. Raises `MalformedError`, also for a body without rows.
    """
    if schema.codec in FALLBACKS:
        rows = decode(schema, body, rows_max=rows_max)
        count, first = len(rows), rows[0][0] if rows else 0
    else:
        count, at = _read_count(body, rows_max)
        first = first_time(RangeDecoder(body[at:]), schema) if count else 0
    if not count:
        raise MalformedError("a batch without rows")
    return first, count


class BatchEncoder:
    """Encodes row by row and always knows the size, so that a batch can be closed when it fills a datagram."""

    __slots__ = ("_base", "_closed", "_coder", "_count", "_kept", "_model", "_schema")

    def __init__(self, schema: Schema, *, base: RowModel | None = None) -> None:
        if schema.codec is Codec.SUMMARY:
            raise LocalError("a summary is not made of rows")
        if base is not None and schema.codec is not Codec.CARRIED:
            raise LocalError(f"a batch of the codec {schema.codec.name} has no base")
        self._schema = schema
        self._base = base
        self._count = 0
        self._closed: bytes | None = None
        self._kept: list[Row] = []  # only the fallback bodies need the rows again
        self._coder = RangeEncoder()
        self._model = RowModel(schema, base)

    @property
    def rows(self) -> int:
        """Return how many rows the batch has."""
        return self._count

    @property
    def size_bytes(self) -> int:
        """Return the exact length of what `finish` would return now."""
        if self._closed is not None or self._schema.codec in FALLBACKS:
            return len(self.finish())
        return len(_count_bytes(self._count)) + self._coder.size_bytes

    def learnt(self) -> RowModel:
        """Return what the batch has learnt at its end. Once it is closed for a row that did not fit, it is decoded."""
        # The model has seen that row, too.
        return self._model if self._closed is None else decode_on(self._schema, self._closed, base=self._base)[1]

    def append(self, row: Row, *, bytes_max: int | None = None) -> bool:
        """Add a row and return True. With `bytes_max`, return False if the body would outgrow it.

        The batch is then closed: it holds the rows before, and the row belongs into the next one. The first row is
        always taken. Raises `LocalError` for a row that does not fit the schema, or once the batch is closed.
        """
        check_row(self._schema, row)
        if self._closed is not None or self._count >= ROWS_MAX:
            raise LocalError("the batch is closed")
        before = self.finish() if bytes_max is not None and self._count else None
        if self._schema.codec in FALLBACKS:
            self._kept.append(row)
        else:
            self._model.code(self._coder, row)
        self._count += 1
        if before is not None and bytes_max is not None and self.size_bytes > bytes_max:
            self._closed = before
            self._count -= 1
            return False
        return True

    def finish(self) -> bytes:
        """Return the body of the rows so far."""
        if self._closed is not None:
            return self._closed
        if self._schema.codec is Codec.CBOR_ROWS:
            return bodies.encode_cbor_rows(self._kept)
        if self._schema.codec is Codec.DELTA_ZSTD:
            return bodies.encode_delta_zstd(self._schema, self._kept)
        return _count_bytes(self._count) + self._coder.finish()


def _count_bytes(count: int) -> bytes:
    return bytes([count]) if count < 0x80 else bytes([count & 0x7F | 0x80, count >> 7])


def _read_count(body: bytes, rows_max: int) -> tuple[int, int]:
    if not body:
        raise MalformedError("a body is empty")
    if body[0] < 0x80:
        count, at = body[0], 1
    elif len(body) >= _COUNT_BYTES_MAX and 0 < body[1] < 0x80:
        count, at = body[0] & 0x7F | body[1] << 7, _COUNT_BYTES_MAX
    else:
        raise MalformedError("a body's row count is cut short or too long")
    if count > rows_max:
        raise MalformedError(f"a body of {count} rows where at most {rows_max} are allowed")
    return count, at
