"""What a truck signed, other than telemetry rows: events and receipts."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.api.auth import VIEWER
from gateway.api.operations import Call, operation
from gateway.api.shapes import Millis, PageQuery, Shape, Time, TruckPath, millis, number_cursor
from gateway.api.trucks import known_truck, outcome_name


class EventsQuery(PageQuery, frozen=True):
    """Events in the order of their arrival, or the newest first; `names` is a comma-separated list."""

    since: Time | None = None
    until: Time | None = None
    names: str | None = None
    newest: bool = False


class EventShape(Shape, frozen=True):
    """One event. While the clock of its boot is not known, `time_ms` is null and `boot_ms` counts from the boot.

    `repaired`: it became known after the event.
    """

    id: int
    name: str
    time_ms: Millis | None
    boot_ms: int | None
    repaired: bool
    precedence: str
    values: dict[str, Any]
    received_ms: Millis
    epoch: str
    sequence: int


class EventPage(Shape, frozen=True):
    """Events of one truck."""

    items: list[EventShape]
    next: str | None


class ReceiptShape(Shape, frozen=True):
    """What the truck did with one document, as it signed it."""

    id: int
    document: str
    name: str
    version: int
    digest: str
    outcome: str
    reason: str
    time_ms: Millis
    received_ms: Millis
    epoch: str
    sequence: int


class ReceiptPage(Shape, frozen=True):
    """Receipts of one truck, in the order of their arrival."""

    items: list[ReceiptShape]
    next: str | None


@operation("GET", "/v1/trucks/{truck}/events", tag="telemetry", needs=VIEWER)
async def list_events(call: Call, path: TruckPath, query: EventsQuery) -> EventPage:
    """List a truck's events."""
    await known_truck(call, path.truck)
    found = await call.api.fleet.events(
        path.truck,
        since_ms=None if query.since is None else millis(query.since, 0),
        until_ms=None if query.until is None else millis(query.until, 0),
        names=None if query.names is None else [name for name in query.names.split(",") if name],
        after=number_cursor(query.after),
        limit=query.served + 1,
        newest_first=query.newest,
    )
    items = [
        EventShape(
            id=each.id,
            name=each.name,
            time_ms=each.time_ms if each.boot is None or each.offset_ms is not None else None,
            boot_ms=each.time_ms if each.boot is not None and each.offset_ms is None else None,
            repaired=each.boot is not None and each.offset_ms is not None,
            precedence=each.precedence.name.lower(),
            values=msgspec.json.decode(each.values_json, type=dict[str, Any]),
            received_ms=each.received_ms,
            epoch=epoch_text(each.key.epoch),
            sequence=each.key.sequence,
        )
        for each in found[: query.served]
    ]
    return EventPage(items=items, next=str(items[-1].id) if len(found) > query.served else None)


@operation("GET", "/v1/trucks/{truck}/receipts", tag="telemetry", needs=VIEWER)
async def list_receipts(call: Call, path: TruckPath, query: PageQuery) -> ReceiptPage:
    """List a truck's receipts: what it applied, rejected or rolled back."""
    await known_truck(call, path.truck)
    found = await call.api.fleet.receipts(path.truck, after=number_cursor(query.after), limit=query.served + 1)
    items = [
        ReceiptShape(
            id=each.id,
            document=each.document.name.lower(),
            name=each.name,
            version=each.version,
            digest=each.digest.hex(),
            outcome=outcome_name(each.outcome.name),
            reason=each.reason,
            time_ms=each.time_ms,
            received_ms=each.received_ms,
            epoch=epoch_text(each.key.epoch),
            sequence=each.key.sequence,
        )
        for each in found[: query.served]
    ]
    return ReceiptPage(items=items, next=str(items[-1].id) if len(found) > query.served else None)


def epoch_text(epoch: int) -> str:
    """Return an epoch as 16 hex digits: a 64-bit number does not survive JSON's floating point."""
    return f"{epoch:016x}"


OPERATIONS = (list_events, list_receipts)
