"""A small simulated fleet in bad weather keeps its promises, and a seed always gives the same run."""

from __future__ import annotations

from tests.sim.faults import STORMY
from tests.sim.run import run
from tests.sim.world import Plan


def test_promises_hold_in_bad_weather() -> None:
    outcome = run(Plan(seed=6, trucks=1, days=2), STORMY)
    assert outcome.failure is None, outcome.failure
    assert outcome.rows > 50


def test_a_seed_gives_the_same_run_to_the_last_datagram() -> None:
    first, second, other = (run(Plan(seed=seed, trucks=1, days=0.5), STORMY) for seed in (3, 3, 5))
    assert first.digest == second.digest
    assert first.steps > 30
    assert other.digest != first.digest
