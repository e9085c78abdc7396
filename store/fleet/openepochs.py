"""The epochs of one ingest transaction: read and locked by one query, judged in memory, saved by one statement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Delete, Row, bindparam, delete, func, select, update

from protocol.numbers import DocumentKind
from store.fleet.columns import signed64
from store.fleet.database import Database
from store.fleet.evidence import EpochState, IngestItem, IngestStatus, TombstonePart
from store.fleet.manyrows import ManyRows
from store.fleet.sequences import SequenceSet, ranges_from_text, ranges_to_text
from store.fleet.tables import epochs, holdings

Key = tuple[str, int]
_NAMES = ("of_truck", "of_epoch", "cumulative", "ranges", "tombstoned", "last_ms")
_SAVE = ManyRows(
    update(epochs)
    .where(epochs.c.truck == bindparam("of_truck"), epochs.c.epoch == bindparam("of_epoch"))
    .values(
        cumulative=bindparam("cumulative"),
        ranges=bindparam("ranges"),
        tombstoned=bindparam("tombstoned"),
        last_ms=bindparam("last_ms"),
    ),
    _NAMES,
)


@dataclass(slots=True)
class _Epoch:
    ordinal: int
    sequences: SequenceSet
    tombstoned: int
    started_ms: int
    last_ms: int
    changed: bool = field(default=False)


class OpenEpochs:
    """Epochs under lock. Make one with `open`."""

    def __init__(self, found: dict[Key, _Epoch], buried: set[Key]) -> None:
        """Hold what `open` found, and which epochs tombstones of this transaction name."""
        self._epochs = found
        self._buried = buried

    @classmethod
    def open(cls, database: Database, connection: Connection, items: Iterable[IngestItem]) -> OpenEpochs:
        """Read and lock the epochs of these items (and those that their tombstones name), making the new ones."""
        wanted: dict[Key, int] = {}
        buried: set[Key] = set()
        for item in items:
            if isinstance(item.part, TombstonePart):
                # Before the parcel's own epoch: what was dropped is of the same epoch or of an older one.
                buried.add((item.truck, item.part.epoch))
                wanted.setdefault((item.truck, item.part.epoch), item.received_ms)
            wanted.setdefault((item.truck, item.epoch), item.received_ms)
        if not wanted:
            return cls({}, set())
        found = _read(connection, wanted)
        missing = [key for key in wanted if key not in found]
        if missing:
            _start(database, connection, missing, wanted)
            found |= _read(connection, missing)
        return cls(found, buried)

    def has_tombstones(self, item: IngestItem) -> bool:
        """Return whether sequences of this item's epoch were tombstoned, or are in this transaction."""
        key = (item.truck, item.epoch)
        return key in self._buried or self._epochs[key].tombstoned > 0

    def take(self, item: IngestItem) -> IngestStatus:
        """Say whether the item is new, and count it as committed if it is."""
        epoch = self._epochs[(item.truck, item.epoch)]
        if epoch.sequences.covers(item.sequence):
            return IngestStatus.DUPLICATE
        if not epoch.sequences.add(item.sequence, item.sequence):
            return IngestStatus.BEYOND_GAPS
        epoch.last_ms = max(epoch.last_ms, item.received_ms)
        epoch.changed = True
        return IngestStatus.STORED

    def bury(self, truck: str, tombstone: TombstonePart) -> None:
        """Count a tombstone's ranges as committed; what would be one gap too many stays open."""
        epoch = self._epochs[(truck, tombstone.epoch)]
        for first, last in tombstone.ranges:
            if epoch.sequences.add(first, last):
                epoch.tombstoned += last - first + 1
        epoch.changed = True

    def ordinals(self) -> dict[Key, int]:
        """Return the place of each epoch among its truck's epochs, by when they started here."""
        return {key: epoch.ordinal for key, epoch in self._epochs.items()}

    def states(self) -> dict[Key, EpochState]:
        """Return what is committed of each epoch once the transaction is."""
        return {
            (truck, number): EpochState(
                truck, number, epoch.sequences.cumulative, epoch.sequences.ranges, epoch.started_ms, epoch.last_ms
            )
            for (truck, number), epoch in self._epochs.items()
        }

    def save(self, connection: Connection) -> None:
        """Write the epochs that changed."""
        rows = [
            {
                "of_truck": truck,
                "of_epoch": signed64(number),
                "cumulative": epoch.sequences.cumulative,
                "ranges": ranges_to_text(epoch.sequences.ranges),
                "tombstoned": epoch.tombstoned,
                "last_ms": epoch.last_ms,
            }
            for (truck, number), epoch in self._epochs.items()
            if epoch.changed
        ]
        if rows:
            _SAVE.run(connection, rows)


def state_of(row: Row[Any]) -> EpochState:
    """Return a row of epochs as a record."""
    ranges = ranges_from_text(row.ranges)
    return EpochState(row.truck, row.epoch, row.cumulative, ranges, row.started_ms, row.last_ms)


def _read(connection: Connection, keys: Iterable[Key]) -> dict[Key, _Epoch]:
    wanted = set(keys)
    # In one order in all processes, so that two of them seldom wait for each other crosswise.
    query = (
        select(epochs)
        .where(epochs.c.truck.in_({truck for truck, _ in wanted}), epochs.c.epoch.in_({epoch for _, epoch in wanted}))
        .order_by(epochs.c.truck, epochs.c.epoch)
        .with_for_update()
    )
    return {
        (row.truck, row.epoch): _Epoch(
            row.ordinal,
            SequenceSet(row.cumulative, ranges_from_text(row.ranges)),
            row.tombstoned,
            row.started_ms,
            row.last_ms,
        )
        for row in connection.execute(query)
        if (row.truck, row.epoch) in wanted
    }


def _start(database: Database, connection: Connection, missing: list[Key], times: dict[Key, int]) -> None:
    names = {truck for truck, _ in missing}
    highest = func.max(epochs.c.ordinal).label("highest")
    query = select(epochs.c.truck, highest).where(epochs.c.truck.in_(names)).group_by(epochs.c.truck)
    last: dict[str, int] = {row.truck: row.highest for row in connection.execute(query)}
    rows = []
    for truck, number in missing:
        last[truck] = last.get(truck, 0) + 1
        started_ms = times[(truck, number)]
        rows.append(
            {
                "truck": truck,
                "epoch": number,
                "ordinal": last[truck],
                "cumulative": 0,
                "ranges": "",
                "tombstoned": 0,
                "started_ms": started_ms,
                "last_ms": started_ms,
            }
        )
    rows.sort(key=lambda row: (row["truck"], row["epoch"]))
    # Another process may have started the same epoch a moment ago: then its row is the one.
    connection.execute(database.insert(epochs).on_conflict_do_nothing(), rows)
    again = sorted({truck for truck, _ in missing if last[truck] > 1})
    if again:
        # What the truck reported in another epoch may be gone from its disk with the rest: it is asked once more.
        connection.execute(report_of(again))


def report_of(names: Iterable[str]) -> Delete:
    """Return the statement that forgets which desired state trucks reported, so that it is named to them again."""
    of_desired = holdings.c.document == int(DocumentKind.DESIRED)
    return delete(holdings).where(holdings.c.truck.in_(sorted(names)), of_desired)
