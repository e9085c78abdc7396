"""Live changes as server-sent events; a reader that lost its connection goes on where it was (`Last-Event-ID`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp import web
from aiohttp_sse import EventSourceResponse
from msgspec import Meta

from gateway.api.auth import VIEWER, actor_of, presented_token, token_sha256
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, Shape
from protocol.wire import Name
from store.fleet.records import Change

_MEDIA = "text/event-stream"
_PING_S = 15.0
_SEND_S = 30.0
# A revoked token's stream ends within this time (trust: at most 60 s).
CHECK_TOKEN_S = 20.0
_log = structlog.get_logger(__name__)


class StreamQuery(Shape, frozen=True):
    """Only changes of one truck, or of some kinds (comma-separated); `after` is for who cannot set Last-Event-ID."""

    truck: Name | None = None
    kinds: Annotated[str, Meta(max_length=256)] | None = None
    after: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None


class ChangeShape(Shape, frozen=True):
    """The data of one event; its id and kind are the event's `id` and `event`."""

    kind: str
    truck: str | None
    subject: str
    at_ms: Millis


@operation("GET", "/v1/stream", tag="stream", needs=VIEWER, media=(_MEDIA,), streams=True)
async def get_stream(call: Call, query: StreamQuery) -> web.StreamResponse:
    """Follow changes as they are committed (server-sent events).

    Each event's data is JSON with kind, truck, subject and at_ms: enough to know what to read again. An event of kind
    `gap` says that older changes are no longer kept: read everything again.
    """
    api = call.api
    if api.streams.locked():
        raise Problem(503, "as many streams are open as the gateway allows", headers={"Retry-After": "30"})
    after = _last_event_id(call.request, query)
    async with api.streams:
        with api.metrics.streams.track_inprogress():
            response = EventSourceResponse(ping_interval=_PING_S, send_timeout=_SEND_S)
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["Server"] = "digitruck"
            await response.prepare(call.request)
            async with response:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await _follow(call, query, response, api.fleet.changes.subscribe(after=after))
            return response


async def _follow(
    call: Call, query: StreamQuery, response: EventSourceResponse, changes: AsyncIterator[Change]
) -> None:
    """Send changes until the client goes, the gateway stops, or the token no longer holds."""
    kinds = None if query.kinds is None else frozenset(query.kinds.split(","))
    gone = asyncio.ensure_future(response.wait())
    closing = asyncio.ensure_future(call.api.closing.wait())
    upcoming = asyncio.ensure_future(_next(changes))
    clock = asyncio.get_running_loop().time
    check_at = clock() + CHECK_TOKEN_S
    try:
        while True:
            waiting: set[asyncio.Future[Any]] = {upcoming, gone, closing}
            await asyncio.wait(waiting, timeout=max(0.0, check_at - clock()), return_when=asyncio.FIRST_COMPLETED)
            if gone.done() or closing.done():
                return
            if clock() >= check_at:
                if not await _still_signed_in(call):
                    return
                check_at = clock() + CHECK_TOKEN_S
            if not upcoming.done():
                continue
            change = upcoming.result()
            if change is None:
                return
            upcoming = asyncio.ensure_future(_next(changes))
            if change.kind == "gap" or (
                (kinds is None or change.kind in kinds) and (query.truck is None or change.truck == query.truck)
            ):
                await response.send(_data(change), id=str(change.id), event=change.kind)
    finally:
        for task in (upcoming, gone, closing):
            task.cancel()
        await asyncio.gather(upcoming, gone, closing, return_exceptions=True)


async def _next(changes: AsyncIterator[Change]) -> Change | None:
    return await anext(changes, None)


async def _still_signed_in(call: Call) -> bool:
    record = await call.api.fleet.token(token_sha256(presented_token(call.request)))
    try:
        actor_of(record, call.api.services.now_ms())
    except Problem:
        _log.info("api.stream_ended", actor=call.actor.name, reason="token")
        return False
    return True


def _last_event_id(request: web.Request, query: StreamQuery) -> int | None:
    text = request.headers.get(EventSourceResponse.DEFAULT_LAST_EVENT_HEADER)
    if text is None:
        return query.after
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise Problem(400, "Last-Event-ID is not an id of this stream")
    return int(text)


def _data(change: Change) -> str:
    shape = ChangeShape(kind=change.kind, truck=change.truck, subject=change.subject, at_ms=change.at_ms)
    return msgspec.json.encode(shape).decode()


OPERATIONS = (get_stream,)
