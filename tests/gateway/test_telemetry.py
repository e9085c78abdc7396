"""Batches decode to what the truck measured; pages neither lose nor repeat a row; steps add up."""

from __future__ import annotations

import random

import pytest

from gateway.rollups import RollupTask
from gateway.series import SamplesPage
from gateway.telemetry import Telemetry
from protocol.schema import Channel, Schema
from store.fleet.evidence import DAY_MS, HOUR_MS
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import Rows, add_truck

START_S = 1_794_960_000  # midnight UTC


def rows_at(start_s: int, count: int, *, first: int = 0) -> Rows:
    return [(start_s + 60 * n, (2600 + n + first, n % 7 * 10)) for n in range(count)]


async def read(
    fleet: FleetStore, since_s: int, until_s: int, *, step_s: int = 0, rows_max: int = 10_000, channels: tuple = ()
) -> SamplesPage:
    return await Telemetry(fleet).samples(
        "ke-arrow",
        channels=channels,
        since_ms=since_s * 1000,
        until_ms=until_s * 1000,
        step_s=step_s,
        rows_max=rows_max,
    )


async def test_rows_come_back_in_their_units(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S, (2612, 5)), (START_S + 60, (None, 7))])
    page = await read(fleet, START_S, START_S + 3600)
    assert page.next_ms is None
    battery, solar = page.series
    assert (battery.name, battery.unit, battery.t_ms, battery.v) == ("bat_v", "V", [START_S * 1000], [26.12])
    assert (solar.t_ms, solar.v) == ([START_S * 1000, START_S * 1000 + 60_000], [5.0, 7.0])


async def test_the_period_is_half_open_and_channels_are_chosen(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch(rows_at(START_S, 10))
    page = await read(fleet, START_S + 60, START_S + 240, channels=("pv_w", "no_such"))
    assert [each.name for each in page.series] == ["pv_w"]
    assert page.series[0].t_ms == [(START_S + 60 * n) * 1000 for n in (1, 2, 3)]


@pytest.mark.parametrize("rows_max", [1, 7, 59, 60, 1000])
async def test_pages_give_every_row_once_in_order_whatever_the_batches_order(fleet: FleetStore, rows_max: int) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    rows = list(rows_at(START_S, 60))
    shuffled = rows[:]
    random.Random(5).shuffle(shuffled)
    # Batches that overlap in time entirely: the worst order there is.
    for at in range(0, 60, 10):
        await truck.batch(sorted(shuffled[at : at + 10]))
    times: list[int] = []
    since_s: float = START_S
    for _ in range(70):
        page = await read(fleet, int(since_s), START_S + 86_400, rows_max=rows_max)
        assert len(page.series[0].t_ms) <= rows_max
        times += page.series[0].t_ms
        if page.next_ms is None:
            break
        since_s = page.next_ms / 1000
    assert times == [time * 1000 for time, _ in rows]


async def test_more_rows_of_one_time_than_a_page_holds_still_end(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    for value in range(5):
        await truck.batch([(START_S, (value, value))])
    await truck.batch([(START_S + 60, (9, 9))])
    page = await read(fleet, START_S, START_S + 3600, rows_max=2)
    assert sorted(page.series[1].v) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert page.next_ms == START_S * 1000 + 1


async def test_a_boots_times_are_shifted_once_its_clock_is_known(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(30, (2600, 1)), (90, (2601, 2))], boot=7)
    assert (await read(fleet, 0, START_S + 86_400)).series == []
    await fleet.set_clock("ke-arrow", 7, START_S * 1000)
    page = await read(fleet, START_S, START_S + 3600)
    assert page.series[0].t_ms == [(START_S + 30) * 1000, (START_S + 90) * 1000]


async def test_milliseconds_of_a_fast_schema_are_kept(fleet: FleetStore) -> None:
    schema = Schema((Channel("volts", "V", 10),), period_s=1, ticks_per_s=1000)
    truck = await add_truck(fleet)
    await truck.register(schema, 2)
    await truck.batch([(START_S * 1000 + 250, (5,)), (START_S * 1000 + 500, (6,))], schema=schema, number=2)
    page = await read(fleet, START_S, START_S + 1)
    assert page.series[0].t_ms == [START_S * 1000 + 250, START_S * 1000 + 500]
    assert page.series[0].v == [0.5, 0.6]


async def test_steps_hold_mean_extremes_last_and_count(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S + 60 * n, (2600 + n, None)) for n in range(10)])
    page = await read(fleet, START_S, START_S + 3600, step_s=300)
    (battery,) = page.series
    assert battery.t_ms == [START_S * 1000, (START_S + 300) * 1000]
    assert battery.v == pytest.approx([26.02, 26.07])
    assert (battery.low, battery.high, battery.last) == ([26.0, 26.05], [26.04, 26.09], [26.04, 26.09])
    assert battery.count == [5, 5]


async def test_hours_and_days_come_from_rollups_and_agree_with_the_rows(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    for hour in range(0, 26, 2):
        await truck.batch(rows_at(START_S + hour * 3600, 120, first=hour))
    assert await RollupTask(fleet).catch_up() == 13
    hours = await read(fleet, START_S, START_S + 26 * 3600, step_s=3600)
    rows = await read(fleet, START_S, START_S + 26 * 3600)
    for rolled, exact in zip(hours.series, rows.series, strict=True):
        assert (rolled.name, rolled.unit) == (exact.name, exact.unit)
        values = [
            [v for t, v in zip(exact.t_ms, exact.v, strict=True) if t - t % HOUR_MS == hour] for hour in rolled.t_ms
        ]
        assert rolled.v == pytest.approx([sum(each) / len(each) for each in values])
        assert (rolled.low, rolled.high) == ([min(each) for each in values], [max(each) for each in values])
        assert (rolled.last, rolled.count) == ([each[-1] for each in values], [len(each) for each in values])
    days = await read(fleet, START_S, START_S + 2 * 86_400, step_s=86_400)
    assert days.series[0].t_ms == [START_S * 1000, START_S * 1000 + DAY_MS]
    assert days.series[0].count == [1440, 120]
    quarter_days = await read(fleet, START_S, START_S + 86_400, step_s=6 * 3600)
    assert quarter_days.series[0].count == [360, 360, 360, 360]


async def test_steps_page_by_time(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch(rows_at(START_S, 100))
    page = await read(fleet, START_S, START_S + 6000, step_s=60, rows_max=40)
    assert len(page.series[0].t_ms) == 40
    assert page.next_ms == (START_S + 2400) * 1000


async def test_a_damaged_batch_is_left_out_and_the_rest_is_read(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch(rows_at(START_S, 5))
    await truck.batch(rows_at(START_S + 600, 5), body=b"\xff\xff\xff not a body")
    page = await read(fleet, START_S, START_S + 3600)
    assert len(page.series[0].v) == 5


async def test_two_units_of_one_name_are_two_series_in_rows_and_in_rollups(fleet: FleetStore) -> None:
    other = Schema((Channel("bat_v", "mV", 1),), period_s=60)
    truck = await add_truck(fleet)
    await truck.register()
    await truck.register(other, 2)
    await truck.batch([(START_S, (2600, 0))])
    await truck.batch([(START_S + 60, (26_100,))], schema=other, number=2)
    page = await read(fleet, START_S, START_S + 3600, channels=("bat_v",))
    assert [(each.unit, list(each.v)) for each in page.series] == [("V", [26.0]), ("mV", [26_100.0])]
    await RollupTask(fleet).catch_up()
    hours = await read(fleet, START_S, START_S + 3600, step_s=3600, channels=("bat_v",))
    assert [(each.unit, list(each.v), list(each.count)) for each in hours.series] == [
        ("V", [26.0], [1]),
        ("mV", [26_100.0], [1]),
    ]


async def test_a_span_without_values_is_a_gap(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S + 60 * n, (2600, 1 if n < 5 else None)) for n in (0, 1, 2, 3, 4, 30, 31)])
    page = await read(fleet, START_S, START_S + 3600)
    gaps = {
        each.name: [((a // 1000 - START_S) // 60, (b // 1000 - START_S) // 60) for a, b in each.gaps_ms]
        for each in page.series
    }
    assert gaps == {"bat_v": [(5, 30), (32, 60)], "pv_w": [(5, 60)]}
    stepped = await read(fleet, START_S, START_S + 3600, step_s=600, channels=("bat_v",))
    assert stepped.series[0].t_ms == [(START_S + 600 * n) * 1000 for n in (0, 3)]
    assert stepped.series[0].gaps_ms == [
        ((START_S + 600) * 1000, (START_S + 1800) * 1000),
        ((START_S + 2400) * 1000, (START_S + 3600) * 1000),
    ]


async def test_values_of_a_clock_that_was_set_later_are_marked_and_counted(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S, (2600, 1))])
    await truck.batch([(90, (2601, None)), (150, (2602, 3))], boot=7)
    await fleet.set_clock("ke-arrow", 7, START_S * 1000)
    await RollupTask(fleet).catch_up()
    battery, solar = (await read(fleet, START_S, START_S + 3600)).series
    assert (battery.repaired, solar.repaired) == ([0, 1, 1], [0, 1])
    for step_s in (600, 3600):
        battery, solar = (await read(fleet, START_S, START_S + 3600, step_s=step_s)).series
        assert (battery.repaired, solar.repaired) == ([2], [1])


async def table_of(fleet: FleetStore, since_s: int, until_s: int, step_s: int = 0, channels: tuple = ()) -> tuple:
    found = await Telemetry(fleet).table(
        "ke-arrow", channels=channels, since_ms=since_s * 1000, until_ms=until_s * 1000, step_s=step_s
    )
    return found.columns, [row for page in [page async for page in found.pages] for row in page]


async def test_a_table_joins_channels_of_every_schema_that_the_period_has(fleet: FleetStore) -> None:
    other = Schema((Channel("door", "", 1),), period_s=60)
    truck = await add_truck(fleet)
    await truck.register()
    await truck.register(other, 2)
    await truck.batch([(START_S, (2600, 5)), (START_S + 60, (2700, None))])
    await truck.batch([(START_S + 60, (1,)), (START_S + 90, (0,))], schema=other, number=2)
    columns, rows = await table_of(fleet, START_S, START_S + 3600)
    assert [(each.name, each.unit, each.figure) for each in columns] == [
        ("bat_v", "V", ""),
        ("door", "", ""),
        ("pv_w", "W", ""),
    ]
    assert [(row.time_ms // 1000 - START_S, row.values) for row in rows] == [
        (0, (26.0, None, 5.0)),
        (60, (27.0, 1.0, None)),
        (90, (None, 0.0, None)),
    ]
    columns, rows = await table_of(fleet, START_S, START_S + 3600, channels=("door",))
    assert [row.values for row in rows] == [(1.0,), (0.0,)]
    assert await table_of(fleet, 0, 1000) == ([], [])


async def test_a_table_of_many_pages_has_every_row_once(fleet: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    for hour in range(4):
        await truck.batch(rows_at(START_S + 3600 * hour, 60))
    await truck.batch(rows_at(START_S + 3600, 60))  # other values of times that are there already
    whole = await table_of(fleet, 0, START_S + 86_400)
    assert len(whole[1]) == 300
    stepped = await table_of(fleet, 0, START_S + 86_400, 120)
    assert [row.time_ms for row in whole[1]] == sorted(row.time_ms for row in whole[1])
    monkeypatch.setattr("gateway.telemetry._TABLE_STEPS", 7)
    monkeypatch.setattr("gateway.telemetry._PAGE_BATCHES", 1)
    assert await table_of(fleet, 0, START_S + 86_400) == whole
    assert await table_of(fleet, 0, START_S + 86_400, 120) == stepped
    monkeypatch.setattr("gateway.telemetry._WAITING_ROWS_MAX", 1)
    assert sorted(row.time_ms for row in (await table_of(fleet, 0, START_S + 86_400))[1]) == [
        row.time_ms for row in whole[1]
    ]


async def test_a_row_without_values_stands_where_a_gap_between_steps_begins(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch(rows_at(START_S, 1))
    await truck.batch(rows_at(START_S + 7 * 3600, 1))
    await RollupTask(fleet).catch_up()
    columns, rows = await table_of(fleet, 0, START_S + 86_400, 3600, ("bat_v",))
    assert [each.figure for each in columns] == ["", "min", "max", "last", "count"]
    assert [(row.time_ms // 1000 - START_S) // 3600 for row in rows] == [0, 1, 7]
    assert [row.values for row in rows] == [(26.0, 26.0, 26.0, 26.0, 1), (None,) * 5, (26.0, 26.0, 26.0, 26.0, 1)]
