"""What a truck wanted to send and got: its recorded queue and contacts, for replaying another policy over them."""

from __future__ import annotations

from typing import Final

from gateway.api.auth import VIEWER
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, Millis, PageQuery, Shape, Time, TruckPath, millis, number_cursor
from gateway.api.trucks import known_truck
from gateway.forecast import DAY_MS
from protocol.numbers import DocumentKind, Outcome, Precedence
from store.fleet.evidence import HOUR_MS
from store.fleet.limits import PAGE_MAX
from store.fleet.records import TruckRecord

_DEFAULT_MS: Final = 30 * DAY_MS
_SPAN_MS_MAX: Final = 400 * DAY_MS
_RECEIPTS_MAX: Final = 10_000


class HistoryQuery(PageQuery, frozen=True):
    """The span; the last 30 days if nothing is given."""

    since: Time | None = None
    until: Time | None = None


class QueuedShape(Shape, frozen=True):
    """A parcel, or content that was wanted: its bytes, when the truck had it, and when it had arrived.

    `arrived_ms` is null for content that has not. Bytes of a parcel are its own, those of content are on the wire.
    """

    precedence: str
    bytes: Bytes
    at_ms: Millis
    arrived_ms: Millis | None


class ContactShape(Shape, frozen=True):
    """One link: the hours (Unix ms) in which it carried anything, and the bytes of the best of them."""

    link: str
    hours_ms: list[Millis]
    best_hour_bytes: Bytes


class HistoryPage(Shape, frozen=True):
    """A page of parcels by arrival. Content, contacts and what the rest carried besides are on the first page only.

    `other_bytes` is all that was carried but content: parcels with their headers, acknowledgements and handshakes.
    """

    since_ms: Millis
    until_ms: Millis
    items: list[QueuedShape]
    content: list[QueuedShape]
    contacts: list[ContactShape]
    other_bytes: Bytes
    next: str | None


@operation("GET", "/v1/trucks/{truck}/history", tag="ledger", needs=VIEWER)
async def get_history(call: Call, path: TruckPath, query: HistoryQuery) -> HistoryPage:
    """Show what a truck had to send and fetch, and in which hours its links were there."""
    truck = await known_truck(call, path.truck)
    now_ms = call.api.services.now_ms()
    until_ms = millis(query.until, now_ms)
    since_ms = millis(query.since, until_ms - _DEFAULT_MS)
    if until_ms - since_ms > _SPAN_MS_MAX:
        raise Problem(400, "a history is of at most 400 days")
    after = number_cursor(query.after)
    found = await call.api.fleet.queued(truck.name, since_ms, until_ms, after=after, limit=query.served + 1)
    page = found[: query.served]
    content, contacts, other = ([], [], 0) if after else await _carried(call, truck, since_ms, until_ms)
    return HistoryPage(
        since_ms=since_ms,
        until_ms=until_ms,
        items=[
            QueuedShape(
                precedence=each.precedence.name.lower(),
                bytes=each.bytes,
                at_ms=each.at_ms,
                arrived_ms=each.received_ms,
            )
            for each in page
        ],
        content=content,
        contacts=contacts,
        other_bytes=other,
        next=str(page[-1].id) if len(found) > query.served else None,
    )


async def _carried(
    call: Call, truck: TruckRecord, since_ms: int, until_ms: int
) -> tuple[list[QueuedShape], list[ContactShape], int]:
    hours: dict[str, dict[int, int]] = {}
    content: dict[int, int] = {}
    other = 0
    for each in await call.api.fleet.ledger(truck.name, since_ms, until_ms, step_ms=HOUR_MS):
        if not each.link or each.start_ms is None or each.bytes <= 0:
            continue
        by_hour = hours.setdefault(each.link, {})
        by_hour[each.start_ms] = by_hour.get(each.start_ms, 0) + each.bytes
        if each.cause == "content":
            content[each.start_ms] = content.get(each.start_ms, 0) + each.bytes
        else:
            other += each.bytes
    contacts = [
        ContactShape(link=link, hours_ms=sorted(by_hour), best_hour_bytes=max(by_hour.values()))
        for link, by_hour in sorted(hours.items())
    ]
    return await _wanted(call, truck, content, since_ms, until_ms), contacts, other


async def _wanted(
    call: Call, truck: TruckRecord, content: dict[int, int], since_ms: int, until_ms: int
) -> list[QueuedShape]:
    """Return content as it was wanted: from a rollout to its receipt, with what was carried until then."""
    found: list[QueuedShape] = []
    left = dict(content)
    for name, received_ms in await _applied(call, truck.name, since_ms, until_ms):
        mine = [hour for hour in left if hour <= received_ms]
        count = sum(left.pop(hour) for hour in mine)
        if count:
            at_ms = await _asked_ms(call, truck, name, received_ms)
            first = min(mine) if at_ms is None else min(at_ms, min(mine) + HOUR_MS)
            found.append(_content(count, max(since_ms, first), received_ms))
    if left:
        found.append(_content(sum(left.values()), min(left), None))
    return found


def _content(count: int, at_ms: int, arrived_ms: int | None) -> QueuedShape:
    return QueuedShape(precedence=Precedence.BULK.name.lower(), bytes=count, at_ms=at_ms, arrived_ms=arrived_ms)


async def _applied(call: Call, truck: str, since_ms: int, until_ms: int) -> list[tuple[str, int]]:
    """Return the bundles that a truck applied, with when its receipts came."""
    applied: list[tuple[str, int]] = []
    after: int | None = None
    read = 0
    while read < _RECEIPTS_MAX and (page := await call.api.fleet.receipts(truck, after=after, limit=PAGE_MAX)):
        after, read = page[-1].id, read + len(page)
        applied += [
            (each.name, each.received_ms)
            for each in page
            if each.document is DocumentKind.MANIFEST
            and each.outcome is Outcome.APPLIED
            and since_ms <= each.received_ms < until_ms
        ]
    return sorted(applied, key=lambda each: each[1])


async def _asked_ms(call: Call, truck: TruckRecord, bundle: str, before_ms: int) -> int | None:
    """Return when the rollout was put that a receipt answers, as far as is known."""
    asked = [
        each.received_ms
        for each in await call.api.fleet.documents(kind=DocumentKind.ROLLOUT, limit=PAGE_MAX)
        if each.bundle == bundle
        and each.received_ms <= before_ms
        and (truck.name in each.trucks or each.group == truck.group)
    ]
    return max(asked, default=None)


OPERATIONS = (get_history,)
