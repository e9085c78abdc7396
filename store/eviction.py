# ruff: noqa: S608 - what is put into SQL here are constants of this module.
"""Room in a full queue: detail is folded first, then lower precedence goes, oldest first; tombstones name what went.

For telemetry the oldest telemetry makes room at last, when nothing is left to be folded: what a truck that is offline
for years keeps is the newest of it.

Admission stops at 85 % of the share, because on a disk that is really full even DELETE fails; what is left is for
tombstones, acknowledgements and settings. FLASH alone may go on to 95 %. One round frees several parcels at once, so
that a long outage makes few tombstones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protocol.errors import QueueFullError
from protocol.messages import Tombstone
from protocol.numbers import ParcelKind, Precedence
from store import bases
from store.database import PAGE_BYTES, Database

ADMISSION_PERCENT: Final = 85
FLASH_PERCENT: Final = 95
# A round frees down to this, so that the next parcels find room without another tombstone.
ROUND_PERCENT: Final = 80
FOLDS_MAX: Final = 16  # a summary each, of some four batches
RANGES_MAX: Final = 256  # of a tombstone
# What storing a parcel may take besides its payload: a page of the table and one of each of two indexes may split.
OVERHEAD_BYTES: Final = 3 * PAGE_BYTES
# What policy may drop at all, in this order: BULK, then NORMAL; urgent parcels are never dropped for others.
EVICTABLE: Final = (Precedence.BULK, Precedence.NORMAL)
_QUEUED, _DELIVERED, _EVICTED = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Dropped:
    """The parcels of one epoch that one round dropped."""

    epoch: int
    sequences: tuple[int, ...]
    rows: int
    reason: str = "disk share"

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Return the sequences as ascending inclusive ranges."""
        return as_ranges(self.sequences)

    def tombstone(self) -> Tombstone:
        """Return the payload of the tombstone parcel that names them."""
        return Tombstone(epoch=self.epoch, ranges=self.ranges(), reason=self.reason, rows=self.rows)


def as_ranges(sequences: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return distinct integers as ascending inclusive ranges."""
    found: list[tuple[int, int]] = []
    for sequence in sorted(sequences):
        if found and found[-1][1] == sequence - 1:
            found[-1] = (found[-1][0], sequence)
        else:
            found.append((sequence, sequence))
    return tuple(found)


def make_room(
    database: Database,
    precedence: Precedence,
    payload_bytes: int,
    bury: Callable[[Dropped], None],
    *,
    fold: Callable[[], int] | None = None,
    batch: bool = False,
    needed: bases.Key | None = None,
) -> None:
    """Make room for a parcel of `precedence`, in the caller's transaction; `bury` queues the tombstones.

    `fold` replaces some of the oldest detail by a summary and returns the bytes that this frees, 0 when there is none.
    Raises `QueueFullError` when what could be dropped for it (for a `batch`, the oldest batches too) is not enough.
    `needed` is what the parcel goes on from.
    """
    percent = FLASH_PERCENT if precedence is Precedence.FLASH else ADMISSION_PERCENT
    limit = database.capacity_bytes() * percent // 100 - payload_bytes - OVERHEAD_BYTES
    if database.used_bytes() <= limit:
        return
    # What the gateway has, and what a tombstone names already, is not needed any more.
    _delete_closed(database, needed)
    if fold is not None and precedence <= Precedence.NORMAL:
        # A few steps make the room of one parcel; the bound keeps a transaction short, whatever is in the way.
        for _ in range(FOLDS_MAX):
            if database.used_bytes() <= limit or fold() == 0:
                break
            _delete_closed(database, needed)
    if database.used_bytes() <= limit:
        return
    need = payload_bytes + OVERHEAD_BYTES
    target = database.used_bytes() + need - database.capacity_bytes() * ROUND_PERCENT // 100
    freed = 0
    for lower in EVICTABLE:
        while lower > precedence and freed < target:
            step = _drop_oldest(database, lower, target - freed, bury)
            if step == 0:
                break
            freed += step
    if batch and precedence is Precedence.NORMAL and freed < need:
        freed += _drop_oldest(database, precedence, 4 * need, bury, kind=ParcelKind.BATCH)
    if freed < need and database.used_bytes() > limit:
        raise QueueFullError(f"the queue's share is used up and nothing below {precedence.name.lower()} can make room")


def _delete_closed(database: Database, needed: bases.Key | None) -> None:
    epoch, sequence = needed or (0, 0)
    params = {"delivered": _DELIVERED, "evicted": _EVICTED, "epoch": epoch.to_bytes(8, "big"), "sequence": sequence}
    closed = "state IN (:delivered, :evicted) AND NOT (epoch = :epoch AND sequence = :sequence)"
    if database.delete("parcels", f"{closed} AND {bases.NOT_NEEDED}", params):
        bases.forget_gone(database)


def delete_old(database: Database, *, before_s: int, kept_max: int) -> int:
    """Delete closed parcels of before a lived time, and all but the newest `kept_max`; return how many went."""
    params = {"delivered": _DELIVERED, "evicted": _EVICTED, "before": before_s, "kept": kept_max}
    closed = "state IN (:delivered, :evicted)"
    newest = f"SELECT id FROM parcels WHERE {closed} ORDER BY id DESC LIMIT 1 OFFSET :kept"
    old = f"{closed} AND (closed_s < :before OR id <= ({newest})) AND {bases.NOT_NEEDED}"
    gone = database.delete("parcels", old, params)
    if gone:
        bases.forget_gone(database)
    return gone


def _drop_oldest(
    database: Database,
    precedence: Precedence,
    target: int,
    bury: Callable[[Dropped], None],
    *,
    kind: ParcelKind | None = None,
) -> int:
    """Drop the oldest queued parcels of one precedence and epoch (and kind); return the bytes that this frees."""
    of_kind = "" if kind is None else f" AND kind = {int(kind)}"
    sql = (
        "SELECT epoch FROM epochs WHERE EXISTS (SELECT 1 FROM parcels WHERE state = :state "
        f"AND parcels.epoch = epochs.epoch AND precedence = :precedence{of_kind}) ORDER BY id LIMIT 1"
    )
    epoch = database.value(sql, {"state": _QUEUED, "precedence": int(precedence)})
    if epoch is None:
        return 0
    sql = (
        "SELECT sequence, length(sealed), rows FROM parcels "
        f"WHERE state = :state AND precedence = :precedence AND epoch = :epoch{of_kind} ORDER BY sequence"
    )
    sequences: list[int] = []
    freed = rows = ranges = 0
    params = {"state": _QUEUED, "precedence": int(precedence), "epoch": epoch}
    for sequence, sealed_bytes, row_count in database.rows(sql + " LIMIT 4096", params):
        ranges += not sequences or sequence != sequences[-1] + 1
        if ranges > RANGES_MAX or freed >= target:
            break
        sequences.append(sequence)
        freed += sealed_bytes
        rows += row_count
    dropped = Dropped(int.from_bytes(epoch, "big"), tuple(sequences), rows)
    for first, last in dropped.ranges():
        where = "epoch = :epoch AND precedence = :precedence AND state = :state AND sequence BETWEEN :first AND :last"
        where += of_kind
        database.update("parcels", where, {**params, "first": first, "last": last}, state=_EVICTED, sealed=b"")
    bury(dropped)
    return freed
