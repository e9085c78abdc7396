"""A truck that hears nothing for ninety days, with room on its disk for twenty: what goes, goes as the policy says.

Detail is folded into hourly summaries before anything is dropped, whatever went is named by a tombstone exactly, and
what the gateway shows afterwards, hour by hour, is what is true.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import edge.daemon
import store.database
from store.fleet.evidence import HOUR_MS
from tests.gateway.fleets import NOW_MS
from tests.sim.checks import Checks
from tests.sim.observe import watching
from tests.sim.truck import SimTruck
from tests.sim.world import DAY_S, Plan, World, world

_FOREVER_MS = 1 << 60
_NAME = "truck-0"
SHARE_KB = 500  # for about twenty days of such a truck's detail


@dataclass(frozen=True, slots=True)
class Silence:
    """What came of it, in rows: taken by the truck, come in detail, told by summaries alone, dropped, refused."""

    days: float
    full_after_days: float | None
    taken: int
    detail: int
    shown: int
    dropped: int
    refused: int

    @property
    def summarised(self) -> int:
        """Rows of which only a summary tells."""
        return self.shown - self.detail


def keep_silent(*, seed: int = 1, days: float = 90.0, rows_a_day: int = 960, share_kb: int = SHARE_KB) -> Silence:
    """Simulate it; raise `CheckFailed` when a promise is broken."""
    plan = Plan(seed=seed, trucks=0, days=days, row_every_s=DAY_S / rows_a_day, coarse=True)
    with _small_shares(), world(plan) as made, watching(made):
        found: Silence = made.run(_silence(made, share_kb))
        return found


@contextmanager
def _small_shares() -> Iterator[None]:
    """Measure shares of the disk in kilobytes: years of rows would have to be made to fill what a truck has."""
    before = edge.daemon._MB, store.database.SHARE_BYTES_MIN
    edge.daemon._MB, store.database.SHARE_BYTES_MIN = 1_000, 0  # type: ignore[misc]
    try:
        yield
    finally:
        edge.daemon._MB, store.database.SHARE_BYTES_MIN = before  # type: ignore[misc]


async def _silence(made: World, share_kb: int) -> Silence:
    await made.open()
    settings = {"state_mb_max": share_kb, "retry_s_max": 43_200, "batch_age_s": 21_600}
    truck = made.add_truck(_NAME, weather_channels=12, settings=settings)
    await made.admit(truck)
    checks = Checks(made)
    await asyncio.sleep(DAY_S / 2)
    for link in made.network.links.values():
        link.state.alive = False
    full_after_days = None
    for day in range(round(made.plan.days)):
        await asyncio.sleep(DAY_S)
        await checks.now()
        if full_after_days is None and _makes_room(made):
            full_after_days = float(day + 1)
    for link in made.network.links.values():
        link.state.alive = True
    await checks.end(days=20.0)
    return await _shown(made, truck, full_after_days)


def _makes_room(made: World) -> bool:
    return any(kind.name == "TOMBSTONE" for kind, _ in made.truth.parcels.values())


async def _shown(made: World, truck: SimTruck, full_after_days: float | None) -> Silence:
    """Compare what the gateway shows, hour by hour, with what is true."""
    gateway = made.office.gateway
    assert gateway is not None
    await asyncio.sleep(DAY_S)  # the rollups come round
    fleet = gateway.fleet
    truth = made.truth.of[_NAME]
    true = Counter((NOW_MS + round(at_s * 1000)) // HOUR_MS for at_s in truth.rows_accepted.values())
    rollups = await fleet.rollups(_NAME, ["serial"], 0, _FOREVER_MS, HOUR_MS)
    shown = Counter({each.start_ms // HOUR_MS: each.count for each in rollups})
    coverage = await fleet.coverage(_NAME, -_FOREVER_MS, _FOREVER_MS)
    dropped = sum(each.dropped_rows for each in coverage.epochs)
    for hour, count in shown.items():
        # A row of the very end of an hour may be dated a moment later.
        if count > true[hour] + min(1, true[hour - 1]):
            raise made.history.fail(_NAME, f"{count} values are shown in hour {hour}, {true[hour]} are true")
    if shown.total() + dropped != true.total():
        problem = f"{true.total()} rows were taken: {shown.total()} are shown and {dropped} named as dropped"
        raise made.history.fail(_NAME, problem)
    return Silence(
        made.plan.days,
        full_after_days,
        true.total(),
        coverage.rows,
        shown.total(),
        dropped,
        len(truth.rows_refused),
    )
