"""The head of a batch as it is stored: when it begins and ends, and how many rows it has; and bounds of times."""

from __future__ import annotations

from typing import Final

from protocol.batch import peek
from protocol.errors import MalformedError
from protocol.messages import Batch
from protocol.schema import Codec, Schema
from protocol.summary import decode_summary
from store.fleet.evidence import BatchPart

# Bounds of what the database counts in 64 bits: far beyond any clock, and sums of a few of them still fit.
TIME_MS_MAX: Final = 1 << 60
BOOT_MAX: Final = (1 << 63) - 1


def batch_part(batch: Batch, digest: bytes, schema: Schema) -> BatchPart:
    """Return the part of a batch that verified; a summary is decoded whole, of others only the head is read."""
    tick_ms = 1000 // schema.ticks_per_s
    if schema.codec is Codec.SUMMARY:
        pieces = [piece for _, each in decode_summary(schema, batch.body).batches for piece in each]
        first, last = min(piece.first for piece in pieces), max(piece.last for piece in pieces)
        check_time(first * tick_ms)
        # The rows are those of the batches that it stands for.
        return BatchPart(batch.schema, digest, batch.boot, first * tick_ms, last * tick_ms, 0)
    first, rows = peek(schema, batch.body)
    # Until the rows are decoded, they are taken to have come one a period.
    last = first + (rows - 1) * schema.period_ticks
    check_time(first * tick_ms)
    return BatchPart(batch.schema, digest, batch.boot, first * tick_ms, last * tick_ms, rows)


def check_boot(boot: int | None) -> None:
    """Raise `MalformedError` for a number of a boot that no database holds."""
    if boot is not None and boot > BOOT_MAX:
        raise MalformedError("a boot's number has more than 63 bits")


def check_time(time_ms: int) -> None:
    """Raise `MalformedError` for a time that no clock shows."""
    if abs(time_ms) > TIME_MS_MAX:
        raise MalformedError("a time that no clock shows")
