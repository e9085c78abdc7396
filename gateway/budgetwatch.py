"""Alarms about budgets: a share of one is used, or it will be gone before its period ends.

Of a link only the highest share that is reached is an alarm, so that its history tells when each was. The alarms end by
themselves: a new period, a larger budget, a quieter truck.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from gateway.budgets import LinkBudget
from gateway.fleetbudgets import budgets_of
from gateway.forecast import DAY_MS
from store.fleet.alarms import AlarmNote, Severity
from store.fleet.fleet import FleetStore
from store.fleet.limits import PAGE_MAX
from store.fleet.records import TruckRecord

log = structlog.get_logger("gateway.budgetwatch")

SHARES: Final = (50, 75, 90, 100)
_CRITICAL_FROM: Final = 90
_PAUSE_S: Final = 300.0
_FIRST_PAUSE_S: Final = 5.0
# A forecast on less of a truck's life says more about its first hour than about its month.
_HISTORY_DAYS_MIN: Final = 3
RULES: Final = "budget."


class BudgetWatch:
    """Looks at every truck's budgets now and then."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms

    async def run(self) -> None:
        """Look for ever, until cancelled."""
        await asyncio.sleep(_FIRST_PAUSE_S)
        while True:
            await self.look()
            await asyncio.sleep(_PAUSE_S)

    async def look(self) -> None:
        """Raise and clear the alarms of the whole fleet once."""
        open_alarms = {each.truck for each in await self._fleet.alarms(limit=PAGE_MAX) if each.rule.startswith(RULES)}
        after: str | None = None
        while trucks := await self._fleet.trucks(after=after, limit=_TRUCKS):
            after = trucks[-1].name
            await self._judge(trucks, open_alarms)

    async def _judge(self, trucks: Sequence[TruckRecord], open_alarms: set[str]) -> None:
        now_ms = self._now_ms()
        budgets = await budgets_of(self._fleet, trucks, now_ms)
        for truck in trucks:
            noted = [note for each in budgets[truck.name] for note in notes_of(truck, each, now_ms)]
            # Most trucks have none and had none: they cost no transaction.
            if not noted and truck.name not in open_alarms:
                continue
            for raised in await self._fleet.settle_alarms(RULES, noted, now_ms, truck=truck.name):
                log.warning("alarm.raised", rule=raised.rule, truck=raised.truck, subject=raised.subject)


_TRUCKS = 200


def notes_of(truck: TruckRecord, budget: LinkBudget, now_ms: int) -> list[AlarmNote]:
    """Return the alarms that hold of one link of a truck; none of a truck that was shut out."""
    share, plan = budget.used_share, budget.plan
    if share is None or truck.revoked_ms is not None:
        return []
    noted = []
    reached = max((each for each in SHARES if share * 100 >= each), default=None)
    day = datetime.fromtimestamp(plan.end_ms / 1000, UTC).strftime("%d %b")
    if reached is not None:
        severity: Severity = "critical" if reached >= _CRITICAL_FROM else "warning"
        gone = "all" if reached == 100 else f"{reached} %"
        text = f"{gone} of the {plan.link} budget is used, until {day}"
        step = f"digitruck ledger {truck.name} --by link,cause,day"
        noted.append(AlarmNote(f"{RULES}{reached}", truck.name, plan.link, severity, text, step))
    if share < 1 and budget.exhausted_ms is not None and budget.history_days >= _HISTORY_DAYS_MIN:
        at = datetime.fromtimestamp(budget.exhausted_ms / 1000, UTC).strftime("%a %d %b")
        days = (plan.end_ms - budget.exhausted_ms) // DAY_MS
        text = f"the {plan.link} budget will be gone on {at}, {days} days before its period ends"
        step = f"digitruck budget show {truck.name}"
        noted.append(AlarmNote(f"{RULES}runs-out", truck.name, plan.link, "warning", text, step))
    return noted
