"""Alarms: what somebody should look at, since when, and what to do; a person acknowledges one, its rule ends it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway.api.auth import OPERATOR, VIEWER
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, PageQuery, Shape, number_cursor
from protocol.wire import Name
from store.fleet.alarms import AlarmRecord


class AlarmQuery(PageQuery, frozen=True):
    """Of one truck or of all; those that are over only if `all` is true."""

    truck: Name | None = None
    all: bool = False


class AlarmPath(Shape, frozen=True):
    """An alarm in an address."""

    id: Annotated[int, Meta(ge=1, le=1 << 53)]


class AlarmShape(Shape, frozen=True):
    """One alarm. `subject` is what of the truck is meant, a link for instance; null `cleared_ms`: it still holds."""

    id: int
    rule: str
    truck: str | None
    subject: str
    severity: str
    since_ms: Millis
    text: str
    next_step: str
    acknowledged_ms: Millis | None
    acknowledged_by: str | None
    cleared_ms: Millis | None


class AlarmPage(Shape, frozen=True):
    """Alarms, newest first."""

    items: list[AlarmShape]
    next: str | None


@operation("GET", "/v1/alarms", tag="alarms", needs=VIEWER)
async def list_alarms(call: Call, query: AlarmQuery) -> AlarmPage:
    """List the alarms that hold, newest first."""
    found = await call.api.fleet.alarms(
        query.truck, with_cleared=query.all, after=number_cursor(query.after), limit=query.served + 1
    )
    page = found[: query.served]
    return AlarmPage(
        items=[_shape(each) for each in page], next=str(page[-1].id) if len(found) > query.served else None
    )


@operation("POST", "/v1/alarms/{id}/acknowledge", tag="alarms", needs=OPERATOR)
async def acknowledge_alarm(call: Call, path: AlarmPath) -> AlarmShape:
    """Say that an alarm was seen; who said so first stands."""
    found = await call.api.fleet.acknowledge_alarm(path.id, call.api.services.now_ms(), actor=call.actor.name)
    if found is None:
        raise Problem(404, "no alarm of that id is here")
    return _shape(found)


def _shape(each: AlarmRecord) -> AlarmShape:
    return AlarmShape(
        id=each.id,
        rule=each.rule,
        truck=each.truck or None,
        subject=each.subject,
        severity=each.severity,
        since_ms=each.since_ms,
        text=each.text,
        next_step=each.next_step,
        acknowledged_ms=each.acknowledged_ms,
        acknowledged_by=each.acknowledged_by,
        cleared_ms=each.cleared_ms,
    )


OPERATIONS = (list_alarms, acknowledge_alarm)
