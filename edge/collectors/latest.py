"""For sources that talk by themselves: keep the latest value of each channel, give a row of them each period.

A value that was not said again for `fresh_s` is missing; when nothing at all is known there is no row, and the
supervisor's silence limit finds that out. However much a source says, this holds one value a channel. Deliberately
absent: averages; a summary is made of rows, later (protocol/ladder.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from edge.collectors.base import Clock, Row, SourceError

FIRST_ROW_WAIT_S: Final = 3.0  # for the rest of the channels, once one was heard


@dataclass(frozen=True, slots=True)
class _Said:
    value: int | None
    at_s: float


class Latest:
    """The last value of each channel of one source, by the channel's place in the row."""

    def __init__(self, width: int, *, fresh_s: float, clock: Clock) -> None:
        self._said: list[_Said | None] = [None] * width
        self._fresh_s = fresh_s
        self._clock = clock
        self.heard = asyncio.Event()
        self.complete = asyncio.Event()

    def put(self, index: int, value: int | None) -> None:
        """Take what a channel is now; None if the source said that it does not know."""
        self._said[index] = _Said(value, self._clock.monotonic())
        self.heard.set()
        if None not in self._said:
            self.complete.set()

    def row(self) -> Row | None:
        """Return the row as of now, None if nothing in it is known."""
        oldest_s = self._clock.monotonic() - self._fresh_s
        values = tuple(said.value if said is not None and said.at_s >= oldest_s else None for said in self._said)
        return None if values.count(None) == len(values) else Row(values)


async def rows_of(
    listen: Coroutine[Any, Any, Any], latest: Latest, *, period_s: float, clock: Clock
) -> AsyncGenerator[Row, None]:
    """Run `listen`, which fills `latest`, and yield a row each period; raise what it raises, end never.

    The first row comes as soon as all channels were heard, or `FIRST_ROW_WAIT_S` after the first of them.
    """
    listening = asyncio.ensure_future(listen)
    try:
        await _either(listening, latest.heard.wait())
        await _either(listening, latest.complete.wait(), clock.sleep(FIRST_ROW_WAIT_S))
        due_s = clock.monotonic()
        while True:
            if (row := latest.row()) is not None:
                yield row
            due_s = max(due_s + period_s, clock.monotonic())
            await _either(listening, clock.sleep(due_s - clock.monotonic()))
    finally:
        listening.cancel()
        await asyncio.wait({listening})
        if not listening.cancelled():
            listening.exception()  # it is retrieved, so asyncio does not report it as lost


async def _either(listening: asyncio.Future[Any], *others: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of `others`; raise what ended the listening if that comes first."""
    waiting = [asyncio.ensure_future(other) for other in others]
    try:
        await asyncio.wait({listening, *waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
    if listening.done():
        listening.result()
        raise SourceError("the source ended")
