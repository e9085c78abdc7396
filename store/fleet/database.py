"""The fleet's database: engines, transactions and what differs between SQLite and PostgreSQL.

SQLite runs in WAL mode with synchronous=FULL, read back on every open (SYNCHRONOUS=NORMAL loses acknowledged rows in
a power cut). It has one writer: writes take turns on one connection, which alone writes and checkpoints, because
SQLite before 3.51.3 can corrupt a WAL that several connections reset; other connections only read. On PostgreSQL any
number of processes write at once and lock the rows that they decide upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, CursorResult, Executable, Table, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from protocol.errors import LocalError
from store.fleet import changes_table
from store.fleet.limits import POSTGRES_CONNECTIONS, SQLITE_BUSY_MS, SQLITE_READERS

Upsert = postgresql.Insert | sqlite.Insert
# SQLSTATE 40001 is a serialization failure, 40P01 a deadlock: the transaction did nothing and may start over.
_START_OVER = frozenset({"40001", "40P01"})


class Transaction:
    """One write transaction: statements, and the changes that the feed tells of once it is committed."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.noted: dict[tuple[str, str | None], tuple[str, int]] = {}

    async def execute(
        self, statement: Executable, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run a statement, once for each of `rows` if it is a sequence."""
        result: CursorResult[Any] = await self.connection.execute(statement, rows)
        return result

    def note(self, kind: str, *, truck: str | None = None, subject: str = "", at_ms: int = 0) -> None:
        """Tell the change feed, once for each kind and truck in a transaction: the last subject stands."""
        self.noted[(kind, truck)] = (subject, at_ms)


class Database:
    """The engines of one database and the two ways to use them: `read` and `write`."""

    def __init__(self, url: str) -> None:
        """Take a URL such as `sqlite:////var/lib/fleet.db` or `postgresql://user@host/fleet`; nothing is opened yet."""
        self.url = _with_driver(make_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.on_commit: Callable[[], None] = _nothing
        self._turn = asyncio.Lock()
        if self.is_sqlite:
            self._writer = _sqlite_engine(self.url, connections=1, begin="BEGIN IMMEDIATE", read_only=False)
            self._reader = _sqlite_engine(self.url, connections=SQLITE_READERS, begin="BEGIN", read_only=True)
        else:
            self._writer = create_async_engine(self.url, pool_size=POSTGRES_CONNECTIONS, max_overflow=0)
            self._reader = self._writer

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database, None on PostgreSQL."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    async def close(self) -> None:
        """Close every connection; the SQLite writer last, so that it is the one that checkpoints."""
        await self._reader.dispose()
        await self._writer.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection with one consistent view."""
        async with self._reader.connect() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """Give a write transaction, committed on leaving; a caller that sees an exception must assume nothing."""
        if self.is_sqlite:
            async with self._turn, self._transaction() as transaction:
                yield transaction
        else:
            async with self._transaction() as transaction:
                yield transaction
        if transaction.noted:
            self.on_commit()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        async with self._writer.connect() as connection:
            begun = await connection.begin()
            try:
                transaction = Transaction(connection)
                yield transaction
                if transaction.noted:
                    await self._append_changes(transaction)
            except BaseException:
                await begun.rollback()
                raise
            try:
                await begun.commit()
            except BaseException:
                # Whether it was committed is unknown: this connection is not to be used again.
                await connection.invalidate()
                raise

    async def _append_changes(self, transaction: Transaction) -> None:
        if not self.is_sqlite:
            await self.lock(transaction, "changes")
        rows = [
            {"kind": kind, "truck": truck, "subject": subject, "at_ms": at_ms}
            for (kind, truck), (subject, at_ms) in transaction.noted.items()
        ]
        await changes_table.append(transaction.connection, rows, notify=not self.is_sqlite)

    async def lock(self, transaction: Transaction, name: str) -> None:
        """Hold a named lock until the transaction ends: one writer of this kind at a time, whatever the process."""
        if not self.is_sqlite:
            await transaction.execute(changes_table.LOCK, {"name": f"digitruck.{name}"})

    def insert(self, table: Table) -> Upsert:
        """Return an INSERT that can say what happens on a conflict."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


def may_start_over(error: DBAPIError) -> bool:
    """Return whether the database undid a transaction for reasons that a second try may not meet."""
    return getattr(error.orig, "sqlstate", None) in _START_OVER


def _nothing() -> None:
    """Be told of a commit while nobody follows the changes."""


def _with_driver(url: URL) -> URL:
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise LocalError("the fleet's database is a file: sqlite:////path/fleet.db")
        return url.set(drivername="sqlite+aiosqlite")
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+asyncpg")
    raise LocalError(f"the fleet's database is SQLite or PostgreSQL, not {backend}")


def _sqlite_engine(url: URL, *, connections: int, begin: str, read_only: bool) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=connections, max_overflow=0, pool_timeout=60)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
        # The driver begins no transactions by itself: BEGIN is ours, so that reads are repeatable and DDL rolls back.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = WAL")
        mode = cursor.fetchone()[0]
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA synchronous")
        synchronous = cursor.fetchone()[0]
        if mode != "wal" or synchronous != 2:
            raise LocalError(
                f"SQLite refuses WAL and FULL here (it says {mode} and {synchronous}): is it a network disk?"
            )
        if read_only:
            cursor.execute("PRAGMA wal_autocheckpoint = 0")
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


class FleetPart:
    """The statements of one concept; `FleetStore` is the sum of its parts."""

    def __init__(self, database: Database) -> None:
        self._database = database
