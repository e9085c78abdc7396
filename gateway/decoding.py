"""From stored batches to rows: what a truck signed, read under the schema that its signature fixes.

A body that does not decode, though its truck signed it, is left out and logged; the rollup task puts it aside. One that
never comes to an end, or takes its process along, is not touched any more after a few attempts.

A batch that goes on from another is decoded after those before it: what each of the last ones had learnt is kept, so
that a whole run costs no more than its batches. Those before it that were not asked for are read as well.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from protocol import batch as bodies
from protocol import cose
from protocol.errors import MalformedError, PeerError
from protocol.messages import Batch, unseal
from protocol.numbers import RUN_BATCHES_MAX
from protocol.rows import RowModel
from protocol.schema import Channel, Codec, Schema, decode_schema
from protocol.summary import Piece, Summary, decode_summary
from store.attempts import Attempts
from store.fleet.evidence import BatchRecord, ParcelKey
from store.fleet.fleet import FleetStore

_SCHEMAS_MAX = 1_024
_LEARNT_MAX = 64  # some 0.2 MB each
_LOADED_MAX = 4_096
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


def decode_batch(
    record: BatchRecord, schema: Schema, base: RowModel | None = None
) -> tuple[DecodedBatch, RowModel | None]:
    """Return the rows of a stored batch whose clock is known, and what it had learnt; raise `PeerError` if damaged."""
    payload = Batch.decode(unseal(record.sealed).payload)
    tick_ms = 1000 // schema.ticks_per_s
    offset_ms = record.offset_ms or 0
    is_repaired = record.boot is not None
    if schema.codec is Codec.SUMMARY:
        summary = _timed(decode_summary(schema, payload.body), record.key.epoch, tick_ms, offset_ms)
        return DecodedBatch(schema, (), is_repaired, summary), None
    model = None
    if schema.codec is Codec.CARRIED:
        found, model = bodies.decode_on(schema, payload.body, base=base)
    else:
        found = bodies.decode(schema, payload.body)
    rows = [(time * tick_ms + offset_ms, values) for time, values in found]
    return DecodedBatch(schema, rows, is_repaired), model


def base_key(record: BatchRecord) -> ParcelKey | None:
    """Return the batch that one goes on from; raise `PeerError` if it is damaged."""
    base = Batch.decode(unseal(record.sealed).payload).base_of(record.key.epoch, record.key.sequence)
    return None if base is None else ParcelKey(record.key.truck, *base)


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
        self._learnt: OrderedDict[ParcelKey, RowModel] = OrderedDict()

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
        run = _Run(self._attempts, OrderedDict(self._learnt))
        wanted = []
        for record in records:
            try:
                run.known[record.key] = record, await self.get(record.schema_digest or b"")
                wanted.append(record)
            except (KeyError, PeerError) as error:
                _log_damaged(record, error)
        for record in wanted:
            if run.known[record.key][1].codec is Codec.CARRIED:
                await self._load_run(run, record)
        decoded = await asyncio.to_thread(run.decode, wanted)
        self._learnt = run.learnt
        return decoded

    async def _load_run(self, run: _Run, record: BatchRecord) -> None:
        """Load the batches before one that are neither loaded nor known by what they had learnt."""
        try:
            key = base_key(record)
            while key is not None and key not in run.known and key not in run.learnt:
                before = await self._fleet.batch(key)
                if before is None or before.schema_digest != record.schema_digest or len(run.known) > _LOADED_MAX:
                    return  # decoding tells
                run.known[key] = before, await self.get(before.schema_digest or b"")
                key = base_key(before)
        except (KeyError, PeerError):
            return


class _Run:
    """Decodes batches and those that they go on from."""

    def __init__(self, attempts: Attempts, learnt: OrderedDict[ParcelKey, RowModel]) -> None:
        self._attempts = attempts
        self.known: dict[ParcelKey, tuple[BatchRecord, Schema]] = {}
        self.learnt = learnt

    def decode(self, records: Sequence[BatchRecord]) -> list[tuple[BatchRecord, DecodedBatch]]:
        decoded = []
        for record in records:
            try:
                with self._attempts.of(cose.digest(record.sealed)):
                    decoded.append((record, self._decode(record, self.known[record.key][1], RUN_BATCHES_MAX)))
            except Exception as error:  # one that nobody foresaw would hold up all those behind it
                _log_damaged(record, error)
        return decoded

    def _decode(self, record: BatchRecord, schema: Schema, depth: int) -> DecodedBatch:
        key = base_key(record) if schema.codec is Codec.CARRIED else None
        batch, model = decode_batch(record, schema, None if key is None else self._end(key, schema, depth - 1))
        if model is not None:
            self._keep(record.key, model)
        return batch

    def _end(self, key: ParcelKey, schema: Schema, depth: int) -> RowModel:
        """Return what a batch had learnt at its end."""
        if key not in self.learnt:
            if depth == 0 or key not in self.known or self.known[key][1].digest != schema.digest:
                raise MalformedError("a batch that it goes on from is not here, or its run is too long")
            self._decode(*self.known[key], depth)
        model = self.learnt[key]
        self._keep(key, model)
        return model

    def _keep(self, key: ParcelKey, model: RowModel) -> None:
        self.learnt[key] = model
        self.learnt.move_to_end(key)
        if len(self.learnt) > _LEARNT_MAX:
            self.learnt.popitem(last=False)


def _log_damaged(record: BatchRecord, error: Exception) -> None:
    _log.error("batch.damaged", truck=record.key.truck, sequence=record.key.sequence, error=str(error))
