"""The background task that keeps hourly and daily rollups: each stored batch is added once and only once.

A summary is added in place of the batches that it stands for; when one of them comes after all, nothing is added.

Where it is lies with each batch in the database and is committed with the sums, so a crash neither loses nor doubles
one, and several gateways may run this over one database: who comes second is told, and looks again.

Batches come in by their signature alone: here they are decoded for the first time. So this is where a batch gets its
exact times, and where one that does not decode is put aside for a person to look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from gateway.decoding import DecodedBatch, SchemaCache
from gateway.steps import roll_up
from store.attempts import Attempts
from store.fleet.errors import RolledUpError
from store.fleet.evidence import BatchRecord, BatchSpan, ParcelKey
from store.fleet.fleet import FleetStore

_BATCHES = 64
_PAUSE_S = 5.0
_FAULT_PAUSE_S = 30.0
_log = structlog.get_logger(__name__)


class RollupTask:
    """Adds what was stored since to the rollups."""

    def __init__(self, fleet: FleetStore, attempts: Attempts | None = None) -> None:
        self._fleet = fleet
        self._schemas = SchemaCache(fleet, attempts)

    async def run(self) -> None:
        """Roll up for ever; a database that is away for a while does not end it."""
        while True:
            try:
                await self.catch_up()
            except Exception as error:
                _log.error("rollups.failed", error=str(error))
                await asyncio.sleep(_FAULT_PAUSE_S)
            await asyncio.sleep(_PAUSE_S)

    async def catch_up(self) -> int:
        """Roll up all that waits; return how many batches that were."""
        done = 0
        while records := await self._fleet.pending_rollups(_BATCHES):
            done += await self._add(records)
        return done

    async def _add(self, records: Sequence[BatchRecord]) -> int:
        decoded = await self._schemas.decode(records)
        told = await self._fleet.told_in_summaries([record.key for record in records])
        counted, summarised = await self._to_count(decoded, told)
        rollups = await asyncio.to_thread(roll_up, [(record.key.truck, batch) for record, batch in counted])
        spans = [span for record, batch in decoded if (span := _span(record, batch)) is not None]
        try:
            # A batch that does not decode is marked, too, with nothing to add: it must not hold up those behind it.
            await self._fleet.add_rollups(
                [record.key for record in records], rollups, spans, told=told, summarised=summarised
            )
        except RolledUpError:
            _log.info("rollups.raced", batches=len(records))
            return 0
        sound = {record.id for record, _ in decoded}
        for record in records:
            if record.id not in sound:
                key = record.key
                await self._fleet.quarantine(
                    key.truck, key.epoch, key.sequence, record.sealed, "the batch does not decode", record.received_ms
                )
        return len(records)

    async def _to_count(
        self, decoded: Sequence[tuple[BatchRecord, DecodedBatch]], told: frozenset[ParcelKey]
    ) -> tuple[list[tuple[BatchRecord, DecodedBatch]], list[ParcelKey]]:
        """Return what is to be added, and for which batches summaries speak: each batch counts once, whoever told it.

        A summary leaves out the batches that were added before, as detail or by another summary.
        """
        claims = [key for record, batch in decoded for key in _stands_for(record, batch)]
        # Detail of this very round counts as detail.
        taken = await self._fleet.counted(claims) | {record.key for record, _ in decoded} if claims else frozenset()
        summarised: list[ParcelKey] = []
        counted = []
        for record, batch in decoded:
            if batch.summary is None:
                if record.key not in told:
                    counted.append((record, batch))
                continue
            left = []
            for key, each in zip(_stands_for(record, batch), batch.summary.batches, strict=True):
                if key not in taken:
                    taken |= {key}
                    summarised.append(key)
                    left.append(each)
            counted.append((record, replace(batch, summary=replace(batch.summary, batches=tuple(left)))))
        return counted, summarised


def _stands_for(record: BatchRecord, batch: DecodedBatch) -> list[ParcelKey]:
    if batch.summary is None:
        return []
    epoch = batch.summary.epoch if batch.summary.epoch is not None else record.key.epoch
    return [ParcelKey(record.key.truck, epoch, sequence) for sequence, _ in batch.summary.batches]


def _span(record: BatchRecord, batch: DecodedBatch) -> BatchSpan | None:
    """Return when the rows were, or None if that is what the record says."""
    times = [time_ms for time_ms, _ in batch.rows]
    if not times:
        return None
    span = BatchSpan(record.id, min(times), max(times))
    return None if (span.first_ms, span.last_ms) == (record.first_ms, record.last_ms) else span
