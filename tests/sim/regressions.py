"""Seeds that found a bug of the product, each with what it found: none of them may find it again.

`make sim ARGS=--regressions` runs them all; `make test` the quick ones. A seed is kept with the troubles under which it
was found, since the least of them run the fastest; with the mending taken out it finds its bug again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from tests.sim.faults import CALM, STORMY
from tests.sim.run import Outcome, run
from tests.sim.world import Plan


@dataclass(frozen=True, slots=True)
class Regression:
    """A seed, its troubles (mean distance in days) and what it found."""

    found: str
    seed: int
    days: float = 4.0
    troubles: Mapping[str, float] = field(default_factory=dict)
    is_quick: bool = False

    def run(self) -> Outcome:
        """Run it."""
        return run(Plan(seed=self.seed, days=self.days), replace(CALM, **self.troubles))


_STORMY = asdict(STORMY)
_HARSHER = {
    "full_disk": 4.0,
    "bit_rot": 5.0,
    "put_back": 8.0,
    "clone": 8.0,
    "gateway_restore": 4.0,
    "gateway_skew": 5.0,
    "root": 4.0,
    "rotation": 4.0,
    "outage": 1.0,
    "power_cut": 1.0,
}
REGRESSIONS: tuple[Regression, ...] = (
    Regression(
        "a copy of a truck leaves its report of the desired state behind for ever",
        seed=1,
        troubles={"clone": 1.0, "weather": 0.5, "config": 1.0, "content": 1.0},
    ),
    Regression(
        "a rotted frame of the write-ahead log undoes the commits behind it, and a row comes twice",
        seed=9,
        days=3.0,
        troubles={"bit_rot": 0.7, "power_cut": 0.7, "outage": 1.0},
        is_quick=True,
    ),
    Regression(
        "a wrong clock has the copies thrown away that a restored gateway needs again",
        seed=2,
        days=3.0,
        troubles={"gateway_skew": 0.7, "power_cut": 0.7, "gateway_restore": 1.5},
        is_quick=True,
    ),
    Regression(
        "a rotted name in a database's schema ends every start of the daemon",
        seed=25,
        troubles={"bit_rot": 0.7, "power_cut": 0.7, "outage": 1.0, "weather": 0.3, "config": 1.0},
    ),
    Regression(
        "a restored gateway with a slow clock names a desired state for ever that the truck takes for an older one",
        seed=130,
        days=6.0,
        troubles={**_STORMY, **_HARSHER},
    ),
    Regression(
        "a truck whose old image was put back is not told what is desired of it",
        seed=146,
        days=6.0,
        troubles={**_STORMY, **_HARSHER},
    ),
)
