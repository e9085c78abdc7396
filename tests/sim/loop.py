"""An asyncio event loop whose time is virtual: it runs what is due, and when nothing is, it goes to the next instant.

One thread, no sockets, no waiting: what asyncio code asks of an executor is done at once, inline, so that the same
seed gives the same run. A file descriptor is a number that `tests.sim.network` gives out; `wake_reader` says that it
has become readable.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from itertools import count
from typing import Any


class DeadlockError(Exception):
    """Nothing is due, now or ever: whoever waits waits for ever."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on the memory's layout."""

    _numbers = count(1)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.number = next(self._numbers)
        super().__init__(*arguments, **named)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Instants:
    """In place of a selector: to wait for a while is to move the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> tuple[()]:
        if timeout_s is None:
            raise DeadlockError("nothing is due any more")
        if timeout_s > 0:
            self._loop.now_s += timeout_s
            self._loop.instants += 1
        return ()

    def close(self) -> None:
        """Hold nothing that would need to be closed."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop; `now_s` is its time, from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.instants = 0  # how often time went on: what polls is seen here
        self._selector = _Instants(self)
        self._clock_resolution = 1e-6
        self._readers: dict[int, tuple[Callable[..., Any], tuple[Any, ...], contextvars.Context]] = {}
        # Who runs tasks keeps a list of them: a power cut ends exactly those of one machine, in their order.
        self.tasks: dict[object, list[asyncio.Task[Any]]] = {}
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return virtual seconds."""
        return self.now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Do it now and return it done."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        """Have `callback` called when the descriptor is readable."""
        self._readers[int(fd)] = callback, args, contextvars.copy_context()

    def remove_reader(self, fd: Any) -> bool:
        """Forget a descriptor."""
        return self._readers.pop(int(fd), None) is not None

    def wake_reader(self, fd: int) -> None:
        """Say that a descriptor has something to read."""
        reader = self._readers.get(fd)
        if reader is not None:
            callback, args, context = reader
            self.call_soon(callback, *args, context=context)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the current loop of this thread, as `asyncio.Runner` would make it."""
        asyncio.set_event_loop(self)
        try:
            yield
        finally:
            asyncio.set_event_loop(None)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> asyncio.Task[Any]:
        task = NumberedTask(coroutine, loop=loop, **named)
        owner = owner_of_task.get()
        if owner is not None:
            kept = self.tasks.setdefault(owner, [])
            kept.append(task)
            if len(kept) > 256:
                self.tasks[owner] = [each for each in kept if not each.done()]
        return task

    def _process_events(self, event_list: object) -> None:
        """There are no events but the passing of time."""

    def _write_to_self(self) -> None:
        """Nobody waits in another thread."""


# Which machine (a life of a truck, of the gateway) the running code belongs to.
owner_of_task: contextvars.ContextVar[Any] = contextvars.ContextVar("digitruck_sim_owner", default=None)
