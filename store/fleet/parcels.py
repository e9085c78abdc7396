"""Evidence as it lies in the store: parcels, the state of their epochs, and what could not be taken."""

from __future__ import annotations

from sqlalchemy import case, delete, func, insert, select

from protocol.numbers import ParcelKind, Precedence
from store.fleet.database import FleetPart, Transaction
from store.fleet.evidence import EpochState, ParcelKey, ParcelRecord, QuarantinedRecord, QueuedRecord
from store.fleet.limits import PAGE_MAX, QUARANTINED_KEPT
from store.fleet.openepochs import state_of
from store.fleet.tables import batches, epochs, events, parcels, quarantined, receipts


class Parcels(FleetPart):
    """Parcels by their keys."""

    async def parcel(self, key: ParcelKey) -> ParcelRecord | None:
        """Return a parcel as it came."""
        query = select(parcels).where(
            parcels.c.truck == key.truck, parcels.c.epoch == key.epoch, parcels.c.sequence == key.sequence
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        return ParcelRecord(
            key=key,
            kind=ParcelKind(row.kind),
            precedence=Precedence(row.precedence),
            link=row.link,
            received_ms=row.received_ms,
            sealed=row.sealed,
        )

    async def epoch_state(self, truck: str, epoch: int | None = None) -> EpochState | None:
        """Return what is committed of an epoch, by default of the one that started last."""
        if epoch is None:
            newest = await self.epochs_of(truck, limit=1)
            return newest[0] if newest else None
        async with self._database.read() as connection:
            query = select(epochs).where(epochs.c.truck == truck, epochs.c.epoch == epoch)
            row = (await connection.execute(query)).first()
        return None if row is None else state_of(row)

    async def epochs_of(self, truck: str, limit: int = 8) -> list[EpochState]:
        """Return a truck's epochs, the one that started last first. Two that are both alive betray a clone."""
        query = (
            select(epochs)
            .where(epochs.c.truck == truck)
            .order_by(epochs.c.ordinal.desc(), epochs.c.started_ms.desc())
            .limit(min(limit, PAGE_MAX))
        )
        async with self._database.read() as connection:
            return [state_of(row) for row in await connection.execute(query)]

    async def newest_parcel(self, truck: str, epoch: int) -> tuple[int, bytes] | None:
        """Return the highest sequence of an epoch whose parcel is here, and its sealed bytes."""
        query = (
            select(parcels.c.sequence, parcels.c.sealed)
            .where(parcels.c.truck == truck, parcels.c.epoch == epoch)
            .order_by(parcels.c.sequence.desc())
            .limit(1)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else (row.sequence, row.sealed)

    async def queued(
        self, truck: str, since_ms: int, until_ms: int, *, after: int | None = None, limit: int = 100
    ) -> list[QueuedRecord]:
        """Return the parcels that a truck had to send in [since_ms, until_ms), by arrival; `after` is an id.

        When it had one is told by what is inside; where that is not known, by its arrival.
        """
        inside = func.coalesce(batches.c.last_ms, events.c.time_ms, receipts.c.time_ms, parcels.c.received_ms)
        # A receipt or an event of an unknown clock has a time near 0, and no clock is ahead of the gateway's for long.
        at_ms = case((inside.between(since_ms, parcels.c.received_ms), inside), else_=parcels.c.received_ms)
        query = (
            select(
                parcels.c.id,
                parcels.c.precedence,
                func.length(parcels.c.sealed).label("bytes"),
                at_ms.label("at_ms"),
                parcels.c.received_ms,
            )
            .select_from(
                parcels.outerjoin(batches, batches.c.id == parcels.c.id)
                .outerjoin(events, events.c.id == parcels.c.id)
                .outerjoin(receipts, receipts.c.id == parcels.c.id)
            )
            .where(parcels.c.truck == truck, parcels.c.received_ms >= since_ms, parcels.c.received_ms < until_ms)
            .order_by(parcels.c.id)
            .limit(min(limit, PAGE_MAX))
        )
        if after is not None:
            query = query.where(parcels.c.id > after)
        async with self._database.read() as connection:
            return [
                QueuedRecord(row.id, Precedence(row.precedence), row.bytes, row.at_ms, row.received_ms)
                for row in await connection.execute(query)
            ]

    async def quarantine(
        self, truck: str, epoch: int | None, sequence: int | None, sealed: bytes, reason: str, now_ms: int
    ) -> None:
        """Keep bytes that could not be taken, so that a person can look; of each truck only the newest are kept."""
        async with self._database.write() as transaction:
            await put_aside(transaction, truck, epoch, sequence, sealed, reason, now_ms)

    async def quarantined(
        self, truck: str | None = None, after: int | None = None, limit: int = 100
    ) -> list[QuarantinedRecord]:
        """Return what was put aside, newest first; `after` is the id of the last one of the page before."""
        query = select(quarantined).order_by(quarantined.c.id.desc()).limit(min(limit, PAGE_MAX))
        if truck is not None:
            query = query.where(quarantined.c.truck == truck)
        if after is not None:
            query = query.where(quarantined.c.id < after)
        async with self._database.read() as connection:
            return [QuarantinedRecord(**row) for row in (await connection.execute(query)).mappings()]


async def put_aside(
    transaction: Transaction,
    truck: str,
    epoch: int | None,
    sequence: int | None,
    sealed: bytes,
    reason: str,
    now_ms: int,
) -> None:
    """Put bytes into quarantine within a transaction."""
    values = {
        "truck": truck,
        "epoch": epoch,
        "sequence": sequence,
        "sealed": sealed,
        "reason": reason,
        "received_ms": now_ms,
    }
    await transaction.execute(insert(quarantined).values(values))
    newest = select(quarantined.c.id).where(quarantined.c.truck == truck).order_by(quarantined.c.id.desc())
    kept = newest.limit(QUARANTINED_KEPT).subquery()
    await transaction.execute(
        delete(quarantined).where(quarantined.c.truck == truck, quarantined.c.id.not_in(select(kept.c.id)))
    )
    transaction.note("quarantine", truck=truck, subject=reason[:64], at_ms=now_ms)
