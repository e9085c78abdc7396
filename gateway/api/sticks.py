"""Couriers' sticks: plan one for some trucks, revoke one that was lost, bring in what trucks gave a courier.

The gateway plans and signs; whoever asked fetches documents and files by their digests and writes the stick. No
person's key is needed: everything on it is signed already.
"""

from __future__ import annotations

import base64
from typing import Annotated

from msgspec import Meta

from gateway.api.auth import OPERATOR, VIEWER
from gateway.api.operations import OCTETS, Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Limit, Millis, Shape, bad_cursor
from gateway.couriers import Couriers, Plan
from protocol.documents import Stick, parse_document
from protocol.errors import PeerError
from protocol.numbers import STICK_TRUCKS_MAX
from protocol.wire import Name
from store.fleet.records import StickRecord

_DAY_S = 86_400
StickHex = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$", description="a stick's id, 32 lower-case hex digits")]


class StickPath(Shape, frozen=True):
    """A stick in an address."""

    stick: StickHex


class SticksQuery(Shape, frozen=True):
    """A page of sticks, newest first."""

    limit: Limit = 100
    after: Annotated[str, Meta(max_length=256, description="`next` of the page before")] | None = None


class CarriedQuery(Shape, frozen=True):
    """Which stick a file came on, where that is known: nothing is taken from one that was revoked."""

    stick: StickHex | None = None


class StickRequest(Shape, frozen=True):
    """For which trucks; `sealed`: only they can read it; `packs`: those that they are fetching in place of files."""

    trucks: Annotated[list[Name], Meta(min_length=1, max_length=STICK_TRUCKS_MAX)]
    sealed: bool = False
    packs: bool = False
    expires_in_s: Annotated[int, Meta(ge=3_600, le=366 * _DAY_S)] = 90 * _DAY_S


class StickShape(Shape, frozen=True):
    """A stick that was planned."""

    stick: str
    trucks: list[str]
    sealed: bool
    made_ms: Millis
    made_by: str
    expires_ms: Millis
    revoked_ms: Millis | None
    imported_ms: Millis | None


class StickPage(Shape, frozen=True):
    """Sticks, newest first."""

    items: list[StickShape]
    next: str | None


class TruckPlanShape(Shape, frozen=True):
    """What one truck gets: its desired state (base64), and the digests of documents, manifests, and manifests held."""

    truck: str
    desired: str
    documents: list[str]
    manifests: list[str]
    held: list[str]


class StickPlan(StickShape, frozen=True):
    """What is to be written: `signed` (base64) as stick.cose, then what its trucks get; `key`, if there, seals it."""

    signed: str
    key: str | None
    plans: list[TruckPlanShape]


class CarriedShape(Shape, frozen=True):
    """What became of a file: parcels that are new, that were here before, and that were refused."""

    truck: str
    new: int
    known: int
    refused: int


@operation("POST", "/v1/sticks", tag="sticks", needs=OPERATOR, status=201, problems=(422,))
async def create_stick(call: Call, body: StickRequest) -> StickPlan:
    """Plan a stick for some trucks. It can be revoked from now on."""
    try:
        plan = await _couriers(call).plan(
            body.trucks,
            sealed=body.sealed,
            lifetime_s=body.expires_in_s,
            by=call.actor.name,
            packs=body.packs,
        )
    except PeerError as error:
        raise Problem(422, str(error)) from error
    return _plan(plan)


@operation("GET", "/v1/sticks", tag="sticks", needs=VIEWER)
async def list_sticks(call: Call, query: SticksQuery) -> StickPage:
    """List the sticks that were planned."""
    limit = min(query.limit, 200)
    before = None
    if query.after is not None:
        if not query.after.isascii() or not query.after.isdigit() or len(query.after) > 18:
            raise bad_cursor()
        before = int(query.after)
    found = await call.api.fleet.sticks(before_ms=before, limit=limit + 1)
    items = [_stick(each) for each in found[:limit]]
    return StickPage(items=items, next=str(items[-1].made_ms) if len(found) > limit else None)


@operation("GET", "/v1/sticks/{stick}", tag="sticks", needs=OPERATOR, problems=(404, 409))
async def get_stick(call: Call, path: StickPath) -> StickPlan:
    """Return a stick's plan once more, to go on writing it; 409 when it was revoked or its trucks should have more."""
    stick = bytes.fromhex(path.stick)
    if await call.api.fleet.stick(stick) is None:
        raise Problem(404, "no stick of this id was made here")
    try:
        return _plan(await _couriers(call).again(stick))
    except PeerError as error:
        raise Problem(409, str(error)) from error


@operation("DELETE", "/v1/sticks/{stick}", tag="sticks", needs=OPERATOR, problems=(404,))
async def revoke_stick(call: Call, path: StickPath) -> StickShape:
    """Revoke a stick that was lost: nothing is taken from it any more, here or by a truck that heard of it."""
    record = await _couriers(call).revoke(bytes.fromhex(path.stick), call.actor.name)
    if record is None:
        raise Problem(404, "no stick of this id was made here")
    return _stick(record)


@operation("POST", "/v1/carried", tag="sticks", needs=OPERATOR, consumes=OCTETS, problems=(422,))
async def take_carried(call: Call, body: bytes, query: CarriedQuery) -> CarriedShape:
    """Bring in a file that a truck gave a courier. Doing it again changes nothing."""
    stick = None if query.stick is None else bytes.fromhex(query.stick)
    try:
        taken = await _couriers(call).take(body, stick, call.actor.name)
    except PeerError as error:
        raise Problem(422, str(error)) from error
    return CarriedShape(truck=taken.truck, new=taken.new, known=taken.known, refused=taken.refused)


def _couriers(call: Call) -> Couriers:
    couriers = call.api.services.couriers
    if couriers is None:
        raise Problem(503, "this gateway plans no sticks")
    return couriers


def _stick(record: StickRecord) -> StickShape:
    document, _ = parse_document(record.signed, Stick)
    return StickShape(
        stick=record.stick.hex(),
        trucks=[each.truck for each in document.trucks],
        sealed=record.key is not None,
        made_ms=record.made_ms,
        made_by=record.made_by,
        expires_ms=record.expires_ms,
        revoked_ms=record.revoked_ms,
        imported_ms=record.imported_ms,
    )


def _plan(plan: Plan) -> StickPlan:
    about = _stick(plan.record)
    return StickPlan(
        **{name: getattr(about, name) for name in StickShape.__struct_fields__},
        signed=base64.b64encode(plan.record.signed).decode(),
        key=None if plan.record.key is None else plan.record.key.hex(),
        plans=[
            TruckPlanShape(
                truck=each.truck,
                desired=base64.b64encode(each.desired).decode(),
                documents=[digest.hex() for digest in each.documents],
                manifests=[digest.hex() for digest in each.manifests],
                held=[digest.hex() for digest in each.held],
            )
            for each in plan.trucks
        ],
    )


OPERATIONS = (create_stick, list_sticks, get_stick, revoke_stick, take_carried)
