"""Telemetry on query: signed batches are decoded when somebody asks, steps of hours and days come from rollups.

No sample lies in a table: what is stored is what the truck signed, and what is answered is decoded from it. Decoding
runs in a thread, page by page, so that a long question does not hold up the trucks, and a whole export holds a few
batches in memory.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.decoding import DecodedBatch, SchemaCache, physical
from gateway.series import Column, SamplesPage, Series, Table, TableRow
from gateway.steps import Steps
from protocol.errors import PeerError
from protocol.schema import Schema
from store.attempts import Attempts
from store.fleet.evidence import DAY_MS, HOUR_MS
from store.fleet.fleet import FleetStore

_PAGE_BATCHES = 32
_TABLE_STEPS = 5_000
# Rows that wait for others of their time; a truck whose clock stands still must not fill the memory.
_WAITING_ROWS_MAX = 200_000
# Rows come at their schema's period, give or take: a pause of this many periods and a half is a gap.
_GAP_PERIODS = 2.5
_Place = tuple[str, str]  # a channel's name and unit


class Telemetry:
    """Answers what a truck measured (`gateway.api.services.TelemetrySource`)."""

    def __init__(self, fleet: FleetStore, attempts: Attempts | None = None) -> None:
        self._fleet = fleet
        self._schemas = SchemaCache(fleet, attempts)

    async def samples(
        self, truck: str, *, channels: Sequence[str], since_ms: int, until_ms: int, step_s: int, rows_max: int
    ) -> SamplesPage:
        """Return values in [since_ms, until_ms). Steps begin at multiples of themselves since 1970 (UTC)."""
        wanted = frozenset(channels)
        if step_s == 0:
            rows, end_ms = await self._rows(truck, wanted, since_ms, until_ms, rows_max)
            series = _series(rows, wanted, since_ms, end_ms)
        else:
            since_ms -= since_ms % (step_s * 1000)
            end_ms = min(until_ms, since_ms + rows_max * step_s * 1000)
            series = _stepped_series(
                await self._steps(truck, wanted, since_ms, end_ms, step_s * 1000), since_ms, end_ms
            )
        return SamplesPage(series, end_ms if end_ms < until_ms else None)

    async def table(self, truck: str, *, channels: Sequence[str], since_ms: int, until_ms: int, step_s: int) -> Table:
        """Return all values in [since_ms, until_ms) as a table, read page by page while it is written."""
        wanted = frozenset(channels)
        since_ms -= since_ms % (step_s * 1000) if step_s else 0
        extent = await self._fleet.extent(truck, since_ms, until_ms)
        places = await self._places(truck, wanted, since_ms, until_ms)
        if extent is None:
            return Table(_columns(places, step_s), _nothing())
        since_ms, until_ms = max(since_ms, extent[0]), min(until_ms, extent[1] + 1)
        if step_s == 0:
            rows = self._table_rows(truck, wanted, places, since_ms, until_ms)
        else:
            since_ms -= since_ms % (step_s * 1000)
            rows = self._table_steps(truck, wanted, places, since_ms, until_ms, step_s * 1000)
        return Table(_columns(places, step_s), rows)

    async def _table_rows(
        self, truck: str, wanted: frozenset[str], places: Sequence[_Place], since_ms: int, until_ms: int
    ) -> AsyncIterator[list[TableRow]]:
        index = {place: at for at, place in enumerate(places)}
        waiting: list[_TimedRow] = []
        after = None
        while records := await self._fleet.batches(truck, since_ms, until_ms, after, _PAGE_BATCHES):
            after = records[-1].cursor
            for _, each in await self._schemas.decode(records):
                waiting += _timed(each, wanted, since_ms, until_ms)
            waiting.sort(key=_time_of)
            # Batches come by their first row: none of the next has one from before this one's.
            number = bisect_left(waiting, records[-1].first_ms or 0, key=_time_of)
            if len(waiting) - number > _WAITING_ROWS_MAX:
                number = len(waiting)
            yield await asyncio.to_thread(_joined, waiting[:number], index)
            del waiting[:number]
        yield await asyncio.to_thread(_joined, waiting, index)

    async def _table_steps(
        self,
        truck: str,
        wanted: frozenset[str],
        places: Sequence[_Place],
        since_ms: int,
        until_ms: int,
        step_ms: int,
    ) -> AsyncIterator[list[TableRow]]:
        expected_ms: int | None = None
        while since_ms < until_ms:
            end_ms = min(until_ms, since_ms + _TABLE_STEPS * step_ms)
            steps = await self._steps(truck, wanted, since_ms, end_ms, step_ms)
            page: list[TableRow] = []
            for row in _step_rows(steps, places):
                if expected_ms is not None and row.time_ms > expected_ms:
                    page.append(TableRow(expected_ms, (None,) * len(row.values), 0))
                page.append(row)
                expected_ms = row.time_ms + step_ms
            yield page
            since_ms = end_ms

    async def _steps(self, truck: str, wanted: frozenset[str], since_ms: int, until_ms: int, step_ms: int) -> Steps:
        steps = Steps(step_ms)
        if step_ms % HOUR_MS == 0:
            kept_ms = DAY_MS if step_ms % DAY_MS == 0 else HOUR_MS
            for rollup in await self._fleet.rollups(truck, sorted(wanted) or None, since_ms, until_ms, kept_ms):
                steps.at(rollup.channel, rollup.unit, rollup.start_ms).add_rollup(rollup)
            return steps
        after = None
        while records := await self._fleet.batches(truck, since_ms, until_ms, after, _PAGE_BATCHES):
            after = records[-1].cursor
            for _, each in await self._schemas.decode(records):
                await asyncio.to_thread(steps.add, each, wanted, (since_ms, until_ms))
        return steps

    async def _rows(
        self, truck: str, wanted: frozenset[str], since_ms: int, until_ms: int, rows_max: int
    ) -> tuple[list[_TimedRow], int]:
        """Return the first `rows_max` rows in order of time, whatever order their batches came in, and where they end.

        Only rows of schemas that have a wanted channel count.
        """
        rows: list[_TimedRow] = []
        end_ms = until_ms
        after = None
        while records := await self._fleet.batches(truck, since_ms, end_ms, after, _PAGE_BATCHES):
            after = records[-1].cursor
            for _, each in await self._schemas.decode(records):
                rows += _timed(each, wanted, since_ms, end_ms)
            if len(rows) > rows_max:
                rows.sort(key=_time_of)
                # All rows of one time belong to one page, or the next page could not begin between them. Batches come
                # by their first row, so the earlier end soon leaves none to ask for.
                end_ms = max(rows[rows_max].time_ms, rows[0].time_ms + 1)
                rows = [row for row in rows if row.time_ms < end_ms]
        rows.sort(key=_time_of)
        return rows, end_ms

    async def _places(self, truck: str, wanted: frozenset[str], since_ms: int, until_ms: int) -> list[_Place]:
        """Return the channels that a period's batches have, in order."""
        places: set[_Place] = set()
        for digest in await self._fleet.schemas_between(truck, since_ms, until_ms):
            try:
                schema = await self._schemas.get(digest)
            except (KeyError, PeerError):
                continue  # none of its batches decodes either
            places |= {(each.name, each.unit) for each in schema.channels if not wanted or each.name in wanted}
        return sorted(places)


@dataclass(frozen=True, slots=True)
class _TimedRow:
    time_ms: int
    schema: Schema
    values: tuple[int | None, ...]
    is_repaired: bool


def _time_of(row: _TimedRow) -> int:
    return row.time_ms


def _timed(batch: DecodedBatch, wanted: frozenset[str], since_ms: int, end_ms: int) -> Iterator[_TimedRow]:
    """Yield the rows of a period, of a batch that has a wanted channel."""
    if not wanted or any(channel.name in wanted for channel in batch.schema.channels):
        for time_ms, values in batch.rows:
            if since_ms <= time_ms < end_ms:
                yield _TimedRow(time_ms, batch.schema, values, batch.is_repaired)


async def _nothing() -> AsyncIterator[list[TableRow]]:
    return
    yield  # what makes it a generator


def _columns(places: Iterable[_Place], step_s: int) -> list[Column]:
    figures = ("", "min", "max", "last", "count") if step_s else ("",)
    return [Column(name, unit, figure) for name, unit in places for figure in figures]


def _joined(rows: Sequence[_TimedRow], index: dict[_Place, int]) -> list[TableRow]:
    """Return rows of one time and one kind of clock joined into one, but for a channel's second value of that time."""
    joined: list[TableRow] = []
    open_at: tuple[int, bool] | None = None
    cells: list[float | None] = []

    def close() -> None:
        if open_at is not None:
            repaired = sum(cell is not None for cell in cells) if open_at[1] else 0
            joined.append(TableRow(open_at[0], tuple(cells), repaired))

    for row in rows:
        values = [
            (at, physical(channel, value))
            for channel, value in zip(row.schema.channels, row.values, strict=True)
            if value is not None and (at := index.get((channel.name, channel.unit))) is not None
        ]
        if open_at != (row.time_ms, row.is_repaired) or any(cells[at] is not None for at, _ in values):
            close()
            open_at, cells = (row.time_ms, row.is_repaired), [None] * len(index)
        for at, number in values:
            cells[at] = number
    close()
    return joined


def _step_rows(steps: Steps, places: Sequence[_Place]) -> list[TableRow]:
    starts = sorted({start for of_channel in steps.found.values() for start in of_channel})
    rows = []
    for start in starts:
        cells: list[float | None] = []
        repaired = 0
        for place in places:
            step = steps.found.get(place, {}).get(start)
            if step is None:
                cells += (None,) * 5
            else:
                cells += (step.mean, step.low, step.high, step.last, step.count)
                repaired += step.repaired
        rows.append(TableRow(start, tuple(cells), repaired))
    return rows


@dataclass(slots=True)
class _Readings:
    """What one channel read, row by row."""

    t_ms: list[int] = field(default_factory=list)
    v: list[float] = field(default_factory=list)
    repaired: list[int] = field(default_factory=list)
    periods_ms: list[int] = field(default_factory=list)


def _series(rows: Sequence[_TimedRow], wanted: frozenset[str], since_ms: int, end_ms: int) -> list[Series]:
    found: dict[_Place, _Readings] = {}
    for row in rows:
        for channel, value in zip(row.schema.channels, row.values, strict=True):
            if value is not None and (not wanted or channel.name in wanted):
                readings = found.setdefault((channel.name, channel.unit), _Readings())
                readings.t_ms.append(row.time_ms)
                readings.v.append(physical(channel, value))
                readings.repaired.append(int(row.is_repaired))
                readings.periods_ms.append(row.schema.period_s * 1000)
    return [
        Series(
            name=name,
            unit=unit,
            t_ms=each.t_ms,
            v=each.v,
            repaired=each.repaired if any(each.repaired) else (),
            gaps_ms=_gaps(each.t_ms, each.periods_ms, since_ms, end_ms),
        )
        for (name, unit), each in sorted(found.items(), key=lambda item: item[0])
    ]


def _stepped_series(steps: Steps, since_ms: int, end_ms: int) -> list[Series]:
    series = []
    for (name, unit), of_channel in sorted(steps.found.items(), key=lambda item: item[0]):
        starts = sorted(of_channel)
        each = [of_channel[start] for start in starts]
        series.append(
            Series(
                name=name,
                unit=unit,
                t_ms=starts,
                v=[step.mean for step in each],
                low=[step.low for step in each],
                high=[step.high for step in each],
                last=[step.last for step in each],
                count=[step.count for step in each],
                repaired=[step.repaired for step in each] if any(step.repaired for step in each) else (),
                gaps_ms=_gaps(starts, [steps.step_ms] * len(starts), since_ms, end_ms, periods_max=1.0),
            )
        )
    return series


def _gaps(
    times_ms: Sequence[int],
    periods_ms: Sequence[int],
    since_ms: int,
    end_ms: int,
    *,
    periods_max: float = _GAP_PERIODS,
) -> list[tuple[int, int]]:
    """Return the spans [from, to) of a page in which a channel has no value though several were due."""
    gaps = []
    covered_ms = since_ms
    for time_ms, period_ms in zip((*times_ms, end_ms), (*periods_ms, periods_ms[-1]), strict=True):
        if time_ms - covered_ms > (periods_max - 1) * period_ms:
            gaps.append((covered_ms, time_ms))
        covered_ms = max(covered_ms, time_ms + period_ms)
    return gaps
