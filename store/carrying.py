"""Reading the parcel queue for a courier: every parcel that waits, epoch by epoch, a page at a time."""

from __future__ import annotations

from protocol.numbers import ParcelKind, Precedence
from store.database import Database
from store.parcels import ParcelState, Queued


def epochs_waiting(database: Database) -> tuple[int, ...]:
    """Return the epochs that have parcels waiting, oldest first."""
    sql = "SELECT DISTINCT epochs.id, epochs.epoch FROM epochs JOIN parcels USING (epoch) WHERE state = :state"
    found = database.rows(f"{sql} ORDER BY epochs.id", {"state": ParcelState.QUEUED})
    return tuple(int.from_bytes(epoch, "big") for _, epoch in found)


def waiting(database: Database, epoch: int, after: tuple[int, int], limit: int) -> tuple[Queued, ...]:
    """Return parcels of an epoch that wait, by precedence and sequence: those after (precedence, sequence)."""
    sql = (
        "SELECT sequence, precedence, kind, sealed, attempts, added_s, deadline_s FROM parcels "
        "WHERE state = :state AND epoch = :epoch AND (precedence, sequence) > (:precedence, :sequence) "
        "ORDER BY precedence, sequence LIMIT :limit"
    )
    where = {"state": ParcelState.QUEUED, "epoch": epoch.to_bytes(8, "big"), "limit": limit}
    return tuple(
        Queued(epoch, sequence, Precedence(precedence), ParcelKind(kind), sealed, attempts, added_s, deadline_s)
        for sequence, precedence, kind, sealed, attempts, added_s, deadline_s in database.rows(
            sql, {**where, "precedence": after[0], "sequence": after[1]}
        )
    )
