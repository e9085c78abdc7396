"""The rows that new parcels become: the evidence itself, and one index row by what is inside.

Each function takes the items of its kind, with the ids that their evidence got, and writes them with one statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, and_, func, insert, or_, select, text

from protocol.numbers import DocumentKind
from store.fleet.columns import signed64
from store.fleet.database import Database
from store.fleet.evidence import (
    BatchPart,
    BatchState,
    EventPart,
    IngestItem,
    ReceiptPart,
    SchemaPart,
    TombstonePart,
)
from store.fleet.manyrows import ManyRows
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

_INSERT_PARCELS = ManyRows(insert(parcels), parcels.c.keys())
_INSERT_BATCHES = ManyRows(insert(batches), batches.c.keys())
_INSERT_EVENTS = insert(events)
_INSERT_RECEIPTS = insert(receipts)
_INSERT_TOMBSTONES = insert(tombstones)
_LAST_ID = select(func.coalesce(func.max(parcels.c.id), 0))
_TAKE_IDS = text("SELECT nextval('parcels_id_seq') FROM generate_series(1, :wanted)")
Numbered = tuple[int, IngestItem]
Offsets = Mapping[tuple[str, int], int]


def index_parcels(connection: Connection, items: Sequence[IngestItem]) -> list[Numbered]:
    """Write the evidence; return each item with the id that it got."""
    rows = []
    numbered = list(zip(_take_ids(connection, len(items)), items, strict=True))
    for number, item in numbered:
        kind, precedence = int(item.kind), int(item.precedence)
        row_hash = parcel_hash(
            item.truck, item.epoch, item.sequence, kind, precedence, item.received_ms, item.link, item.sealed
        )
        rows.append(
            {
                "id": number,
                "truck": item.truck,
                "epoch": signed64(item.epoch),
                "sequence": item.sequence,
                "kind": kind,
                "precedence": precedence,
                "received_ms": item.received_ms,
                "link": item.link,
                "sealed": item.sealed,
                "row_hash": row_hash,
            }
        )
    _INSERT_PARCELS.run(connection, rows)
    return numbered


def index_batches(connection: Connection, new: Sequence[Numbered]) -> None:
    """Write batches: parked without a schema, timeless without a clock, else ready to be rolled up."""
    parts = [(number, item, item.part) for number, item in new if isinstance(item.part, BatchPart)]
    if not parts:
        return
    offsets = _offsets(connection, [(item.truck, part.boot) for _, item, part in parts])
    rows = []
    for number, item, part in parts:
        offset_ms = 0 if part.boot is None else offsets.get((item.truck, part.boot))
        rows.append(
            {
                "id": number,
                "truck": item.truck,
                "state": int(_state(part.schema_digest, offset_ms)),
                "schema_number": part.schema_number,
                "schema_digest": part.schema_digest,
                "boot": part.boot,
                "offset_ms": offset_ms,
                "first_ms": None if part.first_ms is None else part.first_ms + (offset_ms or 0),
                "last_ms": None if part.last_ms is None else part.last_ms + (offset_ms or 0),
                "rows": part.rows,
            }
        )
    _INSERT_BATCHES.run(connection, rows)


def index_events(connection: Connection, new: Sequence[Numbered]) -> None:
    """Write events."""
    parts = [(number, item, item.part) for number, item in new if isinstance(item.part, EventPart)]
    if not parts:
        return
    offsets = _offsets(connection, [(item.truck, part.boot) for _, item, part in parts])
    rows = []
    for number, item, part in parts:
        offset_ms = 0 if part.boot is None else offsets.get((item.truck, part.boot))
        rows.append(
            {
                "id": number,
                "truck": item.truck,
                "name": part.name,
                "time_ms": part.time_ms + (offset_ms or 0),
                "boot": part.boot,
                "offset_ms": offset_ms,
                "values_json": part.values_json,
            }
        )
    connection.execute(_INSERT_EVENTS, rows)


def index_receipts(
    database: Database, connection: Connection, new: Sequence[Numbered], ordinals: Mapping[tuple[str, int], int]
) -> None:
    """Write receipts, and what they say into holdings unless a newer receipt spoke: order is the truck's, not ours.

    A newer epoch is the newer one, unless the older one goes on: of two computers that were one truck, that may stay.
    """
    if not new:
        return
    rows, held = [], []
    for number, item in new:
        part = item.part
        assert isinstance(part, ReceiptPart)
        said = {
            "truck": item.truck,
            "document": int(part.document),
            "digest": part.digest,
            "outcome": int(part.outcome),
            "name": part.name,
            "version": part.version,
            "reason": part.reason,
            "time_ms": part.time_ms,
        }
        rows.append(said | {"id": number})
        # A truck has one desired state, whatever its receipt calls it.
        name = "" if part.document is DocumentKind.DESIRED else part.name
        place = {"epoch_ordinal": ordinals[(item.truck, item.epoch)], "sequence": item.sequence}
        held.append(said | {"name": name, "received_ms": item.received_ms} | place)
    connection.execute(_INSERT_RECEIPTS, rows)
    statement = database.insert(holdings)
    later = statement.excluded
    newer = or_(
        later.epoch_ordinal > holdings.c.epoch_ordinal,
        and_(later.epoch_ordinal == holdings.c.epoch_ordinal, later.sequence > holdings.c.sequence),
        and_(
            holdings.c.time_ms > 0, later.epoch_ordinal < holdings.c.epoch_ordinal, later.time_ms > holdings.c.time_ms
        ),
    )
    columns = ("digest", "outcome", "version", "reason", "time_ms", "received_ms", "epoch_ordinal", "sequence")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["truck", "document", "name"], set_={name: later[name] for name in columns}, where=newer
        ),
        sorted(held, key=lambda row: (row["truck"], row["document"], row["name"])),
    )


def index_schemas(database: Database, connection: Connection, new: Sequence[Numbered]) -> set[int]:
    """Register schemas; return the identities (`id`) of the items whose number means another schema already."""
    parts = [(item, item.part) for _, item in new if isinstance(item.part, SchemaPart)]
    if not parts:
        return set()
    encodings = {part.digest: part.encoded for _, part in parts}
    connection.execute(
        database.insert(schemas).on_conflict_do_nothing(),
        [{"digest": digest, "encoded": encodings[digest]} for digest in sorted(encodings)],
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
    connection.execute(database.insert(truck_schemas).on_conflict_do_nothing(), rows)
    query = select(truck_schemas).where(
        truck_schemas.c.truck.in_({item.truck for item, _ in parts}),
        truck_schemas.c.number.in_({part.number for _, part in parts}),
    )
    kept = {(row.truck, row.epoch, row.number): row.digest for row in connection.execute(query)}
    return {id(item) for item, part in parts if kept[(item.truck, item.epoch, part.number)] != part.digest}


def index_tombstones(connection: Connection, new: Sequence[Numbered]) -> None:
    """Write tombstones."""
    rows = [
        {
            "id": number,
            "truck": item.truck,
            "of_epoch": part.epoch,
            "ranges": ranges_to_text(part.ranges),
            "reason": part.reason,
            "rows": part.rows,
        }
        for number, item in new
        if isinstance(part := item.part, TombstonePart)
    ]
    if rows:
        connection.execute(_INSERT_TOMBSTONES, rows)


def _take_ids(connection: Connection, wanted: int) -> Sequence[int]:
    """Return ids for new parcels, ascending. Taken beforehand, because the index rows have the same ones."""
    if connection.dialect.name == "sqlite":
        last: int = connection.execute(_LAST_ID).scalar_one()
        return range(last + 1, last + 1 + wanted)
    return sorted(connection.execute(_TAKE_IDS, {"wanted": wanted}).scalars())


def _state(schema_digest: bytes | None, offset_ms: int | None) -> BatchState:
    if schema_digest is None:
        return BatchState.PARKED
    return BatchState.TIMELESS if offset_ms is None else BatchState.READY


def _offsets(connection: Connection, wanted: Sequence[tuple[str, int | None]]) -> Offsets:
    """Return the known clock offsets of these boots; batches with wall time ask for none."""
    numbers = {boot for _, boot in wanted if boot is not None}
    if not numbers:
        return {}
    names = {truck for truck, boot in wanted if boot is not None}
    query = select(boots).where(boots.c.truck.in_(names), boots.c.boot.in_(numbers))
    return {(row.truck, row.boot): row.offset_ms for row in connection.execute(query)}
