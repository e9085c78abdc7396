"""A write transaction, the same to its user on both databases.

On SQLite it runs on the thread that owns the one writing connection, because aiosqlite's four hops between threads for
each statement cost three times what SQLite itself does; on PostgreSQL it runs on an asyncpg connection.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, CursorResult, Executable, Result
from sqlalchemy.ext.asyncio import AsyncConnection

Rows = Sequence[Mapping[str, Any]] | Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Executes(Protocol):
    """What can be asked a query: a reading connection or a write transaction."""

    async def execute(self, statement: Executable, /) -> Result[Any]:
        """Run a query."""


class Transaction(ABC):
    """One write transaction: statements, and the changes that the feed tells of once it is committed."""

    def __init__(self) -> None:
        self.noted: dict[tuple[str, str | None], tuple[str, int]] = {}

    @abstractmethod
    async def run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, ...)` in the transaction, many statements for the price of one wait."""

    async def execute(self, statement: Executable, rows: Rows | None = None) -> CursorResult[Any]:
        """Run a statement, once for each of `rows` if it is a sequence; return its result."""
        return await self.run(_execute, statement, rows)

    def note(self, kind: str, *, truck: str | None = None, subject: str = "", at_ms: int = 0) -> None:
        """Tell the change feed, once for each kind and truck in a transaction: the last subject stands."""
        self.noted[(kind, truck)] = (subject, at_ms)


class AsyncTransaction(Transaction):
    """A transaction on a connection that is asynchronous itself."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__()
        self._connection = connection

    async def run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` as a greenlet that waits without blocking the loop."""
        return await self._connection.run_sync(work, *args, **kwargs)


class ThreadTransaction(Transaction):
    """A transaction on a connection that one thread owns."""

    def __init__(self, thread: ThreadPoolExecutor, connection: Connection) -> None:
        super().__init__()
        self._thread = thread
        self._connection = connection

    async def run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` on the thread."""
        return await on_thread(self._thread, lambda: work(self._connection, *args, **kwargs))


async def on_thread(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run `work` on a thread and return only when it is over, also when the waiting task is cancelled meanwhile."""
    future = asyncio.get_running_loop().run_in_executor(thread, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _execute(connection: Connection, statement: Executable, rows: Rows | None) -> CursorResult[Any]:
    return connection.execute(statement, rows)
