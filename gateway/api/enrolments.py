"""Enrolment codes: made here once, shown once, kept only as the hash of their secret."""

from __future__ import annotations

import secrets
from typing import Annotated

from msgspec import Meta

from gateway.api.auth import OPERATOR
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, PageQuery, Shape, number_cursor
from protocol import cose
from protocol.errors import DigitruckError
from protocol.numbers import ENROL_SECRET_BYTES
from protocol.wire import Name

_DAY_S = 86_400
Lifetime = Annotated[int, Meta(ge=60, le=30 * _DAY_S, description="seconds until the code is worth nothing")]


class EnrolmentRequest(Shape, frozen=True):
    """Which truck may enrol, in which group, and for how long the code holds.

    Without a group a truck that is known keeps its own; another gets `fleet`.
    """

    truck: Name
    group: Name | None = None
    expires_in_s: Lifetime = _DAY_S


class EnrolmentCode(Shape, frozen=True):
    """The one-time code. `replaces` tells that a truck of this name is enrolled, whose keys the code replaces."""

    truck: str
    group: str
    code: str
    expires_ms: Millis
    replaces: bool


class EnrolmentShape(Shape, frozen=True):
    """A code that was given out; the code itself is not kept."""

    id: int
    truck: str
    group: str
    created_ms: Millis
    created_by: str
    expires_ms: Millis
    redeemed_ms: Millis | None


class EnrolmentPage(Shape, frozen=True):
    """Codes that were given out."""

    items: list[EnrolmentShape]
    next: str | None


@operation("POST", "/v1/enrolments", tag="trucks", needs=OPERATOR, status=201, problems=(409,))
async def create_enrolment(call: Call, body: EnrolmentRequest) -> EnrolmentCode:
    """Make a one-time code that enrols a truck.

    The code is in this answer and nowhere else: who has it can be that truck until it is used or expires.
    """
    fleet, services = call.api.fleet, call.api.services
    if services.is_revoked(body.truck):
        step = f"digitruck trust revoke --allow {body.truck}, then trust push"
        raise Problem(409, f"{body.truck} is revoked by a signed role table: {step}")
    secret = secrets.token_bytes(ENROL_SECRET_BYTES)
    try:
        code = services.make_code(body.truck, secret)
    except DigitruckError as error:  # for instance: no root is there to be pinned yet
        raise Problem(409, str(error)) from error
    now_ms = services.now_ms()
    expires_ms = now_ms + body.expires_in_s * 1000
    known = await fleet.truck(body.truck)
    group = body.group or ("fleet" if known is None else known.group)
    await fleet.create_enrolment(body.truck, group, cose.digest(secret), expires_ms, call.actor.name, now_ms=now_ms)
    return EnrolmentCode(truck=body.truck, group=group, code=code, expires_ms=expires_ms, replaces=known is not None)


@operation("GET", "/v1/enrolments", tag="trucks", needs=OPERATOR)
async def list_enrolments(call: Call, query: PageQuery) -> EnrolmentPage:
    """List the codes that were given out, without the codes."""
    found = await call.api.fleet.enrolments(after=number_cursor(query.after), limit=query.served + 1)
    items = [
        EnrolmentShape(
            id=each.id,
            truck=each.truck,
            group=each.group,
            created_ms=each.created_ms,
            created_by=each.created_by,
            expires_ms=each.expires_ms,
            redeemed_ms=each.redeemed_ms,
        )
        for each in found[: query.served]
    ]
    return EnrolmentPage(items=items, next=str(items[-1].id) if len(found) > query.served else None)


OPERATIONS = (create_enrolment, list_enrolments)
