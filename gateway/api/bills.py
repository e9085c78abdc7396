"""Bills: what a provider billed for a truck's link, held against what was counted here, day by day."""

from __future__ import annotations

import json
from typing import Annotated

from msgspec import Meta

from gateway.api.auth import OPERATOR, VIEWER
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, Millis, PageQuery, Shape, TruckPath, number_cursor
from gateway.api.trucks import known_truck
from protocol.wire import Name
from store.fleet.alarms import AlarmNote
from store.fleet.bills import BillRecord
from store.fleet.evidence import HOUR_MS
from store.fleet.records import LedgerSource

_LINES_MAX = 800
_PERIOD_DAYS_MAX = 800
# Providers round; what is less than this of a bill is nobody's business.
_DRIFT_BYTES_MIN = 10_000
RULE = "bill.drift"


UnixMillis = Annotated[int, Meta(ge=0, le=1 << 53, description="Unix milliseconds")]


class BillLine(Shape, frozen=True):
    """What was billed for a span, as a rule a day. Spans begin on whole hours, since the ledger is kept by the hour."""

    since_ms: UnixMillis
    until_ms: UnixMillis
    bytes: Annotated[int, Meta(ge=0, le=1 << 60)]


class BillRequest(Shape, frozen=True):
    """A bill of one link. Drift of more than `threshold_percent` raises an alarm, less ends one."""

    link: Name
    lines: Annotated[list[BillLine], Meta(min_length=1, max_length=_LINES_MAX)]
    threshold_percent: Annotated[float, Meta(ge=0, le=1_000)] = 5.0


class ReconciledLine(Shape, frozen=True):
    """One span: what was billed and what was counted, in billed bytes."""

    since_ms: Millis
    until_ms: Millis
    billed_bytes: Bytes
    counted_bytes: int


class BillShape(Shape, frozen=True):
    """A bill that was compared. `drift_percent` is of what was counted; null where nothing was.

    What was counted is what the gateway saw: what was lost on its way up is on the bill and not there.
    """

    id: int
    truck: str
    link: str
    since_ms: Millis
    until_ms: Millis
    billed_bytes: Bytes
    counted_bytes: int
    drift_bytes: int
    drift_percent: float | None
    put_ms: Millis
    put_by: str
    lines: list[ReconciledLine]


class BillPage(Shape, frozen=True):
    """Bills that were compared, newest first."""

    items: list[BillShape]
    next: str | None


@operation("POST", "/v1/trucks/{truck}/bills", tag="ledger", needs=OPERATOR, status=201)
async def reconcile_bill(call: Call, path: TruckPath, body: BillRequest) -> BillShape:
    """Hold a provider's bill against the ledger; keep the comparison, and raise or end an alarm by it."""
    await known_truck(call, path.truck)
    fleet, now_ms = call.api.fleet, call.api.services.now_ms()
    spans = [(line.since_ms, line.until_ms, line.bytes) for line in body.lines]
    since_ms, until_ms = min(span[0] for span in spans), max(span[1] for span in spans)
    if any(start >= end for start, end, _ in spans):
        raise Problem(400, "a line ends before it begins")
    if until_ms - since_ms > _PERIOD_DAYS_MAX * 24 * HOUR_MS:
        raise Problem(400, f"a bill is of at most {_PERIOD_DAYS_MAX} days")
    counted = await _counted(call, path.truck, body.link, since_ms, until_ms)
    days = [
        {"since_ms": start, "until_ms": end, "billed": billed, "counted": _within(counted, start, end)}
        for start, end, billed in sorted(spans)
    ]
    bill = await fleet.put_bill(
        BillRecord(
            id=0,
            truck=path.truck,
            link=body.link,
            since_ms=since_ms,
            until_ms=until_ms,
            billed_bytes=sum(span[2] for span in spans),
            counted_bytes=sum(day["counted"] for day in days),
            put_ms=now_ms,
            put_by=call.actor.name,
            days_json=json.dumps(days, separators=(",", ":")),
        )
    )
    shape = _shape(bill)
    await fleet.settle_alarms(RULE, _alarms(shape, body.threshold_percent), now_ms, truck=path.truck, subject=body.link)
    return shape


@operation("GET", "/v1/trucks/{truck}/bills", tag="ledger", needs=VIEWER)
async def list_bills(call: Call, path: TruckPath, query: PageQuery) -> BillPage:
    """List the bills of a truck that were compared, newest first."""
    await known_truck(call, path.truck)
    found = await call.api.fleet.bills(path.truck, after=number_cursor(query.after), limit=query.served + 1)
    page = found[: query.served]
    return BillPage(items=[_shape(each) for each in page], next=str(page[-1].id) if len(found) > query.served else None)


async def _counted(call: Call, truck: str, link: str, since_ms: int, until_ms: int) -> dict[int, int]:
    """Return the billed bytes of a link by the hour (Unix ms of its start)."""
    counted: dict[int, int] = {}
    for each in await call.api.fleet.ledger(truck, since_ms, until_ms, source=LedgerSource.GATEWAY, step_ms=HOUR_MS):
        if each.link == link and each.start_ms is not None:
            counted[each.start_ms] = counted.get(each.start_ms, 0) + each.billed_bytes
    return counted


def _within(counted: dict[int, int], start_ms: int, end_ms: int) -> int:
    return sum(count for hour_ms, count in counted.items() if start_ms <= hour_ms < end_ms)


def _shape(bill: BillRecord) -> BillShape:
    drift = bill.billed_bytes - bill.counted_bytes
    return BillShape(
        id=bill.id,
        truck=bill.truck,
        link=bill.link,
        since_ms=bill.since_ms,
        until_ms=bill.until_ms,
        billed_bytes=bill.billed_bytes,
        counted_bytes=bill.counted_bytes,
        drift_bytes=drift,
        drift_percent=None if bill.counted_bytes <= 0 else round(100 * drift / bill.counted_bytes, 2),
        put_ms=bill.put_ms,
        put_by=bill.put_by,
        lines=[
            ReconciledLine(
                since_ms=day["since_ms"],
                until_ms=day["until_ms"],
                billed_bytes=day["billed"],
                counted_bytes=day["counted"],
            )
            for day in json.loads(bill.days_json)
        ],
    )


def _alarms(bill: BillShape, threshold: float) -> list[AlarmNote]:
    if abs(bill.drift_bytes) < _DRIFT_BYTES_MIN:
        return []
    if bill.drift_percent is not None and abs(bill.drift_percent) <= threshold:
        return []
    way = "more" if bill.drift_bytes > 0 else "less"
    share = "nothing was counted" if bill.drift_percent is None else f"{abs(bill.drift_percent):g} %"
    text = f"the {bill.link} bill has {abs(bill.drift_bytes)} bytes {way} than was counted ({share})"
    step = f"digitruck ledger {bill.truck} --by day,link, and ask the provider about the days that differ"
    return [AlarmNote(RULE, bill.truck, bill.link, "warning", text, step)]


OPERATIONS = (reconcile_bill, list_bills)
