"""From a request to a declared operation and back: limit, sign in, check, run, answer.

The order is what each step costs a stranger: the address's bucket, the token's look-up, the role, the token's bucket,
the fields of the address, then the body. A handler only runs on values that are already valid.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import msgspec
import structlog
from aiohttp import web

from gateway.api.auth import Actor, Role, actor_of, brings_token, forbidden, presented_token, token_sha256
from gateway.api.bodies import check_media_type, decode_json, read_body
from gateway.api.context import API, Api
from gateway.api.operations import COSE, JSON, OCTETS, Call, Operation
from gateway.api.problem import Problem, from_http_exception, internal_error, problem_response
from gateway.api.ratelimit import address_key

_log = structlog.get_logger(__name__)
_NOBODY = Actor("", Role.VIEWER)
_NO_ROUTE = "none"


@web.middleware
async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turn whatever happens into an answer: a problem for every error, headers and counts for everything."""
    api = request.app[API]
    started = time.monotonic()
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else _NO_ROUTE
    response: web.StreamResponse
    try:
        _limit_address(api, request)
        response = await handler(request)
    except Problem as problem:
        response = problem_response(problem)
    except web.HTTPException as error:
        response = problem_response(from_http_exception(error))
    except (ConnectionError, asyncio.CancelledError):
        raise  # the client has gone; there is nobody to answer
    except Exception as error:
        response = internal_error(error, route=route)
        if request.writer.output_size > 0:
            # The answer is under way: a second one would look like its rest. A cut connection says that it failed.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the answer broke off") from error
    if not response.prepared:
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Server"] = "digitruck"
        await _send(api, request, response)
    api.metrics.requests.labels(_method(request), route, response.status).inc()
    api.metrics.seconds.labels(route).observe(time.monotonic() - started)
    return response


def endpoint(operation: Operation) -> Any:
    """Return the request handler that runs an operation."""

    async def run(request: web.Request) -> web.StreamResponse:
        api = request.app[API]
        actor = await _sign_in(api, request, operation)
        arguments = _fields(request, operation)
        if operation.body_type is not None:
            arguments["body"] = await _body(api, request, operation)
        call = Call(request, api, actor)
        if operation.streams:
            answer = await operation.handler(call, **arguments)
        else:
            try:
                async with asyncio.timeout(api.limits.answer_deadline_s):
                    answer = await operation.handler(call, **arguments)
            except TimeoutError as error:
                raise Problem(503, "the answer took too long; ask for less, or again later") from error
        if operation.changes:
            _log.info("api.command", operation=operation.name, actor=actor.name)
        return answer if isinstance(answer, web.StreamResponse) else json_response(request, answer, operation.status)

    return run


def json_response(request: web.Request, answer: msgspec.Struct, status: int) -> web.Response:
    """Return an answer as JSON with its ETag, 304 when the client has it already, and `Link` to the next page."""
    body = msgspec.json.encode(answer)
    response = web.Response(status=status, body=body, content_type=JSON, charset="utf-8")
    after = getattr(answer, "next", None)
    if after is not None:
        address = request.rel_url.update_query(after=str(after))
        response.headers["Link"] = f'<{address}>; rel="next"'
    if request.method == "GET":
        # What a token may read changes with time and role: a cache may keep it but must ask each time.
        response.headers["Cache-Control"] = "private, no-cache"
        response.etag = hashlib.sha256(body).hexdigest()[:32]
        if is_unchanged(request, response.etag.value if response.etag else ""):
            return not_modified(response)
    return response


def is_unchanged(request: web.Request, etag: str) -> bool:
    """Return whether `If-None-Match` names this entity tag (RFC 9110 section 13.1.2; weak comparison)."""
    tags = request.if_none_match
    return tags is not None and any(tag.value in (etag, "*") for tag in tags)


def not_modified(full: web.StreamResponse) -> web.Response:
    """Return the 304 for an answer, with the headers that RFC 9110 section 15.4.5 asks for."""
    kept = {name: full.headers[name] for name in ("ETag", "Cache-Control", "Link") if name in full.headers}
    return web.Response(status=304, headers=kept)


async def _send(api: Api, request: web.Request, response: web.StreamResponse) -> None:
    """Send a whole answer, at the pace that a body must keep, too: a client that does not read holds nothing here."""
    size = response.content_length or 0
    deadline_s = api.limits.body_deadline_s + size * 8 / api.limits.body_rate_bps_min
    try:
        async with asyncio.timeout(deadline_s):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not read its answer") from error


def charge_stranger(api: Api, request: web.Request) -> None:
    """Make an address pay for a wrong guess."""
    api.by_address.charge(address_key(request.remote), time.monotonic(), api.limits.wrong_token_cost)


def _limit_address(api: Api, request: web.Request) -> None:
    wait_s = api.by_address.take(address_key(request.remote), time.monotonic())
    if wait_s:
        raise _limited(api, "address", wait_s)


async def _sign_in(api: Api, request: web.Request, operation: Operation) -> Actor:
    if operation.needs is None:
        return _NOBODY
    try:
        token = presented_token(request)
        actor = actor_of(await api.fleet.token(token_sha256(token)), api.services.now_ms())
    except Problem:
        if brings_token(request):  # who brings none has guessed nothing
            api.metrics.refused_tokens.inc()
            charge_stranger(api, request)
        raise
    wait_s = api.by_token.take(token_sha256(token).hex(), time.monotonic())
    if wait_s:
        raise _limited(api, "token", wait_s)
    if not actor.role.may(operation.needs):
        _log.warning("api.forbidden", operation=operation.name, actor=actor.name, role=actor.role.value)
        raise forbidden(actor, operation.needs)
    return actor


def _fields(request: web.Request, operation: Operation) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if operation.path_type is not None:
        try:
            arguments["path"] = msgspec.convert(dict(request.match_info), operation.path_type, strict=False)
        except msgspec.ValidationError as error:
            raise Problem(404, f"there is no such thing: {error}") from error
    names = [name for name, _ in request.query.items()]
    if operation.query_type is not None and not operation.query_type.__struct_config__.forbid_unknown_fields:
        # Somebody else made this query and may have put more into it.
        names = [name for name in names if name in operation.query_type.__struct_encode_fields__]
    if len(set(names)) != len(names):
        raise Problem(400, "a query parameter is given twice")
    if operation.query_type is None:
        if names:
            raise Problem(400, "this address takes no query parameters")
        return arguments
    try:
        arguments["query"] = msgspec.convert(dict(request.query), operation.query_type, strict=False)
    except (ValueError, OverflowError) as error:
        raise Problem(400, f"the query is not valid: {error}"[:300]) from error
    return arguments


async def _body(api: Api, request: web.Request, operation: Operation) -> Any:
    check_media_type(request, operation.consumes or JSON)
    limits = {COSE: api.limits.document_bytes_max, OCTETS: api.limits.carried_bytes_max}
    bytes_max = limits.get(operation.consumes or JSON, api.limits.json_bytes_max)
    body = await read_body(request, bytes_max=bytes_max, limits=api.limits)
    return body if operation.body_type is bytes else decode_json(body, operation.body_type or bytes)


def _limited(api: Api, by: str, wait_s: float) -> Problem:
    api.metrics.limited.labels(by).inc()
    seconds = max(1, round(wait_s + 0.5))
    return Problem(
        429, f"too many requests; try again in {seconds} s", headers={"Retry-After": str(seconds)}, close=True
    )


def _method(request: web.Request) -> str:
    # A label's values must be bounded; a stranger may send any method.
    return request.method if request.method in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS") else "other"
