"""How much is here, as the API shows it: gaps in the queue, channels by the hour, clocks that were set later."""

from __future__ import annotations

import pytest

from gateway.rollups import RollupTask
from store.fleet.evidence import TombstonePart
from tests.gateway.api.conftest import World
from tests.gateway.fleets import EPOCH, NOW_MS, NOW_S

PATH = "/v1/trucks/ke-arrow/coverage"


async def test_coverage_names_every_gap(world: World) -> None:
    truck = world.truck
    await truck.send(TombstonePart(EPOCH, ((8, 9),), "disk full", 40))
    truck.sequence = 12
    await truck.event("after.the.gap")
    shown = (await world.gateway.get(PATH)).json
    (epoch,) = shown["epochs"]
    assert epoch["missing"] == [[7, 7], [10, 12]]
    assert epoch["dropped"] == [[8, 9, "disk full"]]
    assert epoch["highest"] == 13
    assert (shown["batches"], shown["rows"]) == (1, 2)
    assert epoch["dropped_rows"] == 40


async def test_channels_are_counted_by_the_hour(world: World) -> None:
    before = (await world.gateway.get(PATH)).json
    assert (before["to_roll_up"], before["channels"]) == (1, [])
    await RollupTask(world.gateway.fleet).catch_up()
    shown = (await world.gateway.get(f"{PATH}?since={NOW_S - 7200}&until={NOW_S}")).json
    assert (shown["to_roll_up"], shown["step_s"]) == (0, 3600)
    assert [start % 3_600_000 for start in shown["starts_ms"]] == [0, 0, 0]
    battery, solar = shown["channels"]
    assert (battery["n"], battery["u"], sum(battery["count"]), sum(solar["count"])) == ("bat_v", "V", 2, 1)
    assert len(battery["count"]) == len(battery["due"]) == 3
    assert "repaired" not in battery


async def test_repaired_clocks_are_listed_by_boot(world: World) -> None:
    await world.truck.batch([(5, (2600, 1)), (65, (2600, 1))], boot=255)
    await world.gateway.fleet.set_clock("ke-arrow", 255, NOW_MS - 600_000)
    await RollupTask(world.gateway.fleet).catch_up()
    shown = (await world.gateway.get(PATH)).json
    assert shown["repaired_rows"] == 2
    assert shown["repaired"] == [
        {
            "boot": f"{255:016x}",
            "offset_ms": NOW_MS - 600_000,
            "batches": 1,
            "rows": 2,
            "first_ms": NOW_MS - 595_000,
            "last_ms": NOW_MS - 535_000,
        }
    ]
    assert sum(shown["channels"][0]["repaired"]) == 2


@pytest.mark.parametrize(("query", "step_s"), [("since=1700000000", 86_400), ("step=86400", 86_400), ("", 3_600)])
async def test_long_periods_are_counted_by_days(world: World, query: str, step_s: int) -> None:
    shown = (await world.gateway.get(f"{PATH}?{query}")).json
    assert shown["step_s"] == step_s
    assert len(shown["starts_ms"]) < 2_000


@pytest.mark.parametrize("query", ["since=0&until=1795000000", "step=3600&since=1700000000", "step=60"])
async def test_a_grid_without_end_is_refused(world: World, query: str) -> None:
    assert (await world.gateway.get(f"{PATH}?{query}")).status == 400
