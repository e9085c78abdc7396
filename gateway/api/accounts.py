"""The truck's own account beside the gateway's: what each counted of the same span, and what was lost in between."""

from __future__ import annotations

from gateway.accounts import Comparison, compared
from gateway.api.auth import VIEWER
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, Millis, MoneyMilli, Shape, TruckPath
from gateway.api.trucks import known_truck
from store.fleet.records import Direction


class AccountLine(Shape, frozen=True):
    """One link, precedence and direction. `lost_bytes`: sent on one side and not arrived on the other."""

    link: str
    precedence: str
    direction: str
    truck_bytes: Bytes
    gateway_bytes: int
    lost_bytes: int


class AccountLink(Shape, frozen=True):
    """One link as the truck billed it; shares that were lost are null where too little was carried to tell."""

    link: str
    billed_bytes: Bytes
    money_milli: MoneyMilli
    loss_up: float | None
    loss_down: float | None


class AccountShape(Shape, frozen=True):
    """The span of a truck's newest account: since the one before it, or since it was enrolled."""

    truck: str
    since_ms: Millis
    until_ms: Millis
    lines: list[AccountLine]
    links: list[AccountLink]


@operation("GET", "/v1/trucks/{truck}/account", tag="ledger", needs=VIEWER)
async def get_account(call: Call, path: TruckPath) -> AccountShape:
    """Show what a truck counted itself beside what the gateway saw of it."""
    found = await compared(call.api.fleet, await known_truck(call, path.truck))
    if found is None:
        raise Problem(404, "this truck has not told its own account yet; it does every four weeks (account_days)")
    return _shape(found)


def _shape(found: Comparison) -> AccountShape:
    links = sorted({each.link for each in found.lines} | found.billed.keys())
    return AccountShape(
        truck=found.truck,
        since_ms=found.since_ms,
        until_ms=found.until_ms,
        lines=[
            AccountLine(
                link=each.link,
                precedence=each.precedence.name.lower(),
                direction=each.direction.value,
                truck_bytes=each.truck_bytes,
                gateway_bytes=each.gateway_bytes,
                lost_bytes=each.lost_bytes,
            )
            for each in found.lines
        ],
        links=[
            AccountLink(
                link=link,
                billed_bytes=found.billed.get(link, 0),
                money_milli=found.milli.get(link, 0),
                loss_up=found.loss(link, Direction.UP),
                loss_down=found.loss(link, Direction.DOWN),
            )
            for link in links
        ],
    )


OPERATIONS = (get_account,)
