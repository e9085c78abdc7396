"""The ledger: every byte by truck, link, precedence, cause, direction and day, and the money that it cost.

What the gateway counted and what the truck reports are two sources beside each other. Sums by fewer columns than all
are made here, after each line has its price: links and trucks have different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta

from gateway.api.auth import VIEWER
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
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
from gateway.budgets import month_of
from gateway.fleetbudgets import config_of
from gateway.terms import links_of, terms_of
from protocol.billing import NANO_IN_MILLI
from protocol.documents import Config
from protocol.tariffs import Tariff
from store.fleet.records import LedgerSource, LedgerSum

COLUMNS = ("truck", "link", "precedence", "cause", "direction", "day")
_DAY_S = 86_400


class LedgerQuery(PageQuery, frozen=True):
    """The period (this calendar month, UTC, if nothing is given), who counted, and what the lines are of.

    `by` are columns of truck, link, precedence, cause, direction and day, separated by commas; without it all but the
    day. `step` makes a line for each step of hours or days.
    """

    since: Time | None = None
    until: Time | None = None
    source: Literal["gateway", "truck"] = "gateway"
    step: Annotated[int, Meta(ge=3_600, le=31 * 86_400, multiple_of=3_600, description="seconds")] | None = None
    by: (
        Annotated[
            str,
            Meta(
                pattern=r"^(truck|link|precedence|cause|direction|day)(,(truck|link|precedence|cause|direction|day)){0,5}$",
                description="columns, separated by commas",
            ),
        ]
        | None
    ) = None


class LedgerLine(Shape, frozen=True):
    """Bytes of one truck, link, precedence, cause and direction; null where the lines are not told apart by that.

    An empty truck is traffic of strangers. Billed bytes are rounded as the tariff says. Money is what they cost when
    they were counted, or else what they would cost now; it and the currency are null where no price is known.
    """

    truck: str | None
    link: str | None
    precedence: str | None
    cause: str | None
    direction: str | None
    bytes: Bytes
    datagrams: int
    billed_bytes: int
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


@operation("GET", "/v1/ledger", tag="ledger", needs=VIEWER)
async def list_ledger(call: Call, query: LedgerQuery) -> LedgerPage:
    """Add up the whole fleet's ledger."""
    return await _ledger(call, None, query)


@operation("GET", "/v1/trucks/{truck}/ledger", tag="ledger", needs=VIEWER)
async def list_truck_ledger(call: Call, path: TruckPath, query: LedgerQuery) -> LedgerPage:
    """Add up one truck's ledger."""
    await known_truck(call, path.truck)
    return await _ledger(call, path.truck, query)


async def _ledger(call: Call, truck: str | None, query: LedgerQuery) -> LedgerPage:
    start_ms, end_ms = month_of(call.api.services.now_ms())
    since_ms, until_ms = millis(query.since, start_ms), millis(query.until, end_ms)
    by = frozenset(query.by.split(",")) if query.by is not None else frozenset(COLUMNS) - {"day"}
    if "day" in by and query.step not in (None, _DAY_S):
        raise Problem(400, "`by` day is a `step` of 86400: give one of the two")
    step = _DAY_S if "day" in by else query.step
    sums = await call.api.fleet.ledger(
        truck,
        since_ms,
        until_ms,
        source=LedgerSource(query.source),
        step_ms=None if step is None else step * 1000,
    )
    at = _position(query.after)
    if query.by is None:
        # Only what is shown needs its price looked up.
        page, count = await _priced(call, sums[at : at + query.served]), len(sums)
    else:
        merged = added_up(await _priced(call, sums), by)
        page, count = merged[at : at + query.served], len(merged)
    return LedgerPage(
        since_ms=since_ms,
        until_ms=until_ms,
        total_bytes=sum(each.bytes for each in sums),
        items=[_line(each, by) for each in page],
        next=str(at + query.served) if at + query.served < count else None,
    )


async def _priced(call: Call, sums: Sequence[LedgerSum]) -> list[LedgerSum]:
    """Return sums with their money: as it was counted, or else at the price of now; None where nobody knows it."""
    prices = await _prices(call, {each.truck for each in sums if each.money_nano is None})
    priced = []
    for each in sums:
        tariff = prices.get((each.truck, each.link))
        if each.money_nano is None and tariff is not None:
            nano = each.billed_bytes * tariff.price_per_mb_milli
            each = replace(each, money_nano=nano, currency=tariff.currency)
        priced.append(each)
    return priced


def added_up(sums: Sequence[LedgerSum], by: frozenset[str]) -> list[LedgerSum]:
    """Return sums by fewer columns, each currency apart; bytes without a price make a line without one.

    Money is rounded once, at the end: a thousandth for each of a hundred small lines would be a hundred of them.
    """
    found: dict[tuple[object, ...], LedgerSum] = {}
    for each in sums:
        kept = tuple(getattr(each, name) if name in by else None for name in COLUMNS if name != "day")
        key = (each.start_ms, *kept, each.currency, each.money_nano is None)
        before = found.get(key)
        if before is not None:
            nano = None if each.money_nano is None else each.money_nano + (before.money_nano or 0)
            each = replace(
                each,
                bytes=each.bytes + before.bytes,
                datagrams=each.datagrams + before.datagrams,
                billed_bytes=each.billed_bytes + before.billed_bytes,
                money_nano=nano,
            )
        found[key] = each

    def place(each: LedgerSum) -> tuple[object, ...]:
        named = tuple(str(getattr(each, name)) if name in by else "" for name in COLUMNS if name != "day")
        return (each.start_ms or 0, *named, each.currency, each.money_nano is None)

    return sorted(found.values(), key=place)


def _position(after: str | None) -> int:
    # Sums are computed anew for each page, so the cursor is the position in their fixed order.
    if after is None:
        return 0
    if not after.isascii() or not after.isdigit() or len(after) > 9:
        raise bad_cursor()
    return int(after)


async def _prices(call: Call, names: set[str]) -> dict[tuple[str, str], Tariff]:
    """Return the tariffs of these trucks' links whose price is known now, by truck and link."""
    found: dict[tuple[str, str], Tariff] = {}
    read: dict[bytes, Config] = {}
    for name in names - {""}:
        truck = await call.api.fleet.truck(name)
        config = None if truck is None else await config_of(call.api.fleet, truck, read)
        for link in links_of(config):
            terms = terms_of(config, name, link)
            if terms.is_priced:
                found[name, link] = terms.tariff
    return found


def _line(each: LedgerSum, by: frozenset[str]) -> LedgerLine:
    is_priced = each.money_nano is not None
    return LedgerLine(
        truck=each.truck if "truck" in by else None,
        link=each.link if "link" in by else None,
        precedence=each.precedence.name.lower() if "precedence" in by else None,
        cause=each.cause if "cause" in by else None,
        direction=each.direction.value if "direction" in by else None,
        bytes=each.bytes,
        datagrams=each.datagrams,
        billed_bytes=each.billed_bytes,
        money_milli=None if each.money_nano is None else -(-each.money_nano // NANO_IN_MILLI),
        currency=each.currency if is_priced else None,
        start_ms=each.start_ms,
    )


OPERATIONS = (list_ledger, list_truck_ledger)
