"""The change feed: what was committed, as it happens, for dashboards and server-sent events.

The table is the truth and survives restarts; this wakes readers and keeps one copy of the newest changes for all of
them, so that a hundred dashboards cost one query a commit. A reader resumes by the last id that it saw. Other
processes on the same PostgreSQL are heard by LISTEN, which carries no data; SQLite has one process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from store.fleet import changes_table
from store.fleet.database import Database
from store.fleet.records import Change

KINDS: Final = (
    "alarm",
    "batch",
    "bill",
    "bundle",
    "config",
    "desired",
    "document",
    "enrolment",
    "event",
    "gap",  # never stored: changes before this one are no longer kept, so reload what you show
    "heard",
    "quarantine",
    "receipt",
    "revoked",
    "rollout",
    "schema",
    "status",
    "tombstone",
    "truck",
)
_RECENT: Final = 1_024
_CHUNK: Final = 500
# What is committed within this time is told together: a busy gateway commits some hundred times a second.
_REST_S: Final = 0.05
# A notification can be lost with its connection; this long after, the table is asked anyway.
_LOOK_AGAIN_S: Final = 5.0


class ChangeFeed:
    """Follows the table of changes while somebody reads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._recent: deque[Change] = deque(maxlen=_RECENT)
        self._last = 0
        self._follower: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        database.on_commit = self._wake.set

    async def newest(self) -> int:
        """Return the id of the newest change: subscribe from here to hear only what is to come."""
        async with self._database.read() as connection:
            return await changes_table.newest_id(connection)

    async def read(self, after: int) -> list[Change]:
        """Return the next changes after id `after`, oldest first; a first "gap" as `subscribe` has it."""
        gap = await self._gap(after)
        async with self._database.read() as connection:
            found = await changes_table.read_after(connection, after if gap is None else gap.id, _CHUNK)
        return found if gap is None else [gap, *found]

    async def subscribe(self, after: int | None = None) -> AsyncIterator[Change]:
        """Yield the changes after id `after` (None: from now on), in order, until the store is closed.

        A first change of kind "gap" says that older ones after `after` are no longer kept.
        """
        await self._start()
        seen = self._last if after is None else after
        if after is not None:
            gap = await self._gap(after)
            if gap is not None:
                seen = gap.id
                yield gap
        while not self._closed:
            if seen < self._last:
                for change in await self._after(seen):
                    seen = change.id
                    yield change
                continue
            async with self._arrived:
                while not self._closed and self._last <= seen:
                    await self._arrived.wait()

    async def close(self) -> None:
        """End every subscription."""
        self._closed = True
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
        async with self._arrived:
            self._arrived.notify_all()

    async def _start(self) -> None:
        async with self._starting:
            if self._follower is None and not self._closed:
                self._last = await self.newest()
                self._follower = asyncio.create_task(self._follow(), name="fleet.changes")

    async def _gap(self, after: int) -> Change | None:
        async with self._database.read() as connection:
            oldest = await changes_table.oldest_id(connection)
            newest = await changes_table.newest_id(connection)
        if oldest is not None and after < oldest - 1:
            return Change(oldest - 1, "gap", None, "", 0)
        # An id from the future was given by another database (a restored one): start from now.
        return Change(newest, "gap", None, "", 0) if after > newest else None

    async def _after(self, seen: int) -> list[Change]:
        if self._recent and self._recent[0].id <= seen + 1:
            return [change for change in self._recent if change.id > seen]
        async with self._database.read() as connection:
            return await changes_table.read_after(connection, seen, _CHUNK)

    async def _follow(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            listener: _Listener | None = None
            if not self._database.is_sqlite:
                listener = await stack.enter_async_context(_Listener(self._database, self._wake))
            while not self._closed:
                # Not wait_for: on Python 3.11 it swallows a cancellation that arrives together with what it waits for.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await self._wake.wait()
                self._wake.clear()
                # A database that is away for a while must not end the feed: the next look finds what was missed.
                with contextlib.suppress(SQLAlchemyError, OSError):
                    if listener is not None:
                        await listener.listen()
                    await self._refresh()
                await asyncio.sleep(_REST_S)

    async def _refresh(self) -> None:
        while True:
            async with self._database.read() as connection:
                found = await changes_table.read_after(connection, self._last, _CHUNK)
            if not found:
                return
            async with self._arrived:
                self._recent.extend(found)
                self._last = found[-1].id
                self._arrived.notify_all()


class _Listener:
    """A connection that hears PostgreSQL's notifications; made anew when it was lost."""

    def __init__(self, database: Database, wake: asyncio.Event) -> None:
        self._database = database
        self._wake = wake
        self._connection: Any = None

    async def __aenter__(self) -> _Listener:
        with contextlib.suppress(SQLAlchemyError, OSError):
            await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def listen(self) -> None:
        """Listen, if that is not done already."""
        if self._connection is not None and not self._connection.is_closed():
            return
        import asyncpg  # the postgres extra; only here is the driver used without SQLAlchemy

        url = self._database.url.set(drivername="postgresql")
        self._connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        await self._connection.add_listener(changes_table.CHANNEL, lambda *_: self._wake.set())
