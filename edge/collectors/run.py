"""The supervisor: runs every collector side by side, and keeps each one's trouble to itself.

A source may vanish (the collector is started again, later and later), hang (no row within its silence limit), lie
(cells that cannot be are taken as missing, rows that do not fit are dropped) or flood (rows beyond the rate wait if
they carry their own time, else are dropped). Logs are events, capped per collector. `on_row` gets the collector's name,
the monotonic time in seconds and the scaled integers. `on_event` is told once when a source is lost for good and once
when it is back: an event costs bytes, so a source that comes and goes is told of at most once an hour. Deliberately
absent: what a row is for, and wall time: the daemon has both.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from edge.collectors.base import Clock, Row
from edge.collectors.registry import AnyCollector
from edge.log_limit import LogLimit
from protocol.schema import VALUE_MAX, VALUE_MIN

BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 300.0
RATE_FACTOR: Final = 2.0  # how many times its declared rate a source may send, in the long run
BURST_ROWS: Final = 10
CLOSE_S_MAX: Final = 5.0
_ERROR_CHARS_MAX: Final = 200
_AHEAD_S_MAX: Final = 1.0  # a row is not from the future, but clocks round
LOST_S_MIN: Final = 60.0  # a source that is back within a minute was not lost
TELL_AGAIN_S: Final = 3600.0
_TOLD_CHARS_MAX: Final = 120

OnEvent = Callable[[str, tuple[tuple[str, int | bool | str], ...]], Awaitable[object]]
OnRow = Callable[[str, float, tuple[int | None, ...]], Awaitable[None]]
_log = structlog.get_logger("edge.collectors")


@dataclass(frozen=True, slots=True)
class CollectorHealth:
    """How one collector does. `failures` counts those since the last good row, whose monotonic time is given."""

    name: str
    running: bool = False
    finished: bool = False
    rows: int = 0
    dropped_rows: int = 0
    missing_cells: int = 0
    failures: int = 0
    last_row_s: float | None = None
    last_error: str = ""


class Supervisor:
    """Runs collectors until cancelled; `health` may be read at any time."""

    def __init__(
        self, collectors: Sequence[AnyCollector], *, on_row: OnRow, clock: Clock, on_event: OnEvent | None = None
    ) -> None:
        self._watches = tuple(_Watch(collector, on_row, clock, on_event) for collector in collectors)

    async def run(self) -> None:
        """Run all collectors; return when each has finished, which live sources never do."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run(), name=f"collector-{watch.health.name}")

    def health(self) -> tuple[CollectorHealth, ...]:
        """Return how each collector does, in the order given."""
        return tuple(watch.health for watch in self._watches)


class SilentError(Exception):
    """No row came within the collector's silence limit."""


class _Watch:
    def __init__(self, collector: AnyCollector, on_row: OnRow, clock: Clock, on_event: OnEvent | None) -> None:
        self.health = CollectorHealth(name=collector.name)
        self._on_event = on_event
        self._good_s = clock.monotonic()  # the last good row, or the start
        self._lost_told_s: float | None = None  # while it is lost
        self._told_s = -math.inf
        self._collector = collector
        self._width = len(collector.channels)
        self._on_row = on_row
        self._clock = clock
        self._limit = LogLimit()
        self._tokens = float(BURST_ROWS)
        self._tokens_at_s = clock.monotonic()

    async def run(self) -> None:
        while not await self._run_once():
            await self._tell_loss()
            delay_s = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(self.health.failures - 1, 16))
            await self._clock.sleep(max(BACKOFF_S_MIN, delay_s))

    async def _run_once(self) -> bool:
        """Read the source until it fails or ends; return whether it ended."""
        self.health = replace(self.health, running=True)
        rows: AsyncGenerator[Row, None] | None = None
        try:
            rows = self._collector.rows(self._clock)
            while True:
                await self._take(await self._next(rows))
        except StopAsyncIteration:
            self.health = replace(self.health, finished=True)
            self._say("collector.finished", rows=self.health.rows)
            return True
        except Exception as error:  # whatever a collector raises, the daemon and the other collectors go on
            text = one_line(error)
            self.health = replace(self.health, failures=self.health.failures + 1, last_error=text)
            self._say("collector.failed", error=text, failures=self.health.failures)
            return False
        finally:
            self.health = replace(self.health, running=False)
            if rows is not None:
                await self._close(rows)

    async def _next(self, rows: AsyncGenerator[Row, None]) -> Row:
        limit_s = self._collector.silence_s
        row = asyncio.ensure_future(anext(rows))
        alarm = asyncio.ensure_future(self._clock.sleep(limit_s)) if math.isfinite(limit_s) else None
        try:
            await asyncio.wait({row, alarm} if alarm else {row}, return_when=asyncio.FIRST_COMPLETED)
            if row.cancelled():
                raise RuntimeError("the collector cancelled itself")
            if row.done():
                return row.result()
            hint = self._collector.silence_hint
            raise SilentError(f"no row for {limit_s:g} s" + (f": {hint}" if hint else ""))
        finally:
            if alarm is not None:
                alarm.cancel()
            if not row.done():
                await self._stop(row)

    async def _stop(self, task: asyncio.Future[Any]) -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=CLOSE_S_MAX)
        if not task.done():
            # A second one beside it would be one more each time: wait for it, however long.
            self._say("collector.stuck")
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it is retrieved, so asyncio does not report it as lost

    async def _close(self, rows: AsyncGenerator[Row, None]) -> None:
        close = asyncio.ensure_future(rows.aclose())
        await asyncio.wait({close}, timeout=CLOSE_S_MAX)
        if not close.done():
            await self._stop(close)
        elif not close.cancelled() and (error := close.exception()) is not None:
            self._say("collector.close_failed", error=one_line(error))

    async def _take(self, row: Row) -> None:
        checked = self._checked(row)
        if checked is None or not await self._within_rate(row.monotonic_s is not None):
            self.health = replace(self.health, dropped_rows=self.health.dropped_rows + 1)
            return
        time_s = self._clock.monotonic() if checked.monotonic_s is None else checked.monotonic_s
        try:
            await self._on_row(self._collector.name, time_s, checked.values)
        except Exception as error:  # a full disk is the queue's trouble, not a reason to lose the source
            self.health = replace(self.health, dropped_rows=self.health.dropped_rows + 1)
            self._say("collector.row_refused", error=one_line(error))
            return
        self._good_s = self._clock.monotonic()
        self.health = replace(
            self.health, rows=self.health.rows + 1, failures=0, last_row_s=self._good_s, last_error=""
        )
        if self._lost_told_s is not None:
            lost_s, self._lost_told_s = self._good_s - self._lost_told_s, None
            await self._tell("collector.back", ("lost_s", round(lost_s)))

    async def _tell_loss(self) -> None:
        now_s = self._clock.monotonic()
        gone_s = now_s - self._good_s
        if self._lost_told_s is not None or gone_s < max(LOST_S_MIN, 2 * self._collector.period_s):
            return
        if now_s - self._told_s >= TELL_AGAIN_S:
            self._told_s = now_s
            self._lost_told_s = self._good_s
            await self._tell("collector.lost", ("error", self.health.last_error[:_TOLD_CHARS_MAX]))

    async def _tell(self, event: str, value: tuple[str, int | bool | str]) -> None:
        if self._on_event is None:
            return
        try:
            await self._on_event(event, (("collector", self._collector.name), value))
        except Exception as error:  # the queue's trouble, again
            self._say("collector.event_refused", event_name=event, error=one_line(error))

    def _checked(self, row: Row) -> Row | None:
        if not isinstance(row, Row) or not isinstance(row.values, tuple) or len(row.values) != self._width:
            self._say("collector.row_malformed", width=self._width)
            return None
        time_s, latest_s = row.monotonic_s, self._clock.monotonic() + _AHEAD_S_MAX
        if time_s is not None and not (isinstance(time_s, (int, float)) and 0 <= time_s <= latest_s):
            self._say("collector.time_impossible")
            return None
        values = tuple(value if is_cell(value) else None for value in row.values)
        lost = sum(new is not old for new, old in zip(values, row.values, strict=True))
        if lost:
            self.health = replace(self.health, missing_cells=self.health.missing_cells + lost)
            self._say("collector.cells_impossible", cells=lost)
        return Row(values, time_s)

    async def _within_rate(self, may_wait: bool) -> bool:
        """Take a token of the rate; wait for it if the row keeps its meaning meanwhile, else give the row up."""
        rate_per_s = RATE_FACTOR / self._collector.period_s
        now_s = self._clock.monotonic()
        self._tokens = min(float(BURST_ROWS), self._tokens + (now_s - self._tokens_at_s) * rate_per_s)
        self._tokens_at_s = now_s
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return True
        self._say("collector.flood", period_s=self._collector.period_s)
        wait_s = (1.0 - self._tokens) / rate_per_s
        if not may_wait:
            # Do not spin on a source that never pauses, but come back well before the next row that counts.
            await self._clock.sleep(min(wait_s, 1.0))
            return False
        await self._clock.sleep(wait_s)
        self._tokens, self._tokens_at_s = 0.0, self._clock.monotonic()
        return True

    def _say(self, event: str, **values: object) -> None:
        kept_back = self._limit.admit(event, self._clock.monotonic())
        if kept_back is not None:
            more = {"kept_back": kept_back} if kept_back else {}
            level = _log.info if event == "collector.finished" else _log.warning
            level(event, collector=self._collector.name, **values, **more)


def is_cell(value: object) -> bool:
    """Tell whether a batch can hold the value: an integer of 64 bits, or None."""
    return value is None or (type(value) is int and VALUE_MIN <= value <= VALUE_MAX)


def one_line(error: BaseException) -> str:
    """Return an error's text for a log or a status page: printable, one line, short, never empty."""
    text = "".join(character if character.isprintable() else " " for character in str(error)[:_ERROR_CHARS_MAX])
    return text.strip() or type(error).__name__
