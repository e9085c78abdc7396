"""How a request reaches the gateway's HTTP API and comes back: patience, errors, limits.

A gateway that asks for patience (429, 503 with Retry-After) gets it, for a bounded number of times; what may be
repeated is tried again when a connection breaks. Errors are `ApiError` (the gateway refused, RFC 9457) and
`UnreachableError`. Deliberately absent: redirects and cookies, which could carry the token elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self, TypeVar
from urllib.parse import quote as quoted

import aiohttp
import msgspec
import tenacity

from gateway.answers import Problem
from protocol.errors import LocalError, PeerError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound=msgspec.Struct)

ITEMS_MAX = 100_000
PAGE_ITEMS = 1_000
_ATTEMPTS_MAX = 6
_WAIT_S_MAX = 30.0
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=90)
_ANSWER_BYTES_MAX = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class ApiError(PeerError):
    """The gateway refused a request; the text is written for the person who sent it."""

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        super().__init__(problem.detail or problem.title or f"the gateway answered {problem.status}")
        self.status = problem.status
        self.kind = problem.kind
        self.offset = problem.offset
        self.retry_after_s = retry_after_s


class UnreachableError(PeerError):
    """The gateway could not be reached, broke off, or is not a gateway. `repeatable`: trying again harms nothing."""

    def __init__(self, message: str, *, repeatable: bool = False) -> None:
        super().__init__(message)
        self.repeatable = repeatable


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer before it is decoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One server-sent event."""

    id: int
    data: bytes


class Page(Protocol[T_co]):
    """What every listing answers."""

    @property
    def items(self) -> Sequence[T_co]: ...
    @property
    def next(self) -> str | None: ...


class ApiCalls:
    """Calls to the gateway at `url` for the holder of `token`; an async context manager."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "User-Agent": "digitruck"}
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            headers=self._headers,
            timeout=_TIMEOUT,
            trust_env=True,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request, patiently; raise `ApiError` or `UnreachableError`."""
        fields = dict(headers or {})
        if content_type is not None:
            fields["Content-Type"] = content_type
        return await _patiently()(self._once, method, path, query=query, body=body, headers=fields)

    async def download(
        self, path: str, query: Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the body of a GET of any size as it comes; raise `ApiError`, or `UnreachableError` also midway.

        Patience is for the beginning only: what was yielded cannot be taken back.
        """
        response: aiohttp.ClientResponse = await _patiently()(self._begin, path, query, headers)
        try:
            async for piece in response.content.iter_chunked(_PIECE_BYTES):
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachableError(f"the answer broke off ({_reason(error)}): run the command again") from error
        finally:
            response.close()

    async def _begin(
        self, path: str, query: Mapping[str, object], headers: Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        parameters = {name: str(value) for name, value in query.items() if value is not None}
        try:
            response = await self.http.get(self.url + path, params=parameters, headers=headers, allow_redirects=False)
            if response.status != (206 if headers and "Range" in headers else 200):
                async with response:
                    await read_answer(response)
            return response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error, repeatable=True) from error

    async def _once(
        self, method: str, path: str, *, query: Mapping[str, object] | None, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        parameters = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self.http.request(
                method, self.url + path, params=parameters, data=body, headers=headers, allow_redirects=False
            ) as response:
                return await read_answer(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error, repeatable=method in _IDEMPOTENT) from error

    def _unreachable(self, error: BaseException, *, repeatable: bool) -> UnreachableError:
        sent_nothing = isinstance(error, aiohttp.ClientConnectorError)
        return UnreachableError(
            f"the gateway at {self.url} cannot be reached ({_reason(error)}): is the address right, is it running?",
            repeatable=repeatable and not sent_nothing,
        )

    async def stream(self, path: str, query: Mapping[str, object], after: int | None) -> AsyncIterator[StreamEvent]:
        """Yield server-sent events for ever, going on after the last one when the connection breaks.

        Raises `UnreachableError` once the gateway stays away, and `ApiError` when it refuses.
        """
        failures = 0
        parameters = {name: str(value) for name, value in query.items() if value is not None}
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after is not None else {})
            try:
                async with self.http.get(
                    self.url + path, params=parameters, headers=headers, allow_redirects=False
                ) as response:
                    if response.status != 200:
                        await read_answer(response)
                    async for event in _events(response.content):
                        failures, after = 0, event.id
                        yield event
            except (aiohttp.ClientError, TimeoutError) as error:
                failures += 1
                if failures >= _ATTEMPTS_MAX:
                    raise UnreachableError(f"the gateway at {self.url} stays away ({_reason(error)})") from error
            await asyncio.sleep(min(_WAIT_S_MAX, 0.2 * 2.0**failures))

    @property
    def http(self) -> aiohttp.ClientSession:
        """The open session."""
        if self._http is None:
            raise RuntimeError("use the client as a context manager: async with Client(...) as client")
        return self._http

    async def get(self, path: str, kind: type[S], query: Mapping[str, object] | None = None) -> S:
        """Return what a GET answers."""
        return decode(await self.call("GET", path, query=query), kind)

    async def list_all(self, path: str, kind: type[Page[T]], query: Mapping[str, object], limit: int) -> list[T]:
        """Return the items of all pages of a listing, at most `limit`."""
        found: list[T] = []
        after: str | None = None
        while len(found) < limit:
            asked = {**query, "after": after, "limit": min(PAGE_ITEMS, limit - len(found))}
            page: Page[T] = decode(await self.call("GET", path, query=asked), kind)  # type: ignore[type-var]
            found += page.items
            if page.next is None or page.next == after:
                break
            after = page.next
        return found


async def read_answer(response: aiohttp.ClientResponse) -> Answer:
    """Return a good answer; raise `ApiError` for any other."""
    body = await response.content.read(_ANSWER_BYTES_MAX + 1)
    while not response.content.at_eof() and len(body) <= _ANSWER_BYTES_MAX:
        body += await response.content.read(_ANSWER_BYTES_MAX + 1 - len(body))
    if len(body) > _ANSWER_BYTES_MAX:
        raise UnreachableError(f"the answer is larger than {_ANSWER_BYTES_MAX} bytes: ask for a shorter period")
    if response.status < 300:
        return Answer(response.status, response.headers, body)
    if response.status < 400:
        raise UnreachableError(
            f"{response.url.origin()} redirects; give the gateway's own address: digitruck login URL"
        )
    problem = Problem(status=response.status, title=response.reason or "")
    if response.content_type == "application/problem+json":
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            problem = msgspec.structs.replace(msgspec.json.decode(body, type=Problem), status=response.status)
    after = response.headers.get("Retry-After", "")
    raise ApiError(problem, retry_after_s=float(after) if after.isdigit() and len(after) < 6 else None)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[StreamEvent]:
    """Yield the events of a stream (WHATWG HTML section 9.2.6), of the fields that ours use: id and data."""
    identity, data = 0, bytearray()
    while line := await content.readline():
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id" and value.isdigit() and len(value) <= 18:
            identity = int(value)
        elif name == b"data":
            data += value
        elif not line.strip():
            if data:
                yield StreamEvent(identity, bytes(data))
            data = bytearray()


def decode(answer: Answer, kind: type[S]) -> S:
    """Return the struct in an answer; raise `UnreachableError` if this is not a gateway's."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreachableError(f"this does not answer like a gateway ({error}): is the address right?") from error


def _patiently() -> tenacity.AsyncRetrying:
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_worth_repeating),
        wait=_wait_s,
        stop=tenacity.stop_after_attempt(_ATTEMPTS_MAX),
        reraise=True,
    )


def _worth_repeating(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return error.retry_after_s is not None and error.retry_after_s <= _WAIT_S_MAX and error.status in (429, 503)
    return isinstance(error, UnreachableError) and error.repeatable


def _wait_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, ApiError) and error.retry_after_s is not None:
        return error.retry_after_s
    return min(_WAIT_S_MAX, 0.2 * 2.0**state.attempt_number)


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    return str(error) or type(error).__name__


def stamp(time_ms: int | None) -> str | None:
    """Return a time (Unix ms) as RFC 3339."""
    return None if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def path_part(text: str) -> str:
    """Return text as one segment of a path, so that what a person typed can never name another route."""
    if text in ("", ".", ".."):
        raise LocalError(f"{text!r} is not a name")
    return quoted(text, safe="")
