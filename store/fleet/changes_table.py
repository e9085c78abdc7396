"""The bounded table behind the change feed: appended to inside the transaction that made the change.

Ids grow in the order of the commits, so a reader that has seen an id has seen all before it. SQLite has one writer; on
PostgreSQL the caller holds the lock "changes" from the append until the commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.fleet.limits import CHANGES_KEPT, CHANGES_PRUNE_EVERY
from store.fleet.records import Change
from store.fleet.tables import changes

CHANNEL: Final = "digitruck_changes"
LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
_NOTIFY: Final = text("SELECT pg_notify(:channel, '')")


async def append(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]], *, notify: bool) -> None:
    """Append changes, forget the oldest beyond the bound now and then, and wake other processes' feeds."""
    await connection.execute(insert(changes), rows)
    newest = await newest_id(connection)
    # Some ids of this append are a multiple of the period: only then is there work.
    if newest // CHANGES_PRUNE_EVERY != (newest - len(rows)) // CHANGES_PRUNE_EVERY:
        await connection.execute(delete(changes).where(changes.c.id <= newest - CHANGES_KEPT))
    if notify:
        await connection.execute(_NOTIFY, {"channel": CHANNEL})


async def newest_id(connection: AsyncConnection) -> int:
    """Return the id of the newest change, 0 before the first."""
    return (await connection.execute(select(func.max(changes.c.id)))).scalar() or 0


async def oldest_id(connection: AsyncConnection) -> int | None:
    """Return the id of the oldest change that is kept, None before the first."""
    oldest: int | None = (await connection.execute(select(func.min(changes.c.id)))).scalar()
    return oldest


async def read_after(connection: AsyncConnection, after: int, limit: int) -> list[Change]:
    """Return the changes after an id, oldest first."""
    found = await connection.execute(select(changes).where(changes.c.id > after).order_by(changes.c.id).limit(limit))
    return [Change(row.id, row.kind, row.truck, row.subject, row.at_ms) for row in found]
