"""Ingest: verified parcels of many trucks into the database in one transaction, each exactly once.

One call is one group commit with the same few statements whatever the number of parcels. What the acknowledgement may
say is read off the result, which is returned only after COMMIT. Parcels of one truck may arrive at two gateway
processes at once: the truck's epoch row is locked while it is decided what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import DBAPIError

from store.fleet.database import FleetPart, Transaction, may_start_over
from store.fleet.evidence import (
    BatchPart,
    EventPart,
    IngestItem,
    IngestResult,
    IngestStatus,
    ReceiptPart,
    SchemaPart,
    TombstonePart,
)
from store.fleet.indexing import (
    index_batches,
    index_events,
    index_parcels,
    index_receipts,
    index_schemas,
    index_tombstones,
)
from store.fleet.limits import TRANSACTION_ATTEMPTS_MAX
from store.fleet.openepochs import OpenEpochs
from store.fleet.tables import parcels, trucks

_HEARD = (
    update(trucks)
    .where(trucks.c.name == bindparam("truck"))
    .values(last_heard_ms=bindparam("heard_ms"), last_link=bindparam("link"))
)
_NO_STATE = frozenset({IngestStatus.UNKNOWN_TRUCK, IngestStatus.REVOKED_TRUCK})


class Ingest(FleetPart):
    """The way in for evidence."""

    async def ingest(self, items: Sequence[IngestItem]) -> list[IngestResult]:
        """Store parcels and return what became of each, in their order, once all of it is committed."""
        if not items:
            return []
        for attempt in count(1):
            try:
                async with self._database.write() as transaction:
                    return await self._ingest(transaction, items)
            except DBAPIError as error:
                if attempt == TRANSACTION_ATTEMPTS_MAX or not may_start_over(error):
                    raise
        raise AssertionError("unreachable")

    async def _ingest(self, transaction: Transaction, items: Sequence[IngestItem]) -> list[IngestResult]:
        refused = await _refused_trucks(transaction, items)
        taken = [item for item in items if item.truck not in refused]
        epochs = await OpenEpochs.open(self._database, transaction, taken)
        statuses = await _decide(transaction, items, refused, epochs)
        new = [item for item, status in zip(items, statuses, strict=True) if status is IngestStatus.STORED]
        conflicts = await self._store(transaction, new, epochs) if new else set()
        await epochs.save(transaction)
        states = epochs.states()
        results = []
        for index, (item, status) in enumerate(zip(items, statuses, strict=True)):
            final = IngestStatus.CONFLICT if id(item) in conflicts and status is IngestStatus.STORED else status
            state = None if status in _NO_STATE else states[(item.truck, item.epoch)]
            results.append(IngestResult(items[index], final, state))
        return results

    async def _store(self, transaction: Transaction, new: Sequence[IngestItem], epochs: OpenEpochs) -> set[int]:
        """Write new parcels and their indices; return the identities of items whose schema number was taken."""
        await index_parcels(transaction, new)
        conflicts = await index_schemas(self._database, transaction, _with(new, SchemaPart))
        await index_batches(transaction, _with(new, BatchPart))
        await index_events(transaction, _with(new, EventPart))
        await index_receipts(self._database, transaction, _with(new, ReceiptPart), epochs.ordinals())
        await index_tombstones(transaction, _with(new, TombstonePart))
        heard = {item.truck: {"truck": item.truck, "heard_ms": item.received_ms, "link": item.link} for item in new}
        await transaction.execute(_HEARD, [heard[name] for name in sorted(heard)])
        for item in new:
            kind = item.kind.name.lower()
            transaction.note(kind, truck=item.truck, subject=f"{item.epoch}/{item.sequence}", at_ms=item.received_ms)
        return conflicts


def _with(items: Iterable[IngestItem], part: type) -> list[IngestItem]:
    return [item for item in items if isinstance(item.part, part)]


async def _refused_trucks(transaction: Transaction, items: Iterable[IngestItem]) -> dict[str, IngestStatus]:
    """Return the trucks that may not put anything, checked in the transaction: a revocation counts at once."""
    names = {item.truck for item in items}
    query = select(trucks.c.name, trucks.c.revoked_ms).where(trucks.c.name.in_(names))
    found = {row.name: row.revoked_ms for row in await transaction.execute(query)}
    refused = {name: IngestStatus.UNKNOWN_TRUCK for name in names if name not in found}
    return refused | {name: IngestStatus.REVOKED_TRUCK for name, revoked in found.items() if revoked is not None}


async def _decide(
    transaction: Transaction, items: Sequence[IngestItem], refused: dict[str, IngestStatus], epochs: OpenEpochs
) -> list[IngestStatus]:
    """Say of each item in turn whether it is new, and add it to its epoch if it is."""
    late = await _late_after_tombstone(transaction, items, refused, epochs)
    statuses = []
    for item in items:
        status = refused.get(item.truck)
        if status is None:
            status = epochs.take(item)
            key = (item.truck, item.epoch, item.sequence)
            if status is IngestStatus.DUPLICATE and key in late:
                status = IngestStatus.STORED
            late.discard(key)
        if status is IngestStatus.STORED and isinstance(item.part, TombstonePart):
            epochs.bury(item.truck, item.part)
        statuses.append(status)
    return statuses


async def _late_after_tombstone(
    transaction: Transaction, items: Sequence[IngestItem], refused: dict[str, IngestStatus], epochs: OpenEpochs
) -> set[tuple[str, int, int]]:
    """Return the parcels that are not stored yet although a tombstone may name them: some come after all, on a stick.

    Only epochs with tombstones are looked up, so a common duplicate costs nothing.
    """
    asked = [item for item in items if item.truck not in refused and epochs.has_tombstones(item)]
    if not asked:
        return set()
    query = select(parcels.c.truck, parcels.c.epoch, parcels.c.sequence).where(
        parcels.c.truck.in_({item.truck for item in asked}),
        parcels.c.epoch.in_({item.epoch for item in asked}),
        parcels.c.sequence.in_({item.sequence for item in asked}),
    )
    held = {(row.truck, row.epoch, row.sequence) for row in await transaction.execute(query)}
    return {(item.truck, item.epoch, item.sequence) for item in asked} - held
