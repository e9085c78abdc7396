"""Rollups: each batch is added once, with its mark, or not at all."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from store.fleet.errors import RolledUpError
from store.fleet.evidence import DAY_MS, HOUR_MS, IngestItem, Rollup
from store.fleet.fleet import FleetStore

Make = Callable[..., IngestItem]
ONE = Rollup("ke-arrow", "pv.power", HOUR_MS, 0, 2, 1.0, 3.0, 4.0, 3.0, 100)


@pytest.fixture(autouse=True)
async def _batches(enrol: Callable, fleet: FleetStore, schema_item: IngestItem, item: Make) -> None:
    await enrol()
    await fleet.ingest([schema_item, item(2), item(3, epoch=(1 << 64) - 2), item(4)])


async def test_values_are_merged_and_batches_leave_the_list(fleet: FleetStore) -> None:
    first, second, third = [batch.key for batch in await fleet.pending_rollups()]
    assert [first.sequence, second.sequence, third.sequence] == [2, 3, 4]
    await fleet.add_rollups([first, second], [ONE])
    earlier = replace(ONE, count=1, minimum=-5.5, maximum=0.5, sum=-5.5, last=-5.5, last_ms=50)
    await fleet.add_rollups([third], [earlier])
    (merged,) = await fleet.rollups("ke-arrow", None, 0, HOUR_MS)
    assert merged == replace(ONE, count=3, minimum=-5.5, sum=-1.5)
    assert merged.mean == -0.5
    assert await fleet.pending_rollups() == []


async def test_adding_a_batch_again_adds_nothing(fleet: FleetStore) -> None:
    keys = [batch.key for batch in await fleet.pending_rollups()]
    await fleet.add_rollups(keys[:1], [ONE])
    with pytest.raises(RolledUpError, match="1 of 3"):
        await fleet.add_rollups(keys, [ONE])
    (kept,) = await fleet.rollups("ke-arrow", None, 0, 1)
    assert kept.count == 2
    assert [batch.key for batch in await fleet.pending_rollups()] == keys[1:]


async def test_two_gateways_that_roll_up_the_same_batches_add_them_once(fleet: FleetStore, other: FleetStore) -> None:
    keys = [batch.key for batch in await fleet.pending_rollups()]
    both = await asyncio.gather(*(store.add_rollups(keys, [ONE]) for store in (fleet, other)), return_exceptions=True)
    assert [type(each) for each in both if each is not None] == [RolledUpError]
    (kept,) = await fleet.rollups("ke-arrow", None, 0, 1)
    assert kept.count == 2


async def test_values_of_two_units_are_apart(fleet: FleetStore) -> None:
    await fleet.add_rollups([], [replace(ONE, unit="W"), replace(ONE, unit="kW", repaired=1, period_s=10)])
    await fleet.add_rollups([], [replace(ONE, unit="W", repaired=2, period_s=300)])
    found = {each.unit: each for each in await fleet.rollups("ke-arrow", None, 0, 1)}
    assert found == {
        "W": replace(ONE, unit="W", count=4, sum=8.0, repaired=2, period_s=60),
        "kW": replace(ONE, unit="kW", repaired=1, period_s=10),
    }


async def test_of_each_channel_the_newest_value_is_known(fleet: FleetStore, enrol: Callable) -> None:
    await enrol("zm-patel")
    newer = replace(ONE, start_ms=HOUR_MS, last=9.0, last_ms=HOUR_MS + 5)
    await fleet.add_rollups([], [newer, replace(ONE, unit="kW")])
    await fleet.add_rollups([], [ONE, replace(ONE, truck="zm-patel", last=-2.0)])
    found = await fleet.latest_values()
    assert [(each.truck, each.unit, each.time_ms, each.value) for each in found] == [
        ("ke-arrow", "", HOUR_MS + 5, 9.0),
        ("ke-arrow", "kW", 100, 3.0),
        ("zm-patel", "", 100, -2.0),
    ]
    assert await fleet.count_latest_values() == 3
    assert await fleet.latest_values(after=("ke-arrow", "pv.power", "kW")) == found[2:]
    assert await fleet.latest_values(truck="ke-arrow", limit=1) == found[:1]


async def test_rollups_are_found_by_channel_step_and_time(fleet: FleetStore) -> None:
    rows = [
        replace(ONE, channel=channel, step_ms=step_ms, start_ms=start_ms)
        for channel in ("a", "b")
        for step_ms, start_ms in ((HOUR_MS, 0), (HOUR_MS, HOUR_MS), (DAY_MS, 0))
    ]
    await fleet.add_rollups([], rows)
    assert await fleet.channels_of("ke-arrow") == ["a", "b"]
    found = await fleet.rollups("ke-arrow", ["b"], 0, 2 * HOUR_MS)
    assert [(each.channel, each.start_ms) for each in found] == [("b", 0), ("b", HOUR_MS)]
    assert len(await fleet.rollups("ke-arrow", None, HOUR_MS, 2 * HOUR_MS)) == 2
    assert len(await fleet.rollups("ke-arrow", None, 0, 1, DAY_MS)) == 2
    assert await fleet.rollups("zm-patel", None, 0, 1) == []
