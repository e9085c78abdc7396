"""Calls that may hang (a dead mount, a serial port that does not open), one at a time and off the loop.

A hung thread cannot be ended, so there is never more than one: while it hangs, each further call fails at once. The
thread is a daemon thread: it does not keep the process from ending, which an executor's would.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from edge.collectors.base import SourceError

T = TypeVar("T")


class BlockingCalls:
    """The one thread of one collector."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._busy = False

    async def call(self, function: Callable[[], T]) -> T:
        """Return what `function` returns or raise what it raises; `SourceError` while an earlier call still hangs.

        There is no time limit here: the caller is cancelled by whoever has one.
        """
        if self._busy:
            raise SourceError("an earlier call to the source still hangs")
        self._busy = True
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def post(result: T | None, error: BaseException | None) -> None:
            if answer.done():  # nobody waits any more
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]  # T may be None itself

        def work() -> None:
            result, failure = None, None
            try:
                result = function()
            except Exception as error:
                failure = error
            self._busy = False
            if not loop.is_closed():
                loop.call_soon_threadsafe(post, result, failure)

        threading.Thread(target=work, name=f"collector-{self._name}", daemon=True).start()
        return await answer
