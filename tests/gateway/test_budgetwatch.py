"""Alarms about budgets are raised at each share, end with the period, and speak of what will be gone too early."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.budgets import MB, LinkPlan, link_budget
from gateway.budgetwatch import BudgetWatch, notes_of
from gateway.forecast import DAY_MS
from gateway.terms import terms_of
from protocol import cose
from protocol.documents import LinkConfig
from protocol.numbers import DocumentKind, Precedence
from protocol.tariffs import Budget
from store.fleet.fleet import FleetStore
from store.fleet.records import DayUse, Direction, DocumentRecord, LedgerEntry, TruckRecord
from tests.gateway.fleets import NOW_MS, Signers, add_truck

START_MS = round(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
TERMS = terms_of(None, "ke-arrow", "sat")
CAPPED = replace(TERMS, rules=replace(TERMS.rules, budget=Budget("sat", 1_000)))
PLAN = LinkPlan(CAPPED, START_MS, START_MS + 30 * DAY_MS)
TRUCK = TruckRecord("ke-arrow", "kenya", b"", b"", b"", enrolled_ms=START_MS)


def rules(used: list[int], truck: TruckRecord = TRUCK, plan: LinkPlan = PLAN) -> list[str]:
    """Return the rules that hold when the days of the month so far used this, at the end of the last of them."""
    history = {START_MS // DAY_MS + day: DayUse(count, 1, count) for day, count in enumerate(used)}
    now_ms = START_MS + len(used) * DAY_MS
    budget = link_budget(plan, history, DayUse(billed=sum(used)), now_ms=now_ms, begun_ms=truck.enrolled_ms)
    return [each.rule for each in notes_of(truck, budget, now_ms)]


@pytest.mark.parametrize(
    ("used", "rule"), [(499, []), (500, ["50"]), (749, ["50"]), (750, ["75"]), (900, ["90"]), (1_000, ["100"])]
)
def test_of_the_shares_only_the_highest_that_is_reached_is_an_alarm(used: int, rule: list[str]) -> None:
    assert rules([used, 0]) == [f"budget.{each}" for each in rule]


def test_what_will_be_gone_too_early_is_one_and_needs_some_days_of_history() -> None:
    assert rules([40] * 10) == ["budget.runs-out"]
    assert rules([33] * 10) == []
    assert rules([300] * 2) == ["budget.50"]


def test_neither_a_link_without_a_cap_nor_a_truck_that_was_shut_out_raises_one() -> None:
    assert rules([9_999] * 5, plan=replace(PLAN, terms=TERMS)) == []
    assert rules([9_999] * 5, replace(TRUCK, revoked_ms=START_MS)) == []


async def test_alarms_come_and_go_with_what_was_used(fleet: FleetStore) -> None:
    await add_truck(fleet)
    config = Signers().config(links=(LinkConfig("sat", MB),))
    record = DocumentRecord(cose.digest(config), DocumentKind.CONFIG, 1, "ke-arrow", config, NOW_MS, "a test")
    await fleet.put_document(replace(record, trucks=("ke-arrow",)))
    clock = [NOW_MS]
    watch = BudgetWatch(fleet, now_ms=lambda: clock[0])

    async def spend(count: int) -> list[str]:
        entry = LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, clock[0], count, 1)
        await fleet.ledger_add([entry])
        await watch.look()
        return [each.rule for each in await fleet.alarms("ke-arrow")]

    assert await spend(400_000) == []
    assert await spend(200_000) == ["budget.50"]
    assert await spend(310_000) == ["budget.90"]
    clock[0] += 31 * DAY_MS
    assert await spend(1) == []
    history = await fleet.alarms(with_cleared=True)
    assert [(each.rule, each.cleared_ms is None) for each in history] == [("budget.90", False), ("budget.50", False)]
    assert "--by link,cause,day" in history[0].next_step
