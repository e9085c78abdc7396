"""Pools: one cap for a group's link, what each truck was given of it, holds and has used."""

from __future__ import annotations

from gateway.api.auth import VIEWER
from gateway.api.operations import Call, operation
from gateway.api.shapes import PageQuery, Shape
from gateway.budgets import LinkBudget
from gateway.fleetbudgets import budgets_of
from gateway.pools import PoolState, pools_of
from protocol.tariffs import Unit
from protocol.wire import Name
from store.fleet.limits import PAGE_MAX


class PoolQuery(PageQuery, frozen=True):
    """Of one group, or of all."""

    group: Name | None = None


class GrantShape(Shape, frozen=True):
    """One truck: its grant in the newest configuration, the most that it may still go by, and what it used."""

    truck: str
    grant: int
    held: int
    used: int


class PoolShape(Shape, frozen=True):
    """A pool, in bytes or in thousandths of the currency.

    `excess` is by how much the trucks might spend more than it (0, or the gateway would not have taken it);
    `outside` are trucks of the group that go by a configuration of their own.
    """

    group: str
    link: str
    unit: str
    currency: str
    amount: int
    given: int
    used: int
    excess: int
    grants: list[GrantShape]
    outside: list[str]


class PoolPage(Shape, frozen=True):
    """A page of groups' pools, in the order of the groups."""

    items: list[PoolShape]
    next: str | None


@operation("GET", "/v1/pools", tag="ledger", needs=VIEWER)
async def list_pools(call: Call, query: PoolQuery) -> PoolPage:
    """List the pools of groups, and how far they are used."""
    groups = sorted(each for each in await _groups(call, query.group) if query.after is None or each > query.after)
    items: list[PoolShape] = []
    for at, group in enumerate(groups):
        items += [await _shape(call, each) for each in await pools_of(call.api.fleet, group)]
        if len(items) >= query.served and at + 1 < len(groups):
            return PoolPage(items=items, next=group)
    return PoolPage(items=items, next=None)


async def _groups(call: Call, group: str | None) -> set[str]:
    if group is not None:
        return {group}
    groups: set[str] = set()
    after: str | None = None
    while page := await call.api.fleet.trucks(after=after, limit=PAGE_MAX):
        after = page[-1].name
        groups |= {each.group for each in page}
    return groups


async def _shape(call: Call, state: PoolState) -> PoolShape:
    pool = state.pool
    names = sorted({each.truck for each in pool.grants} | {name for name, held in state.held.items() if held})
    records = [each for name in names if (each := await call.api.fleet.truck(name)) is not None]
    budgets = await budgets_of(call.api.fleet, records, call.api.services.now_ms())
    used = {name: _used(found, state) for name, found in budgets.items()}
    return PoolShape(
        group=state.group,
        link=pool.link,
        unit=pool.unit.name.lower(),
        currency=state.currency,
        amount=pool.amount,
        given=pool.given,
        used=sum(used.values()),
        excess=state.excess,
        grants=[
            GrantShape(truck=name, grant=pool.grant(name), held=state.held.get(name, 0), used=used.get(name, 0))
            for name in names
        ],
        outside=list(state.outside),
    )


def _used(budgets: list[LinkBudget], state: PoolState) -> int:
    for each in budgets:
        if each.plan.link == state.pool.link:
            return each.used_bytes if state.pool.unit is Unit.BYTES else each.spent_milli
    return 0


OPERATIONS = (list_pools,)
