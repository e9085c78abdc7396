"""From stored batches to rows: what a truck signed, read under the schema that its signature fixes.

A body that does not decode, though its truck signed it, is left out and logged; the rollup task puts it aside. One that
never comes to an end, or takes its process along, is not touched any more after a few attempts.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from protocol import batch as bodies
from protocol import cose
from protocol.errors import PeerError
from protocol.messages import Batch, unseal
from protocol.schema import Channel, Codec, Schema, decode_schema
from protocol.summary import Piece, Summary, decode_summary
from store.attempts import Attempts
from store.fleet.evidence import BatchRecord
from store.fleet.fleet import FleetStore

_SCHEMAS_MAX = 1_024
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """A batch's rows with wall times (Unix ms) and scaled integers, as `schema` describes them.

    `is_repaired`: the rows were taken under an unset clock, and their wall times were told later. A summary has no
    rows: it has pieces, with wall times (Unix ms) too, and names the epoch of the batches that it stands for.
    """

    schema: Schema
    rows: Sequence[tuple[int, tuple[int | None, ...]]]
    is_repaired: bool = False
    summary: Summary | None = None


def decode_batch(record: BatchRecord, schema: Schema) -> DecodedBatch:
    """Return the rows of a stored batch whose clock is known; raise `PeerError` if it is damaged."""
    payload = Batch.decode(unseal(record.sealed).payload)
    tick_ms = 1000 // schema.ticks_per_s
    offset_ms = record.offset_ms or 0
    if schema.codec is Codec.SUMMARY:
        summary = _timed(decode_summary(schema, payload.body), record.key.epoch, tick_ms, offset_ms)
        return DecodedBatch(schema, (), record.boot is not None, summary)
    rows = [(time * tick_ms + offset_ms, values) for time, values in bodies.decode(schema, payload.body)]
    return DecodedBatch(schema, rows, record.boot is not None)


def _timed(summary: Summary, epoch: int, tick_ms: int, offset_ms: int) -> Summary:
    def timed(piece: Piece) -> Piece:
        return replace(piece, first=piece.first * tick_ms + offset_ms, last=piece.last * tick_ms + offset_ms)

    batches = tuple((sequence, tuple(map(timed, pieces))) for sequence, pieces in summary.batches)
    return Summary(batches, epoch if summary.epoch is None else summary.epoch)


def physical(channel: Channel, value: int) -> float:
    """Return a scaled integer as the value in the channel's unit."""
    return float(value) if channel.scale == 1 else value / channel.scale


class SchemaCache:
    """Decoded schemas by digest: they never change, and each batch needs one."""

    def __init__(self, fleet: FleetStore, attempts: Attempts | None = None) -> None:
        self._fleet = fleet
        self._attempts = attempts or Attempts()
        self._known: OrderedDict[bytes, Schema] = OrderedDict()

    async def get(self, digest: bytes) -> Schema:
        """Return a schema; raise `PeerError` if the stored one does not decode, `KeyError` if it is not there."""
        known = self._known.get(digest)
        if known is None:
            encoded = await self._fleet.schema(digest)
            if encoded is None:
                raise KeyError(digest.hex())
            known = self._known[digest] = decode_schema(encoded)
            if len(self._known) > _SCHEMAS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return known

    async def decode(self, records: Sequence[BatchRecord]) -> list[tuple[BatchRecord, DecodedBatch]]:
        """Return the batches that decode, in their order; the damaged are logged and left out."""
        pairs = []
        for record in records:
            try:
                pairs.append((record, await self.get(record.schema_digest or b"")))
            except (KeyError, PeerError) as error:
                _log_damaged(record, error)
        return await asyncio.to_thread(_decode_all, pairs, self._attempts)


def _decode_all(
    pairs: Sequence[tuple[BatchRecord, Schema]], attempts: Attempts
) -> list[tuple[BatchRecord, DecodedBatch]]:
    decoded = []
    for record, schema in pairs:
        try:
            with attempts.of(cose.digest(record.sealed)):
                decoded.append((record, decode_batch(record, schema)))
        except Exception as error:  # one that nobody foresaw would hold up all those behind it
            _log_damaged(record, error)
    return decoded


def _log_damaged(record: BatchRecord, error: Exception) -> None:
    _log.error("batch.damaged", truck=record.key.truck, sequence=record.key.sequence, error=str(error))
