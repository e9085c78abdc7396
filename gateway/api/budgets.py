"""Budgets: what is left of each link's period, day by day, and when it will be gone."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.auth import VIEWER
from gateway.api.operations import Call, operation
from gateway.api.shapes import Bytes, Millis, MoneyMilli, PageQuery, Shape, TruckPath
from gateway.api.trucks import known_truck
from gateway.budgets import LinkBudget, month_of
from gateway.fleetbudgets import budgets_of
from protocol.wire import Name
from store.fleet.records import TruckRecord


class BudgetQuery(PageQuery, frozen=True):
    """Of all trucks, or of a group."""

    group: Name | None = None


class LinkBudgetShape(Shape, frozen=True):
    """One link in its period. `exhausted_ms`: when a cap is reached, by the truck's own weekdays; null if they hold.

    Bytes are billed ones; caps are null where there is none, money 0 where no price is known. `pooled`: a cap is the
    truck's grant of a pool. `days` are the bytes of each day (UTC) of the period so far, `by_weekday` those expected of
    a Monday to a Sunday, on `history_days` days of history; `expected_bytes` and `expected_milli` are of the whole
    period.
    """

    link: str
    bytes_max: Bytes | None
    money_max_milli: MoneyMilli | None
    reserve_bytes: Bytes
    reserve_milli: MoneyMilli
    pooled: bool
    used_bytes: Bytes
    left_bytes: Bytes | None
    left_milli: MoneyMilli | None
    price_per_mb_milli: int
    currency: str
    spent_milli: MoneyMilli
    exhausted_ms: Millis | None
    start_ms: Millis
    end_ms: Millis
    expected_bytes: Bytes
    expected_milli: MoneyMilli
    days: list[Bytes]
    by_weekday: list[Bytes]
    history_days: int


class BudgetShape(Shape, frozen=True):
    """One truck's budgets; the month is the calendar's (UTC), a link's period may be another."""

    truck: str
    month_start_ms: Millis
    month_end_ms: Millis
    links: list[LinkBudgetShape]


class BudgetPage(Shape, frozen=True):
    """Budgets of the fleet's trucks, in the order of their names."""

    items: list[BudgetShape]
    next: str | None


@operation("GET", "/v1/budgets", tag="ledger", needs=VIEWER)
async def list_budgets(call: Call, query: BudgetQuery) -> BudgetPage:
    """List the budgets of all trucks in their periods."""
    found = await call.api.fleet.trucks(after=query.after, limit=query.served + 1, group=query.group)
    trucks = found[: query.served]
    budgets = await budgets_of(call.api.fleet, trucks, call.api.services.now_ms())
    items = [_shape(call, truck, budgets[truck.name]) for truck in trucks]
    return BudgetPage(items=items, next=trucks[-1].name if len(found) > query.served else None)


@operation("GET", "/v1/trucks/{truck}/budget", tag="ledger", needs=VIEWER)
async def get_budget(call: Call, path: TruckPath) -> BudgetShape:
    """Show what is left of one truck's budgets."""
    truck = await known_truck(call, path.truck)
    found = await budgets_of(call.api.fleet, [truck], call.api.services.now_ms())
    return _shape(call, truck, found[truck.name])


def _shape(call: Call, truck: TruckRecord, budgets: Sequence[LinkBudget]) -> BudgetShape:
    start_ms, end_ms = month_of(call.api.services.now_ms())
    return BudgetShape(
        truck=truck.name,
        month_start_ms=start_ms,
        month_end_ms=end_ms,
        links=[_link(each) for each in budgets],
    )


def _link(each: LinkBudget) -> LinkBudgetShape:
    terms = each.plan.terms
    return LinkBudgetShape(
        link=each.plan.link,
        bytes_max=terms.bytes_max,
        money_max_milli=terms.money_max_milli,
        reserve_bytes=terms.reserve_bytes,
        reserve_milli=terms.reserve_milli,
        pooled=terms.pooled,
        used_bytes=each.used_bytes,
        left_bytes=each.left_bytes,
        left_milli=each.left_milli,
        price_per_mb_milli=terms.tariff.price_per_mb_milli,
        currency=terms.tariff.currency,
        spent_milli=each.spent_milli,
        exhausted_ms=each.exhausted_ms,
        start_ms=each.plan.start_ms,
        end_ms=each.plan.end_ms,
        expected_bytes=each.expected_bytes,
        expected_milli=each.expected_milli,
        days=list(each.days),
        by_weekday=list(each.by_weekday),
        history_days=each.history_days,
    )


OPERATIONS = (list_budgets, get_budget)
