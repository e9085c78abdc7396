"""What the gateway knows of a truck's links as carriers: how often they are there, how fast, how much they lose."""

from __future__ import annotations

from typing import Final

from gateway.accounts import compared
from gateway.forecast import DAY_MS
from gateway.quoting import Bearer
from store.fleet.evidence import HOUR_MS
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, TruckRecord

_HISTORY_MS: Final = 28 * DAY_MS
# Less content in an hour, or fewer days, say nothing of what a link can bring.
_TELLING_BYTES: Final = 100_000
_TELLING_DAYS: Final = 2.0
# An IPv6 header is that much longer than an IPv4 one.
_IPV6_BYTES: Final = 20


async def bearers_of(fleet: FleetStore, truck: TruckRecord, now_ms: int) -> dict[str, Bearer]:
    """Return a truck's links by name, from four weeks of the ledger."""
    since_ms = max(now_ms - _HISTORY_MS, truck.enrolled_ms)
    days = max(1.0, (now_ms - since_ms) / DAY_MS)
    told = await compared(fleet, truck)
    longer = _IPV6_BYTES if truck.last_address is not None and truck.last_address.startswith("[") else 0
    return {
        link: Bearer(
            loss_up=None if told is None else told.loss(link, Direction.UP),
            loss_down=None if told is None else told.loss(link, Direction.DOWN),
            longer_bytes=longer,
            best_hour_bytes=contacts.best_hour_bytes if contacts.best_hour_bytes >= _TELLING_BYTES else None,
            contact_hours_a_day=min(24.0, contacts.hours / days) if days >= _TELLING_DAYS else None,
        )
        for link, contacts in (
            await fleet.ledger_contacts(truck.name, since_ms - since_ms % HOUR_MS, now_ms + 1)
        ).items()
    }
