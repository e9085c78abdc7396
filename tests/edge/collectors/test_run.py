from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable

import pytest
from structlog.testing import capture_logs

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, each_period
from edge.collectors.run import BACKOFF_S_MAX, Supervisor, is_cell, one_line
from edge.log_limit import LINES_IN_WINDOW

Script = Callable[[Clock], AsyncGenerator[Row, None]]


class Scripted(Collector[CollectorSettings]):
    """Plays a script in place of a source; the same one again at each start, or the next of several."""

    settings_type = CollectorSettings

    def __init__(self, *scripts: Script, name: str = "fake", period_s: float = 10.0) -> None:
        super().__init__(CollectorSettings(kind="fake", name=name, period_s=period_s))
        self._scripts = list(scripts)
        self.starts: list[float] = []
        self.closed = 0

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        return (ChannelSpec("a"), ChannelSpec("b"))

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        self.starts.append(clock.monotonic())
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            async for row in script(clock):
                yield row
        finally:
            self.closed += 1


async def steady(clock: Clock) -> AsyncGenerator[Row, None]:
    count = 0
    async for _ in each_period(clock, 10.0):
        yield Row((count, None))
        count += 1


async def vanished(clock: Clock) -> AsyncGenerator[Row, None]:
    raise SourceError("cannot open /dev/ttyUSB0\n" + "x" * 10_000)
    yield


async def hung(clock: Clock) -> AsyncGenerator[Row, None]:
    await asyncio.get_running_loop().create_future()
    yield Row((0, 0))


class Running:
    """A supervisor at work over a stepped clock, and what it delivered."""

    def __init__(self, clock, *collectors: Scripted, refuse: Exception | None = None) -> None:
        self.clock = clock
        self.rows: list[tuple[str, float, tuple[int | None, ...]]] = []
        self.refuse = refuse
        self.events: list[tuple[float, str, dict[str, object]]] = []
        self.supervisor = Supervisor(collectors, on_row=self._on_row, clock=clock, on_event=self._on_event)

    async def _on_row(self, name: str, time_s: float, values: tuple[int | None, ...]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.rows.append((name, time_s, values))

    async def _on_event(self, name: str, values: tuple[tuple[str, int | bool | str], ...]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.events.append((self.clock.passed_s, name, dict(values)))

    async def __aenter__(self) -> Running:
        self.task = asyncio.ensure_future(self.supervisor.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_rows_arrive_each_period_stamped_with_the_time(stepped_clock):
    async with Running(stepped_clock, Scripted(steady)) as running:
        await stepped_clock.advance(35)
    assert running.rows == [("fake", 10.0 * n, (n, None)) for n in range(4)]
    (health,) = running.supervisor.health()
    assert (health.rows, health.failures, health.last_row_s) == (4, 0, 30.0)


async def test_a_vanished_source_is_tried_again_later_and_later_and_hurts_no_other(stepped_clock):
    gone, fine = Scripted(vanished, name="gone"), Scripted(steady, name="fine")
    with capture_logs() as logs:
        async with Running(stepped_clock, gone, fine) as running:
            await stepped_clock.advance(3600)
            health = running.supervisor.health()[0]
    waits = [after - before for before, after in zip(gone.starts, gone.starts[1:], strict=False)]
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == BACKOFF_S_MAX
    assert len(running.rows) == 361
    assert gone.closed == len(gone.starts)
    assert health.failures == len(gone.starts)
    assert health.last_error.startswith("cannot open /dev/ttyUSB0 xxx")
    assert len(logs) <= LINES_IN_WINDOW * 5
    assert all(len(str(line)) < 500 for line in logs)


async def test_a_source_that_comes_back_is_read_again_and_forgiven(stepped_clock):
    async with Running(stepped_clock, Scripted(vanished, vanished, steady)) as running:
        await stepped_clock.advance(2.5)
        assert running.supervisor.health()[0].failures == 2
        await stepped_clock.advance(20)
        assert running.supervisor.health()[0].failures == 0
        assert running.supervisor.health()[0].last_error == ""
    assert [values for _, _, values in running.rows] == [(0, None), (1, None)]


async def test_a_hung_source_is_given_up_after_its_silence_limit(stepped_clock):
    source = Scripted(hung, steady)
    async with Running(stepped_clock, source) as running:
        await stepped_clock.advance(49.5)
        assert source.closed == 0
        await stepped_clock.advance(1)
        assert source.closed == 1
        assert running.rows == []
        assert running.supervisor.health()[0].last_error == "no row for 50 s"
        await stepped_clock.advance(10)
    assert running.rows


async def test_a_source_that_ignores_being_stopped_gets_no_second_one_beside_it(stepped_clock, monkeypatch):
    monkeypatch.setattr("edge.collectors.run.CLOSE_S_MAX", 0.01)
    release = asyncio.Event()

    async def deaf(clock: Clock) -> AsyncGenerator[Row, None]:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        yield Row((7, 7))

    source = Scripted(deaf, steady)
    with capture_logs() as logs:
        async with Running(stepped_clock, source) as running:
            await stepped_clock.advance(60)
            await asyncio.sleep(0.05)
            await stepped_clock.advance(600)
            assert len(source.starts) == 1
            release.set()
            for _ in range(5):
                await stepped_clock.advance(1)
            assert len(source.starts) == 2
    assert "collector.stuck" in [line["event"] for line in logs]
    assert running.rows[-1][2] == (0, None)


@pytest.mark.parametrize(
    "lie",
    [
        Row((1,)),
        Row((1, 2, 3)),
        Row([1, 2]),  # type: ignore[arg-type]
        Row((1, 2), monotonic_s=math.nan),
        Row((1, 2), monotonic_s=-1.0),
        Row((1, 2), monotonic_s=1e300),
        Row((1, 2), monotonic_s=3.0),
        Row((1, 2), monotonic_s="now"),  # type: ignore[arg-type]
        {"a": 1, "b": 2},
        None,
    ],
)
async def test_a_row_that_does_not_fit_is_dropped_and_the_next_is_taken(stepped_clock, lie):
    async def lying(clock: Clock) -> AsyncGenerator[Row, None]:
        yield lie
        async for row in steady(clock):
            yield row

    async with Running(stepped_clock, Scripted(lying)) as running:
        await stepped_clock.advance(1)
    assert [values for _, _, values in running.rows] == [(0, None)]
    assert running.supervisor.health()[0].dropped_rows == 1


@pytest.mark.parametrize(
    "cell", [1.5, "1", True, math.nan, 1 << 63, -(1 << 63) - 1, 1 << 20_000, [1]], ids=lambda cell: type(cell).__name__
)
async def test_a_cell_that_no_batch_holds_is_missing(stepped_clock, cell):
    async def lying(clock: Clock) -> AsyncGenerator[Row, None]:
        yield Row((5, cell))
        await clock.sleep(math.inf)

    async with Running(stepped_clock, Scripted(lying)) as running:
        await stepped_clock.advance(1)
        assert running.supervisor.health()[0].missing_cells == 1
    assert running.rows == [("fake", 0.0, (5, None))]


async def test_a_flood_is_cut_to_twice_the_declared_rate(stepped_clock):
    produced = 0

    async def flooding(clock: Clock) -> AsyncGenerator[Row, None]:
        nonlocal produced
        while True:
            produced += 1
            yield Row((produced, 0))

    with capture_logs() as logs:
        async with Running(stepped_clock, Scripted(flooding)) as running:
            await stepped_clock.advance(1000)
    assert 200 <= len(running.rows) <= 10 + 200 + 1
    assert produced < 2000  # it is not spun on either
    assert running.supervisor.health()[0].dropped_rows == pytest.approx(produced - len(running.rows), abs=1)
    assert len(logs) <= 2 * LINES_IN_WINDOW


async def test_a_backlog_with_its_own_times_waits_and_loses_nothing(stepped_clock):
    async def backlog(clock: Clock) -> AsyncGenerator[Row, None]:
        for number in range(100):
            yield Row((number, 0), monotonic_s=number / 1000)

    async with Running(stepped_clock, Scripted(backlog)) as running:
        await stepped_clock.advance(50)
        assert len(running.rows) == 20
        await stepped_clock.advance(500)
        assert running.task.done()
    assert [row[2][0] for row in running.rows] == list(range(100))
    assert running.supervisor.health()[0].finished
    assert running.supervisor.health()[0].dropped_rows == 0


async def test_rows_that_the_queue_refuses_are_counted_and_the_collector_goes_on(stepped_clock):
    source = Scripted(steady)
    async with Running(stepped_clock, source, refuse=OSError("disk full")) as running:
        await stepped_clock.advance(25)
        running.refuse = None
        await stepped_clock.advance(10)
    (health,) = running.supervisor.health()
    assert (health.dropped_rows, health.rows, len(source.starts)) == (3, 1, 1)


async def test_a_lost_source_is_told_once_and_its_return_once(stepped_clock):
    back = asyncio.Event()

    async def gone_for_an_hour(clock: Clock) -> AsyncGenerator[Row, None]:
        if not back.is_set():
            raise SourceError("cannot open /dev/ttyUSB0 " + "x" * 1000)
        async for row in steady(clock):
            yield row

    async with Running(stepped_clock, Scripted(gone_for_an_hour)) as running:
        await stepped_clock.advance(3600)
        ((told_s, name, values),) = running.events
        assert (name, values["collector"]) == ("collector.lost", "fake")
        assert 60 <= told_s <= 120
        assert str(values["error"]).startswith("cannot open /dev/ttyUSB0 xxx")
        assert len(str(values["error"])) <= 120
        back.set()
        await stepped_clock.advance(600)
    assert len(running.events) == 2
    back_s, name, values = running.events[1]
    assert (name, values) == ("collector.back", {"collector": "fake", "lost_s": round(back_s)})


async def test_a_source_that_comes_and_goes_is_told_of_once_an_hour(stepped_clock):
    async def flapping(clock: Clock) -> AsyncGenerator[Row, None]:
        yield Row((1, 2))
        await clock.sleep(100)
        raise SourceError("gone")

    async with Running(stepped_clock, Scripted(flapping)) as running:
        await stepped_clock.advance(4 * 3600)
    assert len(running.events) <= 2 * 5


async def test_a_short_interruption_is_not_told(stepped_clock):
    async with Running(stepped_clock, Scripted(vanished, vanished, vanished, steady)) as running:
        await stepped_clock.advance(600)
    assert running.events == []
    assert running.rows


async def test_a_queue_that_takes_no_events_stops_nothing(stepped_clock):
    async with Running(stepped_clock, Scripted(vanished), refuse=OSError("disk full")) as running:
        await stepped_clock.advance(600)
        assert running.supervisor.health()[0].failures > 7
    assert running.events == []


async def test_a_collector_that_cancels_itself_is_started_again(stepped_clock):
    async def odd(clock: Clock) -> AsyncGenerator[Row, None]:
        raise asyncio.CancelledError
        yield

    async with Running(stepped_clock, Scripted(odd, steady)) as running:
        await stepped_clock.advance(5)
        assert not running.task.done()
    assert running.rows


async def test_stopping_closes_every_source(stepped_clock):
    sources = [Scripted(steady, name="one"), Scripted(hung, name="two")]
    async with Running(stepped_clock, *sources):
        await stepped_clock.advance(5)
        assert [source.closed for source in sources] == [0, 0]
    assert [source.closed for source in sources] == [1, 1]


def test_error_texts_are_one_short_printable_line():
    assert one_line(ValueError("a\nb\x1b[31m\0c" + "d" * 1000)).startswith("a b [31m c")
    assert len(one_line(ValueError("d" * 1000))) <= 200
    assert one_line(ValueError()) == "ValueError"


def test_cells_are_64_bit_integers_or_none():
    assert all(is_cell(value) for value in (None, 0, -(1 << 63), (1 << 63) - 1))
    assert not any(is_cell(value) for value in (True, 0.0, 1 << 63))
