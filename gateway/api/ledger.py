"""The ledger and the budgets: every byte by truck, link, precedence and cause, and what is left of the month."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.api.auth import VIEWER
from gateway.api.configs import config_of
from gateway.api.operations import Call, operation
from gateway.api.shapes import (
    Bytes,
    Millis,
    MoneyMilli,
    PageQuery,
    Shape,
    Time,
    TruckPath,
    bad_cursor,
    millis,
)
from gateway.api.trucks import known_truck
from gateway.budgets import LinkBudget, link_budgets, month_of, price_milli
from protocol.documents import LinkConfig
from store.fleet.records import LedgerSource, LedgerSum, TruckRecord


class LedgerQuery(PageQuery, frozen=True):
    """The period (this calendar month, UTC, if nothing is given), who counted, and a step of hours or days."""

    since: Time | None = None
    until: Time | None = None
    source: Literal["gateway", "truck"] = "gateway"
    step: Annotated[int, Meta(ge=3_600, le=31 * 86_400, multiple_of=3_600, description="seconds")] | None = None


class LedgerLine(Shape, frozen=True):
    """Bytes of one truck, link, precedence, cause and direction. An empty truck is traffic of strangers.

    Money is what the truck reported, or else the bytes at the price in the truck's newest configuration; it and the
    currency are null where no price is known.
    """

    truck: str
    link: str
    precedence: str
    cause: str
    direction: str
    bytes: Bytes
    datagrams: int
    money_milli: MoneyMilli | None
    currency: str | None
    start_ms: Millis | None


class LedgerPage(Shape, frozen=True):
    """Lines of the ledger, and what they add up to in the whole period (all pages)."""

    since_ms: Millis
    until_ms: Millis
    total_bytes: Bytes
    items: list[LedgerLine]
    next: str | None


class LinkBudgetShape(Shape, frozen=True):
    """One link this month. `exhausted_ms`: when the cap is reached at this month's pace; null if it holds."""

    link: str
    bytes_max: Bytes | None
    reserve_bytes: Bytes
    used_bytes: Bytes
    left_bytes: Bytes | None
    price_per_mb_milli: int
    currency: str
    spent_milli: MoneyMilli
    exhausted_ms: Millis | None


class BudgetShape(Shape, frozen=True):
    """One truck's budgets this calendar month (UTC)."""

    truck: str
    month_start_ms: Millis
    month_end_ms: Millis
    links: list[LinkBudgetShape]


class BudgetPage(Shape, frozen=True):
    """Budgets of the fleet's trucks, in the order of their names."""

    items: list[BudgetShape]
    next: str | None


@operation("GET", "/v1/ledger", tag="ledger", needs=VIEWER)
async def list_ledger(call: Call, query: LedgerQuery) -> LedgerPage:
    """Add up the whole fleet's ledger."""
    return await _ledger(call, None, query)


@operation("GET", "/v1/trucks/{truck}/ledger", tag="ledger", needs=VIEWER)
async def list_truck_ledger(call: Call, path: TruckPath, query: LedgerQuery) -> LedgerPage:
    """Add up one truck's ledger."""
    await known_truck(call, path.truck)
    return await _ledger(call, path.truck, query)


@operation("GET", "/v1/budgets", tag="ledger", needs=VIEWER)
async def list_budgets(call: Call, query: PageQuery) -> BudgetPage:
    """List the budgets of all trucks this month."""
    found = await call.api.fleet.trucks(after=query.after, limit=query.served + 1)
    trucks = found[: query.served]
    items = [await budget_of(call, truck) for truck in trucks]
    return BudgetPage(items=items, next=trucks[-1].name if len(found) > query.served else None)


@operation("GET", "/v1/trucks/{truck}/budget", tag="ledger", needs=VIEWER)
async def get_budget(call: Call, path: TruckPath) -> BudgetShape:
    """Show what is left of one truck's month."""
    return await budget_of(call, await known_truck(call, path.truck))


async def budget_of(call: Call, truck: TruckRecord) -> BudgetShape:
    """Return a truck's budgets as the API shows them."""
    start_ms, end_ms = month_of(call.api.services.now_ms())
    return BudgetShape(
        truck=truck.name,
        month_start_ms=start_ms,
        month_end_ms=end_ms,
        links=[_budget_shape(each) for each in await budgets_of(call, truck)],
    )


async def budgets_of(call: Call, truck: TruckRecord) -> list[LinkBudget]:
    """Return a truck's link budgets from its configuration and this month's ledger."""
    now_ms = call.api.services.now_ms()
    config = await config_of(call, truck)
    sums = await call.api.fleet.ledger(truck.name, *month_of(now_ms))
    return link_budgets(config.links if config else (), sums, now_ms)


async def _ledger(call: Call, truck: str | None, query: LedgerQuery) -> LedgerPage:
    start_ms, end_ms = month_of(call.api.services.now_ms())
    since_ms, until_ms = millis(query.since, start_ms), millis(query.until, end_ms)
    sums = await call.api.fleet.ledger(
        truck,
        since_ms,
        until_ms,
        source=LedgerSource(query.source),
        step_ms=None if query.step is None else query.step * 1000,
    )
    at = _position(query.after)
    page = sums[at : at + query.served]
    prices = await _prices(call, {each.truck for each in page if each.money_milli == 0})
    items = [_line(each, prices.get((each.truck, each.link))) for each in page]
    return LedgerPage(
        since_ms=since_ms,
        until_ms=until_ms,
        total_bytes=sum(each.bytes for each in sums),
        items=items,
        next=str(at + query.served) if at + query.served < len(sums) else None,
    )


def _position(after: str | None) -> int:
    # Sums are computed anew for each page, so the cursor is the position in their fixed order.
    if after is None:
        return 0
    if not after.isascii() or not after.isdigit() or len(after) > 9:
        raise bad_cursor()
    return int(after)


async def _prices(call: Call, names: set[str]) -> dict[tuple[str, str], LinkConfig]:
    """Return the links of these trucks whose price is known, by truck and link."""
    found: dict[tuple[str, str], LinkConfig] = {}
    for name in names - {""}:
        truck = await call.api.fleet.truck(name)
        config = None if truck is None else await config_of(call, truck)
        for link in () if config is None else config.links:
            if link.price_per_mb_milli > 0:
                found[name, link.name] = link
    return found


def _line(each: LedgerSum, priced: LinkConfig | None) -> LedgerLine:
    money_milli: int | None = each.money_milli
    currency: str | None = each.currency
    if money_milli == 0:
        money_milli = None if priced is None else price_milli(each.bytes, priced.price_per_mb_milli)
        currency = None if priced is None else priced.currency
    return LedgerLine(
        truck=each.truck,
        link=each.link,
        precedence=each.precedence.name.lower(),
        cause=each.cause,
        direction=each.direction.value,
        bytes=each.bytes,
        datagrams=each.datagrams,
        money_milli=money_milli,
        currency=currency,
        start_ms=each.start_ms,
    )


def _budget_shape(each: LinkBudget) -> LinkBudgetShape:
    return LinkBudgetShape(
        link=each.link,
        bytes_max=each.bytes_max,
        reserve_bytes=each.reserve_bytes,
        used_bytes=each.used_bytes,
        left_bytes=each.left_bytes,
        price_per_mb_milli=each.price_per_mb_milli,
        currency=each.currency,
        spent_milli=each.spent_milli,
        exhausted_ms=each.exhausted_ms,
    )


OPERATIONS = (list_ledger, list_truck_ledger, list_budgets, get_budget)
