"""The bounded table behind the change feed: appended to inside the transaction that made the change.

Ids grow in the order of the commits, so a reader that has seen an id has seen all before it: SQLite has one writer,
and on PostgreSQL whoever appends holds a lock from then until the commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.fleet.limits import CHANGES_KEPT, CHANGES_PRUNE_EVERY
from store.fleet.manyrows import ManyRows
from store.fleet.records import Change
from store.fleet.tables import changes

CHANNEL: Final = "digitruck_changes"
LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
_NOTIFY: Final = text("SELECT pg_notify(:channel, '')")
_NEWEST: Final = select(func.max(changes.c.id))
_OLDEST: Final = select(func.min(changes.c.id))
_INSERT: Final = ManyRows(insert(changes), ("kind", "truck", "subject", "at_ms"))


def append(connection: Connection, noted: Mapping[tuple[str, str | None], tuple[str, int]]) -> None:
    """Append changes, forget the oldest beyond the bound now and then, and wake other processes' feeds."""
    if not noted:
        return
    several_writers = connection.dialect.name != "sqlite"
    if several_writers:
        connection.execute(LOCK, {"name": "digitruck.changes"})
    rows = [
        {"kind": kind, "truck": truck, "subject": subject, "at_ms": at_ms}
        for (kind, truck), (subject, at_ms) in noted.items()
    ]
    _INSERT.run(connection, rows)
    newest: int = connection.execute(_NEWEST).scalar_one()
    # Only if the ids of this append passed a multiple of the period is there work.
    if newest // CHANGES_PRUNE_EVERY != (newest - len(rows)) // CHANGES_PRUNE_EVERY:
        connection.execute(delete(changes).where(changes.c.id <= newest - CHANGES_KEPT))
    if several_writers:
        connection.execute(_NOTIFY, {"channel": CHANNEL})


async def newest_id(connection: AsyncConnection) -> int:
    """Return the id of the newest change, 0 before the first."""
    return (await connection.execute(_NEWEST)).scalar() or 0


async def oldest_id(connection: AsyncConnection) -> int | None:
    """Return the id of the oldest change that is kept, None before the first."""
    oldest: int | None = (await connection.execute(_OLDEST)).scalar()
    return oldest


async def read_after(connection: AsyncConnection, after: int, limit: int) -> list[Change]:
    """Return the changes after an id, oldest first."""
    found = await connection.execute(select(changes).where(changes.c.id > after).order_by(changes.c.id).limit(limit))
    return [Change(row.id, row.kind, row.truck, row.subject, row.at_ms) for row in found]
