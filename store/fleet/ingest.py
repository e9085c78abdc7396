"""Ingest: verified parcels of many trucks into the database in one transaction, each exactly once.

One call is one group commit with the same few statements whatever the number of parcels. What the acknowledgement may
say is read off the result, which is returned only after COMMIT. Parcels of one truck may arrive at two gateway
processes at once: the truck's epoch row is locked while it is decided what is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import DBAPIError

from protocol.numbers import SIGNATURE_BYTES
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
    Numbered,
    index_batches,
    index_events,
    index_parcels,
    index_receipts,
    index_schemas,
    index_tombstones,
)
from store.fleet.limits import TRANSACTION_ATTEMPTS_MAX
from store.fleet.manyrows import ManyRows
from store.fleet.openepochs import OpenEpochs
from store.fleet.tables import parcels, trucks

_HEARD = ManyRows(
    update(trucks)
    .where(trucks.c.name == bindparam("truck"))
    .values(last_heard_ms=bindparam("heard_ms"), last_link=bindparam("link")),
    ("truck", "heard_ms", "link"),
)
_NEW = frozenset({IngestStatus.STORED, IngestStatus.CONFLICT})
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
                    results = await transaction.run(self._ingest, items)
                    for result in results:
                        if result.status in _NEW:
                            _note(transaction, result.item)
                return results
            except DBAPIError as error:
                if attempt == TRANSACTION_ATTEMPTS_MAX or not may_start_over(error):
                    raise
        raise AssertionError("unreachable")

    def _ingest(self, connection: Connection, items: Sequence[IngestItem]) -> list[IngestResult]:
        refused = _refused_trucks(connection, items)
        taken = [item for item in items if item.truck not in refused]
        epochs = OpenEpochs.open(self._database, connection, taken)
        statuses = _decide(connection, items, refused, epochs)
        new = [item for item, status in zip(items, statuses, strict=True) if status is IngestStatus.STORED]
        conflicts = self._store(connection, new, epochs) if new else set()
        epochs.save(connection)
        states = epochs.states()
        results = []
        for index, (item, status) in enumerate(zip(items, statuses, strict=True)):
            final = IngestStatus.CONFLICT if id(item) in conflicts and status is IngestStatus.STORED else status
            state = None if status in _NO_STATE else states[(item.truck, item.epoch)]
            results.append(IngestResult(items[index], final, state))
        return results

    def _store(self, connection: Connection, items: Sequence[IngestItem], epochs: OpenEpochs) -> set[int]:
        """Write new parcels and their indices; return the identities of items whose schema number was taken."""
        new = index_parcels(connection, items)
        conflicts = index_schemas(self._database, connection, _with(new, SchemaPart))
        index_batches(connection, _with(new, BatchPart))
        index_events(connection, _with(new, EventPart))
        index_receipts(self._database, connection, _with(new, ReceiptPart), epochs.ordinals())
        index_tombstones(connection, _with(new, TombstonePart))
        heard = {each.truck: {"truck": each.truck, "heard_ms": each.received_ms, "link": each.link} for each in items}
        _HEARD.run(connection, [heard[name] for name in sorted(heard)])
        return conflicts


def _note(transaction: Transaction, item: IngestItem) -> None:
    subject = f"{item.epoch}/{item.sequence}"
    transaction.note(item.kind.name.lower(), truck=item.truck, subject=subject, at_ms=item.received_ms)


def _with(new: Sequence[Numbered], part: type) -> list[Numbered]:
    return [(number, item) for number, item in new if isinstance(item.part, part)]


def _refused_trucks(connection: Connection, items: Iterable[IngestItem]) -> dict[str, IngestStatus]:
    """Return the trucks that may not put anything, checked in the transaction: a revocation counts at once."""
    names = {item.truck for item in items}
    query = select(trucks.c.name, trucks.c.revoked_ms).where(trucks.c.name.in_(names))
    found = {row.name: row.revoked_ms for row in connection.execute(query)}
    refused = {name: IngestStatus.UNKNOWN_TRUCK for name in names if name not in found}
    return refused | {name: IngestStatus.REVOKED_TRUCK for name, revoked in found.items() if revoked is not None}


def _decide(
    connection: Connection, items: Sequence[IngestItem], refused: dict[str, IngestStatus], epochs: OpenEpochs
) -> list[IngestStatus]:
    """Say of each item in turn whether it is new, and add it to its epoch if it is."""
    late = _late_after_tombstone(connection, items, refused, epochs)
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
    return _tell_taken(connection, items, statuses)


def _tell_taken(
    connection: Connection, items: Sequence[IngestItem], statuses: list[IngestStatus]
) -> list[IngestStatus]:
    """Tell those that come again from others under their numbers; a signature made anew makes no other parcel."""
    again = [item for item, status in zip(items, statuses, strict=True) if status is IngestStatus.DUPLICATE]
    if not again:
        return statuses
    query = select(parcels.c.truck, parcels.c.epoch, parcels.c.sequence, parcels.c.sealed).where(
        parcels.c.truck.in_({item.truck for item in again}),
        parcels.c.epoch.in_({item.epoch for item in again}),
        parcels.c.sequence.in_({item.sequence for item in again}),
    )
    held = {(row.truck, row.epoch, row.sequence): row.sealed[:-SIGNATURE_BYTES] for row in connection.execute(query)}
    told = []
    for item, status in zip(items, statuses, strict=True):
        core = item.sealed[:-SIGNATURE_BYTES]
        is_other = held.get((item.truck, item.epoch, item.sequence), core) != core
        told.append(IngestStatus.TAKEN if status is IngestStatus.DUPLICATE and is_other else status)
    return told


def _late_after_tombstone(
    connection: Connection, items: Sequence[IngestItem], refused: dict[str, IngestStatus], epochs: OpenEpochs
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
    held = {(row.truck, row.epoch, row.sequence) for row in connection.execute(query)}
    return {(item.truck, item.epoch, item.sequence) for item in asked} - held
