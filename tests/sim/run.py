"""One run: a world, its troubles, its checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from tests.sim.checks import Checks
from tests.sim.faults import Faults, Troubles
from tests.sim.history import CheckFailed
from tests.sim.observe import watching
from tests.sim.world import DAY_S, Plan, World, world


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    seed: int
    failure: CheckFailed | None
    digest: str
    steps: int
    days: float
    rows: int
    lives: int


def run(
    plan: Plan, troubles: Troubles, *, planted: Callable[[], AbstractContextManager[None]] | None = None
) -> Outcome:
    """Simulate; a failed check is in the outcome. `planted` puts a bug into the product meanwhile."""
    with (planted or nullcontext)(), world(plan) as made, watching(made):
        failure = None
        try:
            made.run(_live(made, troubles))
        except CheckFailed as failed:
            failure = failed
        return Outcome(
            plan.seed,
            failure,
            made.history.digest,
            made.history.steps,
            made.loop.now_s / DAY_S,
            sum(len(each.rows_accepted) for each in made.truth.of.values()),
            sum(each.lives for each in made.trucks.values()),
        )


async def _live(made: World, troubles: Troubles) -> None:
    await made.open()
    checks = Checks(made)
    faults = Faults(made, troubles, checks)
    await faults.start()
    end_s = made.loop.now_s + made.plan.days * DAY_S
    while made.loop.now_s < end_s:
        await asyncio.sleep(min(86_400.0 if made.plan.coarse else 14_400.0, end_s - made.loop.now_s))
        await checks.now()
    await faults.stop()
    await checks.end(days=made.plan.rest_days)
