"""Trucks: who is in the fleet, when it was last heard, what it says it has; and revoking one."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.api.auth import OPERATOR, VIEWER
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, PageQuery, Shape, TruckPath
from protocol.wire import Name
from store.fleet.records import HoldingRecord, TruckRecord


class TrucksQuery(PageQuery, frozen=True):
    """All trucks in the order of their names, or those of one group."""

    group: Name | None = None


class TruckShape(Shape, frozen=True):
    """One truck. `up_to_date` is null until it has a desired state."""

    truck: str
    group: str
    enrolled_ms: Millis
    revoked_ms: Millis | None
    last_heard_ms: Millis | None
    last_link: str | None
    up_to_date: bool | None


class TruckPage(Shape, frozen=True):
    """Trucks."""

    items: list[TruckShape]
    next: str | None


class HoldingShape(Shape, frozen=True):
    """What the truck's newest receipt says of one document: its kind, name and version, and what became of it."""

    document: str
    name: str
    version: int
    digest: str
    outcome: str
    reason: str
    time_ms: Millis
    received_ms: Millis


class TruckDetail(TruckShape, frozen=True):
    """One truck in full. `status` is what it reported of itself (queues, links, budgets, software)."""

    signing_key: str
    last_address: str | None
    desired: str | None
    desired_reported: str | None
    status: dict[str, Any] | None
    status_ms: Millis | None
    holdings: list[HoldingShape]


@operation("GET", "/v1/trucks", tag="trucks", needs=VIEWER)
async def list_trucks(call: Call, query: TrucksQuery) -> TruckPage:
    """List the fleet's trucks."""
    found = await call.api.fleet.trucks(after=query.after, limit=query.served + 1, group=query.group)
    items = [TruckShape(**_summary(truck)) for truck in found[: query.served]]
    return TruckPage(items=items, next=items[-1].truck if len(found) > query.served else None)


@operation("GET", "/v1/trucks/{truck}", tag="trucks", needs=VIEWER)
async def get_truck(call: Call, path: TruckPath) -> TruckDetail:
    """Show one truck with what it holds and reports."""
    return await _detail(call, path.truck)


@operation("DELETE", "/v1/trucks/{truck}", tag="trucks", needs=OPERATOR)
async def revoke_truck(call: Call, path: TruckPath) -> TruckDetail:
    """Revoke a truck.

    Its sessions and open enrolment codes end at once and its parcels are refused from now on; what it sent stays.
    Revoking it again changes nothing. It comes back only by enrolling anew.
    """
    await known_truck(call, path.truck)
    await call.api.fleet.revoke_truck(path.truck, call.api.services.now_ms(), revoked_by=call.actor.name)
    return await _detail(call, path.truck)


async def known_truck(call: Call, name: str) -> TruckRecord:
    """Return a truck; raise a 404 `Problem`."""
    truck = await call.api.fleet.truck(name)
    if truck is None:
        raise Problem(404, "no truck of that name is enrolled")
    return truck


async def _detail(call: Call, name: str) -> TruckDetail:
    truck = await known_truck(call, name)
    return TruckDetail(
        **_summary(truck),
        signing_key=truck.signing_key.hex(),
        last_address=truck.last_address,
        desired=_hex(truck.desired_digest),
        desired_reported=_hex(truck.desired_reported),
        status=None if truck.status_json is None else msgspec.json.decode(truck.status_json, type=dict[str, Any]),
        status_ms=truck.status_ms,
        holdings=[_holding(each) for each in await call.api.fleet.holdings(name)],
    )


def _summary(truck: TruckRecord) -> dict[str, Any]:
    current = None if truck.desired_digest is None else truck.desired_digest == truck.desired_reported
    return {
        "truck": truck.name,
        "group": truck.group,
        "enrolled_ms": truck.enrolled_ms,
        "revoked_ms": truck.revoked_ms,
        "last_heard_ms": truck.last_heard_ms,
        "last_link": truck.last_link,
        "up_to_date": current,
    }


def _holding(holding: HoldingRecord) -> HoldingShape:
    return HoldingShape(
        document=holding.document.name.lower(),
        name=holding.name,
        version=holding.version,
        digest=holding.digest.hex(),
        outcome=outcome_name(holding.outcome.name),
        reason=holding.reason,
        time_ms=holding.time_ms,
        received_ms=holding.received_ms,
    )


def outcome_name(name: str) -> str:
    """Return an enum's name as the API writes it."""
    return name.lower().replace("_", "-")


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


OPERATIONS = (list_trucks, get_truck, revoke_truck)
