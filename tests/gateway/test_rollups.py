"""Every stored batch is rolled up once: over crashes, races and damage."""

from __future__ import annotations

import pytest

from gateway.rollups import RollupTask
from store.fleet.errors import RolledUpError
from store.fleet.evidence import HOUR_MS, Rollup
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import add_truck

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

    async def slower(keys, values, spans) -> None:
        if not raced:
            raced.append(True)
            await add(keys, values, spans)  # the other gateway commits first
        await add(keys, values, spans)

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
