"""Coverage by channel and hour equals what was sent and kept, gap by gap."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.coverage import channel_coverage
from gateway.rollups import RollupTask
from protocol.schema import Channel, Schema
from protocol.summary import Summary, encode_summary, summarise, summary_schema
from store.fleet.evidence import DAY_MS, HOUR_MS
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import SCHEMA, add_truck

START_S = 1_794_960_000  # midnight UTC
START_MS = START_S * 1000


async def covered(fleet: FleetStore, hours: int, *, now_ms: int | None = None, step_ms: int = HOUR_MS) -> dict:
    end_ms = START_MS + hours * HOUR_MS
    found = await channel_coverage(
        fleet, "ke-arrow", since_ms=START_MS, until_ms=end_ms, step_ms=step_ms, now_ms=now_ms or end_ms
    )
    return {each.name: each for each in found}


@pytest.mark.parametrize("seed", [1, 2])
async def test_counts_equal_the_truth_whatever_was_lost_and_in_whatever_order_it_came(
    fleet: FleetStore, seed: int
) -> None:
    seeded = random.Random(seed)
    truck = await add_truck(fleet)
    await truck.register()
    rows = [(START_S + 60 * n, (2600 + n, None if seeded.random() < 0.1 else n)) for n in range(48 * 60)]
    chunks = [rows[at : at + 45] for at in range(0, len(rows), 45)]
    seeded.shuffle(chunks)
    kept = [chunk for number, chunk in enumerate(chunks) if number % 3 or chunk[0][0] == START_S]
    for chunk in kept:
        await truck.batch(chunk)
    truth = {"bat_v": Counter(), "pv_w": Counter()}
    for time_s, (battery, solar) in (row for chunk in kept for row in chunk):
        hour = (time_s - START_S) // 3600
        truth["bat_v"][hour] += battery is not None
        truth["pv_w"][hour] += solar is not None
    await RollupTask(fleet).catch_up()
    found = await covered(fleet, 48)
    for name, counts in truth.items():
        assert found[name].count == [counts[hour] for hour in range(48)]
    assert found["bat_v"].due[1:] == [60] * 47
    days = await covered(fleet, 48, step_ms=DAY_MS)
    assert days["bat_v"].count == [sum(found["bat_v"].count[:24]), sum(found["bat_v"].count[24:])]


async def test_nothing_is_due_before_the_first_value_nor_after_now(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S + 2 * 3600 + 1800 + 60 * n, (2600, 1)) for n in range(30)])
    await RollupTask(fleet).catch_up()
    found = (await covered(fleet, 8, now_ms=START_MS + 5 * HOUR_MS + 600_000))["bat_v"]
    assert found.count == [0, 0, 30, 0, 0, 0, 0, 0]
    assert found.due == [0, 0, 30, 60, 60, 10, 0, 0]


async def test_what_is_due_follows_the_period_of_the_schema(fleet: FleetStore) -> None:
    slower = Schema((Channel("bat_v", "V", 100),), period_s=300)
    truck = await add_truck(fleet)
    await truck.register()
    await truck.register(slower, 2)
    await truck.batch([(START_S + 60 * n, (2600, 1)) for n in range(120)])
    await truck.batch([(START_S + 4 * 3600 + 300 * n, (2600,)) for n in range(12)], schema=slower, number=2)
    await RollupTask(fleet).catch_up()
    found = (await covered(fleet, 7))["bat_v"]
    assert found.count == [60, 60, 0, 0, 12, 0, 0]
    assert found.due == [60, 60, 60, 60, 12, 12, 12]


async def test_hours_of_which_only_summaries_tell_count_what_they_stand_for_until_the_detail_comes(
    fleet: FleetStore,
) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    derived = summary_schema(SCHEMA)
    await truck.register(derived, 2)
    hours = [[(START_S + 3600 * hour + 60 * n, (2600, n)) for n in range(0, 60, hour + 1)] for hour in range(3)]
    await truck.batch(hours[0])
    told = Summary(tuple((20 + at, summarise(SCHEMA, rows)) for at, rows in enumerate(hours[1:])))
    await truck.batch(hours[1] + hours[2], schema=derived, number=2, body=encode_summary(derived, told))
    await RollupTask(fleet).catch_up()
    summarised = (await covered(fleet, 3))["bat_v"]
    assert (summarised.count, summarised.due) == ([60, 30, 20], [60, 60, 60])
    truck.sequence = 19
    for rows in hours[1:]:
        await truck.batch(rows)
    await RollupTask(fleet).catch_up()
    assert (await covered(fleet, 3))["bat_v"].count == [60, 30, 20]


async def test_values_whose_clock_was_set_later_are_counted_apart(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(START_S, (2600, 1))])
    await truck.batch([(60 * n, (2600, None)) for n in range(30)], boot=3)
    assert (await fleet.coverage("ke-arrow", 0, START_MS + DAY_MS)).timeless == 1
    await fleet.set_clock("ke-arrow", 3, START_MS + HOUR_MS)
    await RollupTask(fleet).catch_up()
    found = await covered(fleet, 2)
    assert (found["bat_v"].count, found["bat_v"].repaired) == ([1, 30], [0, 30])
    assert found["pv_w"].repaired == [0, 0]
    (boot,) = (await fleet.coverage("ke-arrow", 0, START_MS + DAY_MS)).repaired
    assert (boot.boot, boot.offset_ms, boot.batches, boot.rows) == (3, START_MS + HOUR_MS, 1, 30)
    assert (boot.first_ms, boot.last_ms) == (START_MS + HOUR_MS, START_MS + HOUR_MS + 29 * 60_000)
