"""How the fleet's SQLite file is opened: the pragmas, read back, and the one thread that writes.

WAL with synchronous=FULL: SYNCHRONOUS=NORMAL loses acknowledged rows in a power cut. One connection alone writes and
checkpoints, because SQLite before 3.51.3 can corrupt a WAL that several connections reset; the others only read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from protocol.errors import LocalError
from store.fleet import changes_table
from store.fleet.limits import SQLITE_BUSY_MS, SQLITE_CACHE_KIB, SQLITE_CHECKPOINT_PAGES, SQLITE_READERS
from store.fleet.transactions import ThreadTransaction, on_thread


def reading_engine(url: URL) -> AsyncEngine:
    """Return the engine of connections that only read."""
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"), pool_size=SQLITE_READERS, max_overflow=0, pool_timeout=60
    )
    _prepare(engine.sync_engine, begin="BEGIN", read_only=True)
    return engine


class WritingThread:
    """The thread that owns the writing connection."""

    def __init__(self, url: URL) -> None:
        """Take the file's URL; it is opened by the first transaction."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fleet-writer")
        # The loop fetches a result's rows while the thread waits, so the driver's check of the thread is switched off.
        self._engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            pool_size=1,
            max_overflow=0,
            connect_args={"check_same_thread": False},
        )
        _prepare(self._engine, begin="BEGIN IMMEDIATE", read_only=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[ThreadTransaction]:
        """Give a transaction; callers take turns. It is committed on leaving, with the changes that it noted."""
        begun: list[Connection] = []
        try:
            # A task that is cancelled here gets no return value, but the thread has begun all the same.
            await on_thread(self._thread, lambda: begun.append(self._begin()))
            transaction = ThreadTransaction(self._thread, begun[0])
            yield transaction
            await transaction.run(changes_table.append, transaction.noted)
        except BaseException:
            for connection in begun:
                await on_thread(self._thread, connection.close)  # which rolls back
            raise
        await on_thread(self._thread, lambda: _commit(begun[0]))

    async def close(self) -> None:
        """Close the connection, which checkpoints, and end the thread."""
        await on_thread(self._thread, self._engine.dispose)
        self._thread.shutdown()

    def _begin(self) -> Connection:
        connection = self._engine.connect()
        try:
            connection.begin()
        except BaseException:
            connection.close()
            raise
        return connection


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except BaseException:
        # Whether it was committed is unknown: this connection is not to be used again.
        connection.invalidate()
        raise
    finally:
        connection.close()


def _prepare(engine: Engine, *, begin: str, read_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _entry: object) -> None:
        # The driver begins no transactions by itself: BEGIN is ours, so that reads are repeatable and DDL rolls back.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
        cursor.execute("PRAGMA journal_mode = WAL")
        mode = cursor.fetchone()[0]
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA synchronous")
        synchronous = cursor.fetchone()[0]
        if mode != "wal" or synchronous != 2:
            raise LocalError(
                f"SQLite refuses WAL and FULL here ({mode}, {synchronous}): is the file on a network disk?"
            )
        cursor.execute(f"PRAGMA wal_autocheckpoint = {0 if read_only else SQLITE_CHECKPOINT_PAGES}")
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
