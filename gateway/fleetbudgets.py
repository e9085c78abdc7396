"""Budgets of trucks out of the fleet's database: what was configured, and what the ledger says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from gateway.budgets import LinkBudget, LinkPlan, history_since_ms, link_budget
from gateway.terms import links_of, terms_of
from protocol.documents import Config, parse_document
from store.fleet.fleet import FleetStore
from store.fleet.records import DayUse, TruckRecord

# A configuration of less is read between two other things; a larger one would hold everybody up.
_INLINE_BYTES_MAX = 16_384


async def budgets_of(fleet: FleetStore, trucks: Sequence[TruckRecord], now_ms: int) -> dict[str, list[LinkBudget]]:
    """Return the budgets of each truck's links, in the order of the links' names."""
    names = [each.name for each in trucks]
    history = await fleet.ledger_days(names, history_since_ms(now_ms), now_ms + 1)
    plans = await _plans(fleet, trucks, history, now_ms)
    # A few hundred trucks have a handful of billing days among them.
    used = {
        start_ms: await fleet.ledger_use(names, start_ms, now_ms + 1)
        for start_ms in {each.start_ms for found in plans.values() for each in found}
    }
    return {
        truck.name: [
            link_budget(
                plan,
                history.get((truck.name, plan.link), {}),
                used[plan.start_ms].get((truck.name, plan.link), DayUse()),
                now_ms=now_ms,
                begun_ms=truck.enrolled_ms,
            )
            for plan in plans[truck.name]
        ]
        for truck in trucks
    }


async def _plans(
    fleet: FleetStore, trucks: Sequence[TruckRecord], used: Iterable[tuple[str, str]], now_ms: int
) -> dict[str, list[LinkPlan]]:
    read: dict[bytes, Config] = {}
    links: dict[str, set[str]] = {}
    for name, link in used:
        links.setdefault(name, set()).add(link)
    found = {}
    for truck in trucks:
        config = await config_of(fleet, truck, read)
        wanted = sorted((links_of(config) | links.get(truck.name, set())) - {""})
        found[truck.name] = [LinkPlan.of(terms_of(config, truck.name, link), now_ms) for link in wanted]
    return found


async def config_of(fleet: FleetStore, truck: TruckRecord, read: dict[bytes, Config] | None = None) -> Config | None:
    """Return a truck's newest configuration, None if there is none; what is in `read` (by digest) is not read again."""
    record = await fleet.newest_config(truck.name, truck.group)
    if record is None:
        return None
    known = {} if read is None else read
    if record.digest not in known:
        if len(record.signed) < _INLINE_BYTES_MAX:
            known[record.digest], _ = parse_document(record.signed, Config)
        else:
            known[record.digest], _ = await asyncio.to_thread(parse_document, record.signed, Config)
    return known[record.digest]
