from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from edge.collectors.base import Row, SourceError
from edge.collectors.latest import FIRST_ROW_WAIT_S, Latest, rows_of


class Listening:
    """What rows_of yields over a stepped clock, while the test puts values."""

    def __init__(self, clock, width: int = 2, *, fresh_s: float = 30.0) -> None:
        self.rows: list[tuple[float, tuple[int | None, ...]]] = []
        self.latest = Latest(width, fresh_s=fresh_s, clock=clock)
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clock = clock

    async def _run(self) -> None:
        async def listen() -> None:
            await self.gone

        async with aclosing(rows_of(listen(), self.latest, period_s=10.0, clock=self._clock)) as rows:
            async for row in rows:
                assert isinstance(row, Row)
                self.rows.append((self._clock.monotonic(), row.values))

    async def __aenter__(self) -> Listening:
        self.task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_the_first_row_comes_when_all_was_heard_and_the_rest_each_period(stepped_clock):
    async with Listening(stepped_clock) as listening:
        await stepped_clock.advance(7)
        listening.latest.put(0, 1)
        await stepped_clock.advance(1)
        assert listening.rows == []
        listening.latest.put(1, 2)
        await stepped_clock.advance(10)
        listening.latest.put(0, 5)
        listening.latest.put(0, 6)
        await stepped_clock.advance(10)
    assert listening.rows == [(8, (1, 2)), (18, (1, 2)), (28, (6, 2))]


async def test_a_channel_that_says_nothing_does_not_hold_the_first_row_up_for_long(stepped_clock):
    async with Listening(stepped_clock) as listening:
        listening.latest.put(0, 1)
        await stepped_clock.advance(FIRST_ROW_WAIT_S)
    assert listening.rows == [(FIRST_ROW_WAIT_S, (1, None))]


async def test_old_values_are_missing_and_nothing_known_is_no_row(stepped_clock):
    async with Listening(stepped_clock, fresh_s=15) as listening:
        listening.latest.put(0, 1)
        listening.latest.put(1, 2)
        await stepped_clock.advance(12)
        listening.latest.put(1, None)
        await stepped_clock.advance(100)
        assert listening.rows == [(0, (1, 2)), (10, (1, 2))]
        listening.latest.put(1, 7)
        await stepped_clock.advance(10)
    assert listening.rows[2:] == [(120, (None, 7))]


@pytest.mark.parametrize("heard", [False, True])
async def test_a_source_that_breaks_off_is_told_at_once(stepped_clock, heard: bool):
    async with Listening(stepped_clock) as listening:
        if heard:
            listening.latest.put(0, 1)
            listening.latest.put(1, 2)
        await stepped_clock.advance(1)
        listening.gone.set_exception(SourceError("gone"))
        await stepped_clock.advance(0)
        with pytest.raises(SourceError, match="gone"):
            await listening.task
    assert len(listening.rows) == int(heard)


async def test_a_source_that_ends_without_a_word_is_a_failure_too(stepped_clock):
    async with Listening(stepped_clock) as listening:
        listening.gone.set_result(None)
        await stepped_clock.advance(0)
        with pytest.raises(SourceError, match="ended"):
            await listening.task


async def test_whoever_stops_reading_stops_the_listening(stepped_clock):
    async with Listening(stepped_clock) as listening:
        listening.latest.put(0, 1)
        listening.latest.put(1, 1)
        await stepped_clock.advance(1)
    assert listening.gone.cancelled()
