"""The simulation tests itself: each planted bug is found, by a seed under which the sound product keeps its promises.

`make sim ARGS=--planted` looks for each of them in harsh weather, from seed 1 on.
"""

from __future__ import annotations

import pytest

from tests.sim.planted import BUGS, found_quickly, run_quick


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    outcome = found_quickly(BUGS[name])
    assert outcome.failure is not None, f"{outcome.days:.1f} days and {outcome.lives} lives did not find: {name}"


def test_the_same_seed_finds_nothing_in_the_sound_product() -> None:
    bug = BUGS["rows cleared in another transaction"]
    outcome = run_quick(bug, bug.seed, planted=False)
    assert outcome.failure is None, outcome.failure
