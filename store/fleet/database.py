"""The fleet's database: reading, writing, and what differs between SQLite and PostgreSQL.

SQLite has one writer, whose transactions take turns (`store.fleet.sqlite`). On PostgreSQL any number of processes
write at once and lock the rows that they decide upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sqlalchemy import URL, Table, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from protocol.errors import LocalError
from store.fleet import changes_table
from store.fleet.limits import POSTGRES_CONNECTIONS
from store.fleet.sqlite import WritingThread, reading_engine
from store.fleet.transactions import AsyncTransaction, Executes, Transaction

__all__ = ["Database", "Executes", "FleetPart", "Transaction", "Upsert", "may_start_over"]

Upsert = postgresql.Insert | sqlite.Insert
# SQLSTATE 40001 is a serialization failure, 40P01 a deadlock: the transaction did nothing and may start over.
_START_OVER = frozenset({"40001", "40P01"})
_ONE_STATE = {"isolation_level": "REPEATABLE READ"}


class Database:
    """The connections to one database and the two ways to use them: `read` and `write`."""

    def __init__(self, url: str) -> None:
        """Take a URL such as `sqlite:////var/lib/fleet.db` or `postgresql://user@host/fleet`; nothing is opened yet."""
        self.url = _with_driver(make_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.on_commit: Callable[[], None] = _nothing
        self._turn = asyncio.Lock()
        self._writer: WritingThread | None = None
        if self.is_sqlite:
            self._engine = reading_engine(self.url)
            self._writer = WritingThread(self.url)
        else:
            self._engine = create_async_engine(self.url, pool_size=POSTGRES_CONNECTIONS, max_overflow=0)
        # On SQLite a reading transaction sees one state anyway.
        self._reader = self._engine if self.is_sqlite else self._engine.execution_options(**_ONE_STATE)

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database, None on PostgreSQL."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    async def close(self) -> None:
        """Close every connection, the SQLite writer last because it checkpoints. Repeats do nothing."""
        await self._engine.dispose()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection with one consistent view."""
        async with self._reader.connect() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """Give a write transaction, committed on leaving; a caller that sees an exception must assume nothing."""
        async with self._transaction() as transaction:
            yield transaction
        if transaction.noted:
            self.on_commit()

    async def lock(self, transaction: Transaction, name: str) -> None:
        """Hold a named lock until the transaction ends: one writer of this kind at a time, whatever the process."""
        if not self.is_sqlite:
            await transaction.execute(changes_table.LOCK, {"name": f"digitruck.{name}"})

    def insert(self, table: Table) -> Upsert:
        """Return an INSERT that can say what happens on a conflict."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def _transaction(self) -> AbstractAsyncContextManager[Transaction]:
        if not self.is_sqlite:
            return self._asyncpg_transaction()
        if self._writer is None:
            raise LocalError("the store is closed")
        return self._sqlite_transaction(self._writer)

    @asynccontextmanager
    async def _sqlite_transaction(self, writer: WritingThread) -> AsyncIterator[Transaction]:
        async with self._turn, writer.transaction() as transaction:
            yield transaction

    @asynccontextmanager
    async def _asyncpg_transaction(self) -> AsyncIterator[Transaction]:
        async with self._engine.connect() as connection:
            begun = await connection.begin()
            try:
                transaction = AsyncTransaction(connection)
                yield transaction
                await transaction.run(changes_table.append, transaction.noted)
            except BaseException:
                await begun.rollback()
                raise
            try:
                await begun.commit()
            except BaseException:
                # Whether it was committed is unknown: this connection is not to be used again.
                await connection.invalidate()
                raise


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
        return url.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+asyncpg")
    raise LocalError(f"the fleet's database is SQLite or PostgreSQL, not {backend}")


class FleetPart:
    """The statements of one concept; `FleetStore` is the sum of its parts."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database: Database = database
