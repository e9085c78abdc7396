"""Evidence read back in the order in which a truck numbered it, so that anybody may verify it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, not_, or_, select, tuple_

from protocol.numbers import ParcelKind
from store.fleet.database import FleetPart
from store.fleet.evidence import BatchState, ParcelKey
from store.fleet.limits import PAGE_MAX
from store.fleet.tables import batches, parcels

_WITH_TIME = batches.c.state.in_([int(BatchState.READY), int(BatchState.ROLLED)])


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """A parcel to be verified again; `state` and `schema_digest` are those of a batch."""

    key: ParcelKey
    kind: ParcelKind
    received_ms: int
    sealed: bytes
    state: BatchState | None
    schema_digest: bytes | None


class Proof(FleetPart):
    """Parcels as evidence."""

    async def evidence(
        self, truck: str, since_ms: int, until_ms: int, after: tuple[int, int] | None = None, limit: int = 100
    ) -> list[EvidenceRecord]:
        """Return a truck's parcels of [since_ms, until_ms) by epoch and sequence; `after` is such a pair.

        A batch is of the period if it has a row in it; what has no rows with times, if it was received in it.
        """
        has_rows = and_(batches.c.id.is_not(None), _WITH_TIME)
        of_rows = and_(has_rows, batches.c.first_ms < until_ms, batches.c.last_ms >= since_ms)
        of_arrival = and_(
            or_(batches.c.id.is_(None), not_(_WITH_TIME)),
            parcels.c.received_ms >= since_ms,
            parcels.c.received_ms < until_ms,
        )
        place = (parcels.c.epoch, parcels.c.sequence)
        query = (
            select(parcels, batches.c.state, batches.c.schema_digest)
            .outerjoin(batches, batches.c.id == parcels.c.id)
            .where(parcels.c.truck == truck, or_(of_rows, of_arrival))
            .order_by(*place)
            .limit(min(limit, PAGE_MAX))
        )
        if after is not None:
            query = query.where(tuple_(*place) > after)
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def evidence_of(self, key: ParcelKey) -> EvidenceRecord | None:
        """Return one parcel."""
        query = (
            select(parcels, batches.c.state, batches.c.schema_digest)
            .outerjoin(batches, batches.c.id == parcels.c.id)
            .where(parcels.c.truck == key.truck, parcels.c.epoch == key.epoch, parcels.c.sequence == key.sequence)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _record(row)


def _record(row: Row[Any]) -> EvidenceRecord:
    return EvidenceRecord(
        key=ParcelKey(row.truck, row.epoch, row.sequence),
        kind=ParcelKind(row.kind),
        received_ms=row.received_ms,
        sealed=row.sealed,
        state=None if row.state is None else BatchState(row.state),
        schema_digest=row.schema_digest,
    )
