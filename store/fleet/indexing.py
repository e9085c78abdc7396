"""The rows that new parcels become: the evidence itself, and one index row by what is inside.

Each function takes the items of its kind and writes them with one statement. The evidence comes first: the index rows
refer to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, insert, or_, select

from protocol.numbers import DocumentKind
from store.fleet.database import Database, Transaction
from store.fleet.evidence import (
    BatchPart,
    BatchState,
    EventPart,
    IngestItem,
    ReceiptPart,
    SchemaPart,
    TombstonePart,
)
from store.fleet.rowhash import parcel_hash
from store.fleet.sequences import ranges_to_text
from store.fleet.tables import (
    batches,
    boots,
    events,
    holdings,
    parcels,
    receipts,
    schemas,
    tombstones,
    truck_schemas,
)

_INSERT_PARCELS = insert(parcels)
_INSERT_BATCHES = insert(batches)
_INSERT_EVENTS = insert(events)
_INSERT_RECEIPTS = insert(receipts)
_INSERT_TOMBSTONES = insert(tombstones)
Offsets = Mapping[tuple[str, int], int]


def _key(item: IngestItem) -> dict[str, Any]:
    return {"truck": item.truck, "epoch": item.epoch, "sequence": item.sequence}


async def index_parcels(transaction: Transaction, items: Sequence[IngestItem]) -> None:
    """Write the evidence."""
    rows = []
    for item in items:
        kind, precedence = int(item.kind), int(item.precedence)
        row_hash = parcel_hash(
            item.truck, item.epoch, item.sequence, kind, precedence, item.received_ms, item.link, item.sealed
        )
        rows.append(
            {
                "truck": item.truck,
                "epoch": item.epoch,
                "sequence": item.sequence,
                "kind": kind,
                "precedence": precedence,
                "received_ms": item.received_ms,
                "link": item.link,
                "sealed": item.sealed,
                "row_hash": row_hash,
            }
        )
    await transaction.execute(_INSERT_PARCELS, rows)


async def index_batches(transaction: Transaction, items: Sequence[IngestItem]) -> None:
    """Write batches: parked without a schema, timeless without a clock, else ready to be rolled up."""
    if not items:
        return
    parts = [(item, item.part) for item in items if isinstance(item.part, BatchPart)]
    offsets = await _offsets(transaction, [(item.truck, part.boot) for item, part in parts])
    rows = []
    for item, part in parts:
        offset_ms = 0 if part.boot is None else offsets.get((item.truck, part.boot))
        rows.append(
            {
                "truck": item.truck,
                "epoch": item.epoch,
                "sequence": item.sequence,
                "state": int(state_of_batch(part.schema_digest, offset_ms)),
                "schema_number": part.schema_number,
                "schema_digest": part.schema_digest,
                "boot": part.boot,
                "offset_ms": offset_ms,
                "first_ms": _shifted(part.first_ms, offset_ms),
                "last_ms": _shifted(part.last_ms, offset_ms),
                "rows": part.rows,
            }
        )
    await transaction.execute(_INSERT_BATCHES, rows)


async def index_events(transaction: Transaction, items: Sequence[IngestItem]) -> None:
    """Write events."""
    if not items:
        return
    parts = [(item, item.part) for item in items if isinstance(item.part, EventPart)]
    offsets = await _offsets(transaction, [(item.truck, part.boot) for item, part in parts])
    rows = []
    for item, part in parts:
        offset_ms = 0 if part.boot is None else offsets.get((item.truck, part.boot))
        rows.append(
            _key(item)
            | {
                "name": part.name,
                "time_ms": _shifted(part.time_ms, offset_ms),
                "boot": part.boot,
                "offset_ms": offset_ms,
                "precedence": int(item.precedence),
                "values_json": part.values_json,
                "received_ms": item.received_ms,
            }
        )
    await transaction.execute(_INSERT_EVENTS, rows)


async def index_receipts(
    database: Database, transaction: Transaction, items: Sequence[IngestItem], ordinals: Mapping[tuple[str, int], int]
) -> None:
    """Write receipts, and what they say into holdings unless a newer receipt spoke: order is the truck's, not ours."""
    if not items:
        return
    rows, held = [], []
    for item in items:
        part = item.part
        assert isinstance(part, ReceiptPart)
        row = {
            "document": int(part.document),
            "digest": part.digest,
            "outcome": int(part.outcome),
            "name": part.name,
            "version": part.version,
            "reason": part.reason,
            "time_ms": part.time_ms,
            "received_ms": item.received_ms,
        }
        rows.append(_key(item) | row)
        # A truck has one desired state, whatever its receipt calls it.
        name = "" if part.document is DocumentKind.DESIRED else part.name
        place = {"epoch_ordinal": ordinals[(item.truck, item.epoch)], "sequence": item.sequence}
        held.append({"truck": item.truck} | row | {"name": name} | place)
    await transaction.execute(_INSERT_RECEIPTS, rows)
    statement = database.insert(holdings)
    said = statement.excluded
    newer = or_(
        said.epoch_ordinal > holdings.c.epoch_ordinal,
        and_(said.epoch_ordinal == holdings.c.epoch_ordinal, said.sequence > holdings.c.sequence),
    )
    columns = ("digest", "outcome", "version", "reason", "time_ms", "received_ms", "epoch_ordinal", "sequence")
    await transaction.execute(
        statement.on_conflict_do_update(
            index_elements=["truck", "document", "name"], set_={name: said[name] for name in columns}, where=newer
        ),
        sorted(held, key=lambda row: (row["truck"], row["document"], row["name"])),
    )


async def index_schemas(database: Database, transaction: Transaction, items: Sequence[IngestItem]) -> set[int]:
    """Register schemas; return the identities (`id`) of the items whose number means another schema already."""
    if not items:
        return set()
    parts = [(item, item.part) for item in items if isinstance(item.part, SchemaPart)]
    await transaction.execute(
        database.insert(schemas).on_conflict_do_nothing(),
        [
            {"digest": part.digest, "encoded": part.encoded}
            for _, part in sorted(parts, key=lambda each: each[1].digest)
        ],
    )
    rows = [
        {
            "truck": item.truck,
            "epoch": item.epoch,
            "number": part.number,
            "digest": part.digest,
            "registered_ms": item.received_ms,
        }
        for item, part in parts
    ]
    # The first to come stands: a number never changes its meaning.
    await transaction.execute(database.insert(truck_schemas).on_conflict_do_nothing(), rows)
    query = select(truck_schemas).where(
        truck_schemas.c.truck.in_({item.truck for item, _ in parts}),
        truck_schemas.c.number.in_({part.number for _, part in parts}),
    )
    kept = {(row.truck, row.epoch, row.number): row.digest for row in await transaction.execute(query)}
    return {id(item) for item, part in parts if kept[(item.truck, item.epoch, part.number)] != part.digest}


async def index_tombstones(transaction: Transaction, items: Sequence[IngestItem]) -> None:
    """Write tombstones."""
    rows = [
        _key(item)
        | {
            "of_epoch": part.epoch,
            "ranges": ranges_to_text(part.ranges),
            "reason": part.reason,
            "rows": part.rows,
        }
        for item in items
        if isinstance(part := item.part, TombstonePart)
    ]
    if rows:
        await transaction.execute(_INSERT_TOMBSTONES, rows)


def state_of_batch(schema_digest: bytes | None, offset_ms: int | None) -> BatchState:
    """Return the state of a batch that is not rolled up yet."""
    if schema_digest is None:
        return BatchState.PARKED
    return BatchState.TIMELESS if offset_ms is None else BatchState.READY


def _shifted(time_ms: int | None, offset_ms: int | None) -> int | None:
    return time_ms if time_ms is None or offset_ms is None else time_ms + offset_ms


async def _offsets(transaction: Transaction, wanted: Sequence[tuple[str, int | None]]) -> Offsets:
    """Return the known clock offsets of these boots; batches with wall time ask for none."""
    numbers = {boot for _, boot in wanted if boot is not None}
    if not numbers:
        return {}
    names = {truck for truck, boot in wanted if boot is not None}
    query = select(boots).where(boots.c.truck.in_(names), boots.c.boot.in_(numbers))
    return {(row.truck, row.boot): row.offset_ms for row in await transaction.execute(query)}
