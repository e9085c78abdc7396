"""The truck's HTTP service for the classroom LAN and for scripts on the truck (aiohttp).

    GET  /                      a status page for the teacher
    GET  /v1/status             the same as JSON
    GET  /content/NAME/...      the active bundle's files
    POST /v1/records            {"values": {CHANNEL: NUMBER, ...}, "time": UNIX_S?}              204
    GET  /digitruck/objects/... files of active bundles by their digest, for another truck
    POST /v1/events             {"name": ..., "precedence"?, "values"?: {...}, "time"?}          201 {"sequence": n}
    GET  /sessions              where a teacher enters lessons (sessions.py); POST takes one from that page
    POST /v1/sticks             {"action": "import" | "export", "path": ..., "content"?: [...]}  202; GET: how it does

Whoever is on the classroom's Wi-Fi may read; only local scripts may write (`local_post_from`), and no web page may,
whoever shows it. Bodies, times, connections and requests at once are bounded; errors are problem+json (RFC 9457).
Deliberately absent: listening (classroom_server.py), accounts, TLS, and anything that changes the truck.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final, Protocol, TypeVar

import msgspec
import structlog
from aiohttp import web

from edge.classroom_content import ContentHandler, ContentSource
from edge.config import ClassroomSettings
from edge.log_limit import LogLimit
from edge.pages import CONTENT_SECURITY_POLICY, choose_language, start_page
from edge.sessions import SessionPages
from edge.status import EdgeStatus
from edge.sticks import StickBody, StickState
from protocol.errors import LocalError, PeerError, QueueFullError
from protocol.numbers import TEXT_CHARS_MAX, Precedence
from protocol.schema import CHANNELS_MAX, NAME_CHARS_MAX

POST_BYTES_MAX: Final = 32 * 1024
POST_S_MAX: Final = 10.0
POSTS_AT_ONCE_MAX: Final = 16
READS_AT_ONCE_MAX: Final = 96  # 21 workstations with four downloads each

EventValue = int | bool | str
ChannelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9\-:./_]*$", max_length=NAME_CHARS_MAX)]
UnixTime = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]  # to the year 10000
_T = TypeVar("_T")
_BodyT = TypeVar("_BodyT", bound=msgspec.Struct)
_log = structlog.get_logger("edge.classroom")


class Recorder(Protocol):
    """Where records and events go. Both return only once what they were given cannot be lost any more.

    They raise `PeerError` for what they do not take (an unknown channel), `QueueFullError` when there is no room.
    """

    async def record(self, values: tuple[tuple[str, float], ...], time_s: float | None) -> None:
        """Take one row of (channel, value); `time_s` is Unix time, None means now."""

    async def event(
        self, name: str, precedence: Precedence, values: tuple[tuple[str, EventValue], ...], time_s: float | None
    ) -> int:
        """Take one event and return its parcel's sequence number."""


class StatusSource(Protocol):
    """What knows how the truck does."""

    def status(self) -> EdgeStatus:
        """Return it as it is now, without waiting for anything."""


class RecordsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/records."""

    values: Annotated[dict[ChannelName, float], msgspec.Meta(min_length=1, max_length=CHANNELS_MAX)]
    time: UnixTime | None = None


class EventBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/events."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    precedence: Annotated[str, msgspec.Meta(pattern="^(flash|priority|normal|bulk)$")] = "normal"
    values: Annotated[
        dict[
            Annotated[str, msgspec.Meta(min_length=1, max_length=64)],
            Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
            | bool
            | Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)],
        ],
        msgspec.Meta(max_length=64),
    ] = {}
    time: UnixTime | None = None


class StickDesk(Protocol):
    """What imports and exports couriers' sticks."""

    def begin(self, body: StickBody) -> StickState:
        """Begin one; raise `LocalError` while another one runs."""

    def state(self) -> StickState:
        """Return how the one that was begun last does."""


def make_classroom(
    settings: ClassroomSettings,
    *,
    recorder: Recorder,
    status: StatusSource,
    content: ContentSource,
    sticks: StickDesk | None = None,
) -> web.Application:
    """Return the application; raise ValueError naming the entry of `local_post_from` that is no network."""
    service = _Classroom(settings, recorder, status, content, sticks)
    files = ContentHandler(content, settings.language)
    app = web.Application(client_max_size=POST_BYTES_MAX, middlewares=[service.guard])
    app.router.add_get("/", service.page)
    sessions = SessionPages(recorder, pin=settings.teacher_pin, monotonic=time.monotonic, language=settings.language)
    app.router.add_get("/sessions", sessions.show)
    app.router.add_post("/sessions", sessions.enter)
    app.router.add_get("/v1/status", service.status)
    app.router.add_post("/v1/records", service.records)
    app.router.add_post("/v1/events", service.events)
    app.router.add_get("/v1/sticks", service.stick)
    app.router.add_post("/v1/sticks", service.begin_stick)
    app.router.add_get("/digitruck/objects/{folder}/{name}", files.by_digest)
    app.router.add_get("/content/{name}", files.redirect)
    app.router.add_get("/content/{name}/{path:.*}", files.get)
    return app


class _Problem(Exception):
    """An answer that is no success; `detail` says what to do about it."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail


class _Classroom:
    def __init__(
        self,
        settings: ClassroomSettings,
        recorder: Recorder,
        status: StatusSource,
        content: ContentSource,
        sticks: StickDesk | None,
    ) -> None:
        self._sticks = sticks
        self._language = settings.language
        self._writers = parse_networks(settings.local_post_from)
        self._recorder, self._status, self._content = recorder, status, content
        self._reads = self._posts = 0
        self._limit = LogLimit()

    @web.middleware
    async def guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Bound what runs at once, and turn every error into problem+json."""
        posting = request.method not in ("GET", "HEAD")
        try:
            if (self._posts >= POSTS_AT_ONCE_MAX) if posting else (self._reads >= READS_AT_ONCE_MAX):
                raise _Problem(503, "Busy", "too many requests at once; try again in some seconds")
            self._posts, self._reads = self._posts + posting, self._reads + (not posting)
            try:
                return await handler(request)
            finally:
                self._posts, self._reads = self._posts - posting, self._reads - (not posting)
        except _Problem as problem:
            return _answer(problem.status, problem.title, problem.detail)
        except web.HTTPException as error:
            detail = error.text if error.text and not error.text.startswith(f"{error.status}:") else ""
            answer = _answer(error.status, error.reason, detail)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except ConnectionError:
            raise  # there is nobody to answer any more
        except Exception as error:
            kept_back = self._limit.admit("classroom.failed", asyncio.get_running_loop().time())
            if kept_back is not None:
                _log.error("classroom.failed", path=request.path[:80], kept_back=kept_back, exc_info=error)
            return _answer(500, "Internal error", "this is the truck's fault; its log says more")

    async def page(self, request: web.Request) -> web.Response:
        """Answer GET /."""
        language = choose_language(request.headers.get("Accept-Language"), self._language)
        text = start_page(self._status.status(), self._content.bundles(), language)
        headers = {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Cache-Control": "no-store",
            "Vary": "Accept-Language",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)

    async def status(self, request: web.Request) -> web.Response:
        """Answer GET /v1/status."""
        return _json(200, self._status.status())

    async def records(self, request: web.Request) -> web.Response:
        """Answer POST /v1/records."""
        body = await self._body(request, RecordsBody)
        await self._handed_over(self._recorder.record(tuple(body.values.items()), body.time))
        return web.Response(status=204)

    async def events(self, request: web.Request) -> web.Response:
        """Answer POST /v1/events."""
        body = await self._body(request, EventBody)
        precedence = Precedence[body.precedence.upper()]
        values = tuple(body.values.items())
        sequence = await self._handed_over(self._recorder.event(body.name, precedence, values, body.time))
        return _json(201, {"sequence": sequence})

    async def stick(self, request: web.Request) -> web.Response:
        """Answer GET /v1/sticks."""
        self._require_script(request)
        if self._sticks is None:
            raise web.HTTPNotFound
        return _json(200, self._sticks.state())

    async def begin_stick(self, request: web.Request) -> web.Response:
        """Answer POST /v1/sticks."""
        body = await self._body(request, StickBody)
        if self._sticks is None:
            raise web.HTTPNotFound
        try:
            return _json(202, self._sticks.begin(body))
        except LocalError as error:
            raise _Problem(409, "Busy", str(error)) from error

    def _require_script(self, request: web.Request) -> None:
        if not is_within(request.remote, self._writers):
            raise _Problem(403, "Forbidden", "only scripts on the truck may write (local_post_from)")
        # A page that somebody on the truck looks at could post as well; browsers say so, scripts do not.
        if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
            raise _Problem(403, "Forbidden", "web pages may not write here")

    async def _body(self, request: web.Request, body_type: type[_BodyT]) -> _BodyT:
        self._require_script(request)
        if request.content_type != "application/json":
            raise _Problem(415, "Unsupported media type", "send application/json")
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Problem(415, "Unsupported media type", "send the body without Content-Encoding")
        try:
            async with asyncio.timeout(POST_S_MAX):
                raw = await request.read()
        except TimeoutError:
            raise _Problem(408, "Too slow", f"the body must arrive within {POST_S_MAX:g} s") from None
        try:
            return msgspec.json.decode(raw, type=body_type)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _Problem(400, "Malformed body", str(error)[:TEXT_CHARS_MAX]) from None

    @staticmethod
    async def _handed_over(taken: Awaitable[_T]) -> _T:
        try:
            return await taken
        except QueueFullError as error:
            raise _Problem(507, "No room", str(error)) from error
        except PeerError as error:
            raise _Problem(422, "Not taken", str(error)) from error
        except LocalError as error:
            raise _Problem(409, "Not possible now", str(error)) from error


def parse_networks(texts: Sequence[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return the networks; raise ValueError naming the entry that is none."""
    networks = []
    for index, text in enumerate(texts):
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise ValueError(f"classroom.local_post_from[{index}]: {error}") from error
    return tuple(networks)


def is_within(address: str | None, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Tell whether a peer's address is in one of the networks; IPv4 inside IPv6 counts as IPv4."""
    try:
        peer = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return any((mapped or peer) in network for network in networks)


def _json(status: int, value: object) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(value),
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def _answer(status: int, title: str, detail: str) -> web.Response:
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    response = _json(status, problem)
    response.content_type = "application/problem+json"
    if status in (503, 507):
        response.headers["Retry-After"] = "5"
    return response
