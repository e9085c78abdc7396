"""Schemas by the numbers that trucks gave them, and what waits: parked batches, and batches without a clock.

A number belongs to one epoch of one truck and never changes its meaning there; a truck that lost its database starts a
new epoch and may number anew. A batch of an unknown number is kept as it came and taken up when its schema arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, case, func, select, text, update

from store.fleet.database import FleetPart
from store.fleet.evidence import BatchRecord, BatchState, ParcelKey, SchemaRecord, UnparkedBatch
from store.fleet.limits import PAGE_MAX
from store.fleet.parcels import put_aside
from store.fleet.tables import batches, boots, epochs, events, parcels, schemas, truck_schemas
from store.fleet.telemetry import batch_record, select_batches

# The partial index of open batches is used only where the query repeats its condition to the letter.
OPEN = text("batches.state < 3")
_PARKED = batches.c.state == int(BatchState.PARKED)
_OFFSET = func.coalesce(batches.c.offset_ms, 0)
_UNPARK = (
    update(batches)
    .where(batches.c.id == bindparam("parcel_id"))
    .values(
        state=case((batches.c.offset_ms.is_(None), int(BatchState.TIMELESS)), else_=int(BatchState.READY)),
        schema_digest=bindparam("digest"),
        first_ms=bindparam("from_ms", type_=batches.c.first_ms.type) + _OFFSET,
        last_ms=bindparam("to_ms", type_=batches.c.last_ms.type) + _OFFSET,
        rows=bindparam("row_count"),
    )
)


def _registered() -> Select[Any]:
    return select(truck_schemas, schemas.c.encoded).join(schemas, schemas.c.digest == truck_schemas.c.digest)


def _record(row: Row[Any]) -> SchemaRecord:
    return SchemaRecord(row.truck, row.epoch, row.number, row.digest, row.encoded, row.registered_ms)


class Schemas(FleetPart):
    """Registered schemas and what waits for them."""

    async def schemas_of(self, truck: str, epoch: int | None = None) -> list[SchemaRecord]:
        """Return a truck's schemas of one epoch or of all, in the order of the epochs and by number."""
        query = _registered().where(truck_schemas.c.truck == truck)
        if epoch is not None:
            query = query.where(truck_schemas.c.epoch == epoch)
        of_epoch = and_(epochs.c.truck == truck_schemas.c.truck, epochs.c.epoch == truck_schemas.c.epoch)
        query = query.join(epochs, of_epoch).order_by(epochs.c.ordinal, truck_schemas.c.number)
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def schema(self, digest: bytes) -> bytes | None:
        """Return the encoding of a schema."""
        query = select(schemas.c.encoded).where(schemas.c.digest == digest)
        async with self._database.read() as connection:
            encoded: bytes | None = (await connection.execute(query)).scalar()
        return encoded

    async def schema_numbered(self, truck: str, epoch: int, number: int) -> SchemaRecord | None:
        """Return the schema that a number means in an epoch of a truck."""
        query = _registered().where(
            truck_schemas.c.truck == truck, truck_schemas.c.epoch == epoch, truck_schemas.c.number == number
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _record(row)

    async def parked_batches(
        self, truck: str, schema_number: int, epoch: int | None = None, *, after: int = 0, limit: int = 100
    ) -> list[BatchRecord]:
        """Return batches that wait for a schema, or for the batch they go on from, oldest first; `after` is an id."""
        query = select_batches().where(OPEN, _PARKED, batches.c.truck == truck, batches.c.id > after)
        query = query.where(batches.c.schema_number == schema_number)
        if epoch is not None:
            query = query.where(parcels.c.epoch == epoch)
        query = query.order_by(batches.c.id).limit(min(limit, PAGE_MAX))
        async with self._database.read() as connection:
            return [batch_record(row) for row in await connection.execute(query)]

    async def parked_numbers(self, truck: str) -> list[tuple[int, int]]:
        """Return the (epoch, number) of the schemas of batches of this truck that wait for it, or for their base."""
        query = select(parcels.c.epoch, batches.c.schema_number).join(parcels, parcels.c.id == batches.c.id)
        query = query.where(OPEN, _PARKED, batches.c.truck == truck)
        async with self._database.read() as connection:
            found = await connection.execute(query.distinct())
            return sorted((row.epoch, row.schema_number) for row in found)

    async def unpark(self, taken: Sequence[UnparkedBatch]) -> int:
        """Take parked batches up under their schema; return how many still were parked. Repeats do nothing."""
        async with self._database.write() as transaction:
            names = {batch.key.truck for batch in taken}
            parked = (
                select(batches.c.id, parcels.c.truck, parcels.c.epoch, parcels.c.sequence)
                .join(parcels, parcels.c.id == batches.c.id)
                .where(OPEN, _PARKED, batches.c.truck.in_(names))
                .where(parcels.c.sequence.in_({batch.key.sequence for batch in taken}))
                .order_by(batches.c.id)
                .with_for_update(of=batches)
            )
            locked = await transaction.execute(parked)
            waiting = {ParcelKey(row.truck, row.epoch, row.sequence): row.id for row in locked}
            rows = [
                {
                    "parcel_id": waiting[batch.key],
                    "digest": batch.schema_digest,
                    "from_ms": batch.first_ms,
                    "to_ms": batch.last_ms,
                    "row_count": batch.rows,
                }
                for batch in taken
                if batch.key in waiting
            ]
            if rows:
                await transaction.execute(_UNPARK, rows)
            for name in names:
                transaction.note("batch", truck=name, subject="unparked")
            return len(rows)

    async def reject_parked(self, key: ParcelKey, reason: str, now_ms: int) -> None:
        """Give a parked batch up whose signature or body does not hold; its bytes go to quarantine as well."""
        wanted = select(parcels.c.id, parcels.c.sealed).where(
            parcels.c.truck == key.truck, parcels.c.epoch == key.epoch, parcels.c.sequence == key.sequence
        )
        async with self._database.write() as transaction:
            evidence = (await transaction.execute(wanted)).first()
            if evidence is None:
                return
            rejected = await transaction.execute(
                update(batches).where(batches.c.id == evidence.id, _PARKED).values(state=int(BatchState.REJECTED))
            )
            if rejected.rowcount == 0:
                return
            sealed = evidence.sealed
            await put_aside(transaction, key.truck, key.epoch, key.sequence, sealed, reason, now_ms)

    async def set_clock(self, truck: str, boot: int, offset_ms: int) -> int:
        """Tell when a boot was: wall time is its monotonic time plus `offset_ms`; return how many rows that dates.

        The first offset of a boot stands, since rows may have been rolled up by it.
        """
        known = {"truck": truck, "boot": boot, "offset_ms": offset_ms}
        async with self._database.write() as transaction:
            await transaction.execute(self._database.insert(boots).on_conflict_do_nothing(), [known])
            query = select(boots.c.offset_ms).where(boots.c.truck == truck, boots.c.boot == boot)
            first: int = (await transaction.execute(query)).scalar_one()
            dated_batches = await transaction.execute(
                update(batches)
                .where(batches.c.truck == truck, batches.c.boot == boot, batches.c.offset_ms.is_(None), OPEN)
                .values(
                    offset_ms=first,
                    first_ms=batches.c.first_ms + first,
                    last_ms=batches.c.last_ms + first,
                    state=case(
                        (batches.c.state == int(BatchState.TIMELESS), int(BatchState.READY)), else_=batches.c.state
                    ),
                )
            )
            dated_events = await transaction.execute(
                update(events)
                .where(events.c.truck == truck, events.c.boot == boot, events.c.offset_ms.is_(None))
                .values(offset_ms=first, time_ms=events.c.time_ms + first)
            )
            dated = dated_batches.rowcount + dated_events.rowcount
            if dated:
                transaction.note("batch", truck=truck, subject="dated")
            return dated
