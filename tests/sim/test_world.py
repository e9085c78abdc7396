"""A small simulated fleet in bad weather keeps its promises, and a seed always gives the same run."""

from __future__ import annotations

import asyncio

from tests.sim.faults import STORMY
from tests.sim.run import run
from tests.sim.world import DAY_S, Plan, World, world
from tests.sim.years import fleets


def test_promises_hold_in_bad_weather() -> None:
    outcome = run(Plan(seed=6, trucks=1, days=2), STORMY)
    assert outcome.failure is None, outcome.failure
    assert outcome.rows > 50


def test_a_seed_gives_the_same_run_to_the_last_datagram() -> None:
    first, second, other = (run(Plan(seed=seed, trucks=1, days=0.5), STORMY) for seed in (3, 3, 5))
    assert first.digest == second.digest
    assert first.steps > 30
    assert other.digest != first.digest


def test_a_coarse_plan_replays_too_in_a_process_of_its_own() -> None:
    # Each process of `fleets` begins anew: what an earlier run left behind would show.
    first, second = (list(fleets(0.001, first_seed=2, processes=1, trucks=1, days=2.0)) for _ in range(2))
    assert [each.failure for each in first] == [""]
    assert first[0].digest == second[0].digest
    assert first[0].rows > 5


def test_an_idle_fleet_is_seldom_awake() -> None:
    # Whatever polls needs a longer pause here (`tests.sim.machine`), or no year can be simulated.
    with world(Plan(seed=1, row_every_s=1e9, coarse=True)) as made:
        woken = made.run(_idle_day(made))
    assert woken < 600


async def _idle_day(made: World) -> int:
    await made.open()
    await asyncio.sleep(DAY_S)
    before = made.loop.instants
    await asyncio.sleep(DAY_S)
    return made.loop.instants - before
