"""Budgets of trucks out of the fleet's database: what was configured, and what the ledger says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.budgets import LinkBudget, history_since_ms, link_budget, month_of, plans
from protocol.documents import Config, parse_document
from store.fleet.fleet import FleetStore
from store.fleet.records import TruckRecord

# A configuration of less is read between two other things; a larger one would hold everybody up.
_INLINE_BYTES_MAX = 16_384


async def budgets_of(fleet: FleetStore, trucks: Sequence[TruckRecord], now_ms: int) -> dict[str, list[LinkBudget]]:
    """Return the budgets of each truck's links."""
    _, until_ms = month_of(now_ms)
    used = await fleet.ledger_days([each.name for each in trucks], history_since_ms(now_ms), until_ms)
    read: dict[bytes, Config] = {}
    found: dict[str, list[LinkBudget]] = {}
    for truck in trucks:
        config = await _config(fleet, truck, read)
        names = [link for name, link in used if name == truck.name]
        found[truck.name] = [
            link_budget(plan, used.get((truck.name, plan.link), {}), now_ms=now_ms, begun_ms=truck.enrolled_ms)
            for plan in plans(config.links if config else (), names, now_ms)
        ]
    return found


async def _config(fleet: FleetStore, truck: TruckRecord, read: dict[bytes, Config]) -> Config | None:
    """Return a truck's newest configuration; trucks of a group share one that is read once."""
    record = await fleet.newest_config(truck.name, truck.group)
    if record is None:
        return None
    if record.digest not in read:
        if len(record.signed) < _INLINE_BYTES_MAX:
            read[record.digest], _ = parse_document(record.signed, Config)
        else:
            read[record.digest], _ = await asyncio.to_thread(parse_document, record.signed, Config)
    return read[record.digest]
