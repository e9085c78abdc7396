"""Every stored batch is rolled up once: over crashes, races and damage."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.decoding import SchemaCache
from gateway.rollups import RollupTask
from gateway.steps import roll_up
from protocol.summary import Summary, encode_summary, summarise, summary_schema
from store.fleet.errors import RolledUpError
from store.fleet.evidence import DAY_MS, HOUR_MS, Rollup
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import SCHEMA, Rows, Truck, add_truck

START_S = 1_794_960_000


async def hours(fleet: FleetStore) -> dict[str, Rollup]:
    found = await fleet.rollups("ke-arrow", None, START_S * 1000, START_S * 1000 + HOUR_MS)
    return {each.channel: each for each in found}


async def test_batches_are_added_once_however_often_the_task_runs(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S, (2600, 5)), (START_S + 60, (2700, None))])
    task = RollupTask(fleet)
    assert [await task.catch_up() for _ in range(3)] == [1, 0, 0]
    found = await hours(fleet)
    assert (found["bat_v"].count, found["bat_v"].minimum, found["bat_v"].maximum) == (2, 26.0, 27.0)
    assert (found["pv_w"].count, found["pv_w"].sum, found["pv_w"].last) == (1, 5.0, 5.0)


async def test_later_batches_of_an_hour_are_merged_and_late_ones_do_not_become_the_last_value(
    fleet: FleetStore,
) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    task = RollupTask(fleet)
    for time_s, value in ((START_S + 600, 2600), (START_S + 60, 2500)):
        await truck.batch([(time_s, (value, 0))])
        await task.catch_up()
    found = await hours(fleet)
    assert (found["bat_v"].count, found["bat_v"].last, found["bat_v"].minimum) == (2, 26.0, 25.0)


async def test_a_lost_race_adds_nothing_twice(fleet: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S, (2600, 5))])
    add = fleet.add_rollups
    raced = []

    async def slower(*what: Any, **told: Any) -> None:
        if not raced:
            raced.append(True)
            await add(*what, **told)  # the other gateway commits first
        await add(*what, **told)

    monkeypatch.setattr(fleet, "add_rollups", slower)
    assert await RollupTask(fleet).catch_up() == 0
    assert (await hours(fleet))["bat_v"].count == 1
    with pytest.raises(RolledUpError):
        await add([(await fleet.batches("ke-arrow", 0, START_S * 2000))[0].key], [])


async def test_a_damaged_batch_does_not_hold_up_the_rest(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S, (2600, 5))], body=b"\xff\xff\xff")
    await truck.batch([(START_S + 60, (2601, 5))])
    assert await RollupTask(fleet).catch_up() == 2
    assert (await hours(fleet))["bat_v"].count == 1
    assert await fleet.pending_rollups() == []


async def test_a_batch_gets_its_exact_times_when_it_is_decoded(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    rows = [(START_S, (2600, 5)), (START_S + 600, (2601, 5)), (START_S - 60, (2602, 5))]
    await truck.batch(rows)
    (before,) = await fleet.pending_rollups()
    await fleet.unpark([])
    await RollupTask(fleet).catch_up()
    (after,) = await fleet.batches("ke-arrow", 0, START_S * 2000)
    assert before.id == after.id
    assert (after.first_ms, after.last_ms) == ((START_S - 60) * 1000, (START_S + 600) * 1000)


async def test_a_batch_that_does_not_decode_is_put_aside(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S, (2600, 5))], body=b"\xff\xff\xff")
    assert await RollupTask(fleet).catch_up() == 1
    assert [each.sequence for each in await fleet.quarantined("ke-arrow")] == [2]


# -- summaries ---------------------------------------------------------------------------------------------------------

FIRST: Rows = [(START_S + 60 * at, (2600 + at, at)) for at in range(20)]
SECOND: Rows = [(START_S + 1200 + 60 * at, (2550 - at, None)) for at in range(70)]
ROLLED = {  # of the first hour, by channel: count, minimum, maximum, sum, last
    "bat_v": (60, 25.11, 26.19, sum(v for _, (v, _) in [*FIRST, *SECOND[:40]]) / 100, 25.11),
    "pv_w": (20, 0.0, 19.0, 190.0, 19.0),
}


async def summary(truck: Truck, batches: dict[int, Rows]) -> None:
    """Send a summary of batches that have these sequences."""
    told = Summary(tuple((sequence, summarise(SCHEMA, rows)) for sequence, rows in sorted(batches.items())))
    schema = summary_schema(SCHEMA)
    rows = [row for each in batches.values() for row in each]
    await truck.batch(rows, schema=schema, number=2, body=encode_summary(schema, told))


@pytest.fixture
async def truck(fleet: FleetStore) -> Truck:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.register(summary_schema(SCHEMA), 2)
    truck.sequence = 10
    return truck


async def first_hour(fleet: FleetStore) -> dict[str, tuple[float, ...]]:
    return {
        name: (each.count, each.minimum, each.maximum, pytest.approx(each.sum), each.last)
        for name, each in (await hours(fleet)).items()
    }


@pytest.mark.parametrize("order", ["ds", "sd", "d|s", "s|d", "s|s", "s|s|d", "1|s|d", "12|s"])
async def test_detail_and_summary_count_once_in_whatever_order_they_come(
    fleet: FleetStore, truck: Truck, order: str
) -> None:
    """s: the summary of both batches, d: both batches, 1 and 2: one of them, |: all that is here is rolled up."""
    task = RollupTask(fleet)
    rows = {101: FIRST, 102: SECOND}
    for at, step in enumerate([*order, "|"]):
        truck.sequence = 200 + at
        if step == "|":
            await task.catch_up()
        elif step == "s":
            await summary(truck, rows)
        else:
            for sequence in {"d": (101, 102), "1": (101,), "2": (102,)}[step]:
                truck.sequence = sequence - 1
                await truck.batch(rows[sequence])
    assert await first_hour(fleet) == ROLLED
    days = await fleet.rollups("ke-arrow", None, 0, 1 << 50, DAY_MS)
    assert sum(each.count for each in days if each.channel == "bat_v") == 90


async def test_a_summary_has_no_rows_of_its_own(fleet: FleetStore, truck: Truck) -> None:
    await summary(truck, {101: FIRST})
    (record,) = await fleet.batches("ke-arrow", 0, 1 << 50)
    assert (await SchemaCache(fleet).decode([record]))[0][1].rows == ()


async def test_a_detail_that_is_rolled_up_by_another_gateway_meanwhile_is_not_told_again(
    fleet: FleetStore, truck: Truck, monkeypatch: pytest.MonkeyPatch
) -> None:
    await summary(truck, {101: FIRST, 102: SECOND})
    add, raced = fleet.add_rollups, []

    async def slower(*what: Any, **told: Any) -> None:
        if not raced:
            raced.append(True)
            truck.sequence = 100
            await truck.batch(FIRST)
            (waiting,) = [each for each in await fleet.pending_rollups() if each.key.sequence == 101]
            (decoded,) = await SchemaCache(fleet).decode([waiting])
            await add([waiting.key], roll_up([("ke-arrow", decoded[1])]))
        await add(*what, **told)

    monkeypatch.setattr(fleet, "add_rollups", slower)
    task = RollupTask(fleet)
    assert await task.catch_up() == 1
    truck.sequence = 101
    await truck.batch(SECOND)
    await task.catch_up()
    assert await first_hour(fleet) == ROLLED


async def test_more_batches_than_one_statement_can_ask_for_stop_nothing(
    fleet: FleetStore, truck: Truck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.fleet.rollups._KEYS_MAX", 7)
    for first in (1_000, 1_010):
        await summary(truck, {first + each: FIRST[:1] for each in range(20)})
    assert await RollupTask(fleet).catch_up() == 2
    assert (await hours(fleet))["bat_v"].count == 30
