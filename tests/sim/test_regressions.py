"""What a seed has once found it does not find again; `make sim ARGS=--regressions` runs the long ones too."""

from __future__ import annotations

import pytest

from tests.sim.regressions import REGRESSIONS, Regression


@pytest.mark.parametrize("regression", [each for each in REGRESSIONS if each.is_quick], ids=lambda each: each.found)
def test_a_bug_that_was_found_stays_mended(regression: Regression) -> None:
    outcome = regression.run()
    assert outcome.failure is None, outcome.failure
