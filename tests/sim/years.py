"""Many simulated years: fleets of one seed each, side by side in processes, in the troubles of ordinary years.

The trucks and their gateway are the whole product, as in `make sim`; what differs is the plan: rows every three hours,
a batch a day, timers that look seldom, and troubles that come a tenth as often as in the default weather (a power cut
a truck every twenty days, an outage a link every twenty).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from itertools import count, islice
from multiprocessing import get_context

from tests.sim.faults import STORMY, Troubles
from tests.sim.run import run
from tests.sim.world import Plan

DAYS_A_YEAR = 365.25
TRUCKS, DAYS, ROW_EVERY_S = 20, 60.0, 10_800.0
ORDINARY = Troubles(**{each.name: 10 * getattr(STORMY, each.name) for each in fields(Troubles)})


@dataclass(frozen=True, slots=True)
class Fleet:
    """What came of one seed; `core_s` is all the processor time of its process. `failure` is empty when all held."""

    seed: int
    years: float
    rows: int
    lives: int
    steps: int
    digest: str
    core_s: float
    failure: str


def plan_of(seed: int, *, trucks: int = TRUCKS, days: float = DAYS) -> Plan:
    """Return the plan of one seed."""
    return Plan(seed=seed, trucks=trucks, days=days, row_every_s=ROW_EVERY_S, coarse=True)


def simulate(seed: int, trucks: int = TRUCKS, days: float = DAYS) -> Fleet:
    """Simulate one fleet, in a process that is used for nothing else."""
    outcome = run(plan_of(seed, trucks=trucks, days=days), ORDINARY)
    return Fleet(
        seed,
        outcome.days * trucks / DAYS_A_YEAR,
        outcome.rows,
        outcome.lives,
        outcome.steps,
        outcome.digest,
        time.process_time(),
        "" if outcome.failure is None else str(outcome.failure),
    )


def fleets(
    years: float, *, first_seed: int, processes: int, trucks: int = TRUCKS, days: float = DAYS
) -> Iterator[Fleet]:
    """Yield fleets as they end, until so many truck-years are simulated."""
    # A new interpreter a fleet: sets have the same order in each, and nothing of one run is left in the next.
    os.environ["PYTHONHASHSEED"] = "0"
    done, seeds = 0.0, count(first_seed)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        under_way: set[Future[Fleet]] = set()
        while done < years:
            under_way |= {
                pool.submit(simulate, seed, trucks, days) for seed in islice(seeds, processes - len(under_way))
            }
            ended = next(as_completed(under_way))
            under_way.discard(ended)
            fleet = ended.result()
            done += fleet.years
            yield fleet
