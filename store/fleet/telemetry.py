"""What trucks sent, read back: batches as signed evidence with their schema, events, receipts, and what is missing.

Batches are stored as they came and decoded on query by the gateway; no sample lies in a table.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.numbers import DocumentKind, Outcome, Precedence
from protocol.summary import FOLDED
from store.fleet.database import FleetPart
from store.fleet.evidence import (
    HOUR_MS,
    BatchRecord,
    BatchState,
    Coverage,
    EpochCoverage,
    EventRecord,
    KnownChannel,
    ParcelKey,
    ReceiptRecord,
    RepairedBoot,
)
from store.fleet.limits import PAGE_MAX
from store.fleet.sequences import SequenceSet, ranges_from_text
from store.fleet.tables import batches, epochs, events, parcels, receipts, rollups, tombstones

_EVIDENCE: Final = (parcels.c.epoch, parcels.c.sequence, parcels.c.precedence, parcels.c.received_ms)
_WITH_TIME: Final = (int(BatchState.READY), int(BatchState.ROLLED))


def select_batches() -> Select[Any]:
    """Return the query that `batch_record` reads rows of."""
    return select(batches, *_EVIDENCE, parcels.c.sealed).join(parcels, parcels.c.id == batches.c.id)


def batch_record(row: Row[Any]) -> BatchRecord:
    """Return a row of `select_batches` as a record."""
    return BatchRecord(
        id=row.id,
        key=ParcelKey(row.truck, row.epoch, row.sequence),
        state=BatchState(row.state),
        schema_number=row.schema_number,
        schema_digest=row.schema_digest,
        boot=row.boot,
        offset_ms=row.offset_ms,
        first_ms=row.first_ms,
        last_ms=row.last_ms,
        rows=row.rows,
        received_ms=row.received_ms,
        sealed=row.sealed,
    )


def _overlap(truck: str, since_ms: int, until_ms: int) -> ColumnElement[bool]:
    return and_(
        batches.c.truck == truck,
        batches.c.state.in_(_WITH_TIME),
        batches.c.first_ms < until_ms,
        batches.c.last_ms >= since_ms,
    )


class Telemetry(FleetPart):
    """Batches, events and receipts."""

    async def batches(
        self, truck: str, since_ms: int, until_ms: int, after: tuple[int, int] | None = None, limit: int = 100
    ) -> list[BatchRecord]:
        """Return the batches with a row in [since_ms, until_ms), by their first row; `after` is a record's `cursor`."""
        query = (
            select_batches()
            .where(_overlap(truck, since_ms, until_ms))
            .order_by(batches.c.first_ms, batches.c.id)
            .limit(min(limit, PAGE_MAX))
        )
        if after is not None:
            first_ms, last_id = after
            # Said twice, because an index serves the plain bound and not the choice below.
            query = query.where(batches.c.first_ms >= first_ms)
            query = query.where(
                or_(batches.c.first_ms > first_ms, and_(batches.c.first_ms == first_ms, batches.c.id > last_id))
            )
        async with self._database.read() as connection:
            return [batch_record(row) for row in await connection.execute(query)]

    async def batch(self, key: ParcelKey) -> BatchRecord | None:
        """Return one batch, whatever became of it."""
        query = select_batches().where(
            parcels.c.truck == key.truck, parcels.c.epoch == key.epoch, parcels.c.sequence == key.sequence
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else batch_record(row)

    async def extent(self, truck: str, since_ms: int, until_ms: int) -> tuple[int, int] | None:
        """Return the times of the first and the last row of the batches that overlap [since_ms, until_ms)."""
        query = select(func.min(batches.c.first_ms).label("first_ms"), func.max(batches.c.last_ms).label("last_ms"))
        async with self._database.read() as connection:
            found = (await connection.execute(query.where(_overlap(truck, since_ms, until_ms)))).one()
        return None if found.first_ms is None else (found.first_ms, found.last_ms)

    async def schemas_between(self, truck: str, since_ms: int, until_ms: int) -> list[bytes]:
        """Return the digests of the schemas of the batches that overlap [since_ms, until_ms)."""
        query = select(batches.c.schema_digest).where(_overlap(truck, since_ms, until_ms)).distinct()
        async with self._database.read() as connection:
            return sorted((await connection.execute(query)).scalars())

    async def events(
        self,
        truck: str | None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        names: Collection[str] | None = None,
        after: int | None = None,
        limit: int = 100,
        *,
        newest_first: bool = False,
    ) -> list[EventRecord]:
        """Return events by arrival, of one truck or all; `after` is the id of the last one of the page before.

        Times bound those of known clocks.
        """
        query = select(events, *_EVIDENCE).join(parcels, parcels.c.id == events.c.id)
        query = query.order_by(events.c.id.desc() if newest_first else events.c.id).limit(min(limit, PAGE_MAX))
        if truck is not None:
            query = query.where(events.c.truck == truck)
        if since_ms is not None:
            query = query.where(events.c.offset_ms.is_not(None), events.c.time_ms >= since_ms)
        if until_ms is not None:
            query = query.where(events.c.offset_ms.is_not(None), events.c.time_ms < until_ms)
        if names is not None:
            query = query.where(events.c.name.in_(list(names)))
        if after is not None:
            query = query.where(events.c.id < after if newest_first else events.c.id > after)
        async with self._database.read() as connection:
            return [_event_record(row) for row in await connection.execute(query)]

    async def receipts(self, truck: str, after: int | None = None, limit: int = 100) -> list[ReceiptRecord]:
        """Return a truck's receipts by arrival; `after` is an id."""
        query = select(receipts, *_EVIDENCE).join(parcels, parcels.c.id == receipts.c.id)
        query = query.where(receipts.c.truck == truck).order_by(receipts.c.id).limit(min(limit, PAGE_MAX))
        if after is not None:
            query = query.where(receipts.c.id > after)
        async with self._database.read() as connection:
            return [_receipt_record(row) for row in await connection.execute(query)]

    async def channels_known(self, truck: str) -> list[KnownChannel]:
        """Return the channels that a truck has rollups of, by name and unit."""
        first_ms, period_s = func.min(rollups.c.start_ms), func.min(rollups.c.period_s)
        query = (
            select(rollups.c.channel, rollups.c.unit, first_ms.label("first_ms"), period_s.label("period_s"))
            .where(rollups.c.truck == truck, rollups.c.step_ms == HOUR_MS)
            .group_by(rollups.c.channel, rollups.c.unit)
            .order_by(rollups.c.channel, rollups.c.unit)
        )
        async with self._database.read() as connection:
            return [KnownChannel(**row) for row in (await connection.execute(query)).mappings()]

    async def coverage(self, truck: str, since_ms: int, until_ms: int) -> Coverage:
        """Return how much of a truck's telemetry of [since_ms, until_ms) is here, and the gaps of every epoch."""
        mine = batches.c.truck == truck
        overlap = _overlap(truck, since_ms, until_ms)
        found = select(
            func.count().label("batches"),
            func.coalesce(func.sum(batches.c.rows), 0).label("rows"),
            func.min(batches.c.first_ms).label("first_ms"),
            func.max(batches.c.last_ms).label("last_ms"),
        ).where(overlap)
        repaired = (
            select(
                batches.c.boot,
                batches.c.offset_ms,
                func.count().label("batches"),
                func.coalesce(func.sum(batches.c.rows), 0).label("rows"),
                func.min(batches.c.first_ms).label("first_ms"),
                func.max(batches.c.last_ms).label("last_ms"),
            )
            .where(overlap, batches.c.boot.is_not(None))
            .group_by(batches.c.boot, batches.c.offset_ms)
            .order_by(func.min(batches.c.first_ms))
            .limit(PAGE_MAX)
        )
        others = select(batches.c.state, func.count().label("number")).where(mine).group_by(batches.c.state)
        async with self._database.read() as connection:
            here = (await connection.execute(found)).one()
            states = {row.state: row.number for row in await connection.execute(others)}
            boots = (await connection.execute(repaired)).all()
            return Coverage(
                truck=truck,
                batches=here.batches,
                rows=int(here.rows),
                first_ms=here.first_ms,
                last_ms=here.last_ms,
                parked=states.get(BatchState.PARKED, 0),
                timeless=states.get(BatchState.TIMELESS, 0),
                rejected=states.get(BatchState.REJECTED, 0),
                to_roll_up=states.get(BatchState.READY, 0),
                repaired=tuple(
                    RepairedBoot(row.boot, row.offset_ms, row.batches, int(row.rows), row.first_ms, row.last_ms)
                    for row in boots
                ),
                epochs=await _epoch_coverage(connection, truck),
            )


async def _epoch_coverage(connection: AsyncConnection, truck: str) -> tuple[EpochCoverage, ...]:
    dropped: dict[int, list[tuple[int, int, str]]] = {}
    rows: dict[int, int] = {}
    query = select(tombstones).where(tombstones.c.truck == truck).order_by(tombstones.c.id)
    for row in await connection.execute(query):
        ranges = ranges_from_text(row.ranges)
        dropped.setdefault(row.of_epoch, []).extend((first, last, row.reason) for first, last in ranges)
        # Of what was folded a summary tells: no row of it is lost.
        rows[row.of_epoch] = rows.get(row.of_epoch, 0) + (0 if row.reason == FOLDED else row.rows)
    found = []
    mine = select(epochs).where(epochs.c.truck == truck).order_by(epochs.c.ordinal, epochs.c.started_ms)
    for row in await connection.execute(mine):
        sequences = SequenceSet(row.cumulative, ranges_from_text(row.ranges))
        found.append(
            EpochCoverage(
                epoch=row.epoch,
                started_ms=row.started_ms,
                last_ms=row.last_ms,
                highest=sequences.highest,
                missing=sequences.gaps,
                dropped=tuple(sorted(dropped.get(row.epoch, []))),
                dropped_rows=rows.get(row.epoch, 0),
            )
        )
    return tuple(found)


def _event_record(row: Row[Any]) -> EventRecord:
    return EventRecord(
        id=row.id,
        key=ParcelKey(row.truck, row.epoch, row.sequence),
        name=row.name,
        time_ms=row.time_ms,
        boot=row.boot,
        offset_ms=row.offset_ms,
        precedence=Precedence(row.precedence),
        values_json=row.values_json,
        received_ms=row.received_ms,
    )


def _receipt_record(row: Row[Any]) -> ReceiptRecord:
    return ReceiptRecord(
        id=row.id,
        key=ParcelKey(row.truck, row.epoch, row.sequence),
        document=DocumentKind(row.document),
        digest=row.digest,
        outcome=Outcome(row.outcome),
        name=row.name,
        version=row.version,
        reason=row.reason,
        time_ms=row.time_ms,
        received_ms=row.received_ms,
    )
