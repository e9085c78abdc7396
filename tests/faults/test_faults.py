"""A seeded handful of failing calls in every run of the tests; `make faults` lets every one fail, in every way."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import inject
from tests.faults.calls import templates, try_one
from tests.faults.inject import FAULTS, Fault
from tests.faults.scenes import SCENES
from tests.powercut.nursery import Nursery

_RUNS_A_SCENE = 3
# About as many calls of a kind as the shortest scene makes: beyond its last one a fault hits nothing.
_N_MAX = {"write": 8, "fsync": 3, "rename": 1, "open": 6}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    if (reason := inject.why_not()) is not None:
        pytest.skip(reason)
    nursery = Nursery(("tests.faults.scenes",))
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def made(nursery: Nursery) -> Iterator[dict[str, Path]]:
    with templates(SCENES) as made:
        yield made


@pytest.mark.parametrize("name", sorted(SCENES))
def test_one_failing_call_loses_doubles_and_tears_nothing(name: str, nursery: Nursery, made: dict[str, Path]) -> None:
    chance = random.Random(name)
    outcome, wrong = try_one(nursery, SCENES[name], made[name], None)
    assert (outcome.end, wrong) == ("done", [])
    hits = 0
    for _ in range(_RUNS_A_SCENE):
        call = chance.choice(sorted(_N_MAX))
        fault = Fault(call, chance.choice(sorted(FAULTS)), chance.randint(1, _N_MAX[call]))
        outcome, wrong = try_one(nursery, SCENES[name], made[name], fault)
        assert wrong == [], f"{fault}: {outcome}"
        hits += outcome.was_hit
    assert hits >= _RUNS_A_SCENE // 2
