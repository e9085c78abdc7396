"""The one thread that writes to a database on behalf of an asyncio daemon, with group commit.

`await writer.run(fn)` queues a function; the thread takes all that wait into one transaction, each in a savepoint of
its own, so that one that raises undoes only itself, and commits once (a commit for each row costs an fsync for each).
A result is handed out only after COMMIT has returned: what the caller then sends or acknowledges is on the disk. A file
that was deleted meanwhile takes commits as well: it is looked for after each.
When COMMIT fails nobody knows; every caller gets `CommitUnknownError` and the database is opened again. What a disk
refused for a while (it was full) is counted, and told upstream once it takes everything again.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from store import incidents
from store.database import Database
from store.errors import CommitUnknownError, StoreFailedError

GROUP_MAX: Final = 64
# More than this wait only when the disk hangs; then callers wait too, instead of filling the memory.
QUEUE_MAX: Final = 1_024

_T = TypeVar("_T")


@dataclass(slots=True)
class _Job:
    """A queued function, what came of it, and who waits for it."""

    function: Callable[[], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def run(self, database: Database) -> bool:
        """Run the function in a savepoint; return whether the transaction around it is still there."""
        try:
            with database.atomic():
                self.result = self.function()
        except StopIteration as error:
            # A future does not take one.
            self.error = RuntimeError(f"a function for the writer raised StopIteration: {error.value}")
        except Exception as error:  # whatever it raised belongs to the caller, not to this thread
            self.error = error
        return bool(database.sql.conn.in_transaction)


class Writer:
    """Owns the thread; `start` and `close` belong to the event loop that `run` is called from."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(QUEUE_MAX)
        self._thread = threading.Thread(target=self._work, name=f"writer of {database.path.name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._failed: StoreFailedError | None = None
        self._refused, self._refused_since = 0, 0.0
        self.commits = 0

    def start(self) -> None:
        """Start the thread; from now on only functions given to `run` may touch the database."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def run(self, function: Callable[[], _T]) -> _T:
        """Run `function` in the writer thread and return its result once it is durable.

        What `function` raises is raised here, and its changes are undone. `CommitUnknownError`: do it again under the
        same id. `StoreFailedError`: the daemon must restart. Cancelling the caller does not cancel the function.
        """
        if self._loop is None or self._closing:
            raise StoreFailedError("the writer is not running")
        async with self._room:
            future: asyncio.Future[_T] = self._loop.create_future()
            self._jobs.put(_Job(function, future))
            return await future

    async def close(self) -> None:
        """Do what is queued, then end the thread. The database stays open."""
        self._closing = True
        if self._thread.is_alive():
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        ended = False
        while not ended:
            group: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                group.append(job)
                if len(group) == GROUP_MAX:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            ended = job is None
            if group:
                self._commit(group)
                self._hand_out(group)

    def _commit(self, group: list[_Job]) -> None:
        """Run the jobs of a group in one transaction, or each in its own when one of them destroyed that."""
        if self._failed is not None:
            for job in group:
                job.error = self._failed
            return
        try:
            self._database.sql.begin()
            intact = all(job.run(self._database) for job in group)
            if intact:
                self._database.sql.conn.execute("COMMIT")
                self.commits += 1
        except sqlite3.Error as error:
            self._fail(group, error)
            return
        if intact:
            self._look_for_the_file()
            self._count_refused(sum(isinstance(job.error, sqlite3.OperationalError) for job in group))
        elif len(group) == 1:
            self._count_refused(1)
        else:
            # A full disk can undo a whole transaction from inside one statement: each is done again, alone.
            for job in group:
                job.result = job.error = None
                self._commit([job])

    def _look_for_the_file(self) -> None:
        """Notice that the file was deleted: what was just committed is saved, and nothing more is taken."""
        try:
            self._database.require_in_place()
        except StoreFailedError as gone:
            self._failed = gone

    def _count_refused(self, refused: int) -> None:
        """Count what the disk refused; once it takes everything again, have it told upstream."""
        if refused:
            self._refused_since = self._refused_since if self._refused else time.monotonic()
            self._refused += refused
        elif self._refused and self._failed is None:
            values = {"writes": self._refused, "seconds": round(time.monotonic() - self._refused_since)}
            try:
                incidents.record(self._database, "store.refused", values, 0)
                self._refused = 0
            except sqlite3.Error:
                return  # not yet

    def _fail(self, group: list[_Job], error: sqlite3.Error) -> None:
        self._count_refused(len(group))
        for job in group:
            job.result = None
            if job.error is None:
                job.error = CommitUnknownError(f"COMMIT failed, the change may or may not be durable: {error}")
        try:
            self._database.reopen()
        except StoreFailedError as failed:
            self._failed = failed

    def _hand_out(self, group: list[_Job]) -> None:
        def resolve() -> None:
            for job in group:
                if job.future.done():
                    continue
                if job.error is not None:
                    job.future.set_exception(job.error)
                else:
                    job.future.set_result(job.result)

        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(resolve)
        except RuntimeError:
            return  # the loop has gone, and with it everybody who waited
