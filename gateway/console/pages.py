"""One page, declared once: its address, who may see it, its template. Errors become pages, too.

A handler gets the same `Call` as the API's handlers and asks those for everything that it shows, so that a page can
never show or do more than its reader's role may by the API. A signed-out reader is sent to the sign-in page.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints
from urllib.parse import quote

import msgspec
import structlog
from aiohttp import web

from gateway.api.auth import VIEWER, Actor, Role, forbidden
from gateway.api.context import API
from gateway.api.operations import Call, Operation
from gateway.api.problem import Problem
from gateway.api.shapes import Shape
from gateway.console.render import CONTENT_SECURITY_POLICY, render
from gateway.console.session import reader, signed_in
from gateway.console.words import language_of

_FORM_FIELDS_MAX = 64
_NOBODY = Actor("", Role.VIEWER)
_log = structlog.get_logger(__name__)
P = TypeVar("P", bound=Shape)


@dataclass(frozen=True, slots=True)
class View:
    """What a page shows: a template and its values."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Page:
    """A declared page. `needs` is None where nobody has to sign in."""

    method: str
    path: str
    needs: frozenset[Role] | None
    path_type: type[Shape] | None
    query_type: type[Shape] | None
    handler: Callable[..., Awaitable[Any]]


def page(
    method: str, path: str, *, needs: frozenset[Role] | None = VIEWER
) -> Callable[[Callable[..., Awaitable[Any]]], Page]:
    """Declare a page; the handler's parameters `path` and `query` name the structs that its address is checked by."""

    def declare(handler: Callable[..., Awaitable[Any]]) -> Page:
        hints = get_type_hints(handler)
        taken = set(inspect.signature(handler).parameters)
        return Page(
            method,
            path,
            needs,
            hints["path"] if "path" in taken else None,
            hints["query"] if "query" in taken else None,
            handler,
        )

    return declare


def endpoint(declared: Page) -> Any:
    """Return the request handler that shows a page."""

    async def run(request: web.Request) -> web.StreamResponse:
        api = request.app[API]
        actor = _NOBODY
        try:
            if declared.needs is None:
                actor = await reader(api, request) or _NOBODY
            else:
                actor = await signed_in(api, request)
                if not actor.role.may(declared.needs):
                    raise forbidden(actor, declared.needs)
            call = Call(request, api, actor)
            answer = await declared.handler(call, **_fields(request, declared))
        except Problem as problem:
            if problem.status == 401:
                return _to_sign_in(request)
            answer = View("problem.html", {"status": problem.status, "detail": problem.detail}, problem.status)
            call = Call(request, api, actor)
        if isinstance(answer, View):
            return await respond(call, answer)
        response: web.StreamResponse = answer
        return response

    return run


async def respond(call: Call, view: View) -> web.Response:
    """Return a view as a whole page."""
    text = await render(view.template, view.values, call, language_of(call.request))
    response = web.Response(text=text, status=view.status, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Vary"] = "Accept-Language, Cookie"
    response.enable_compression()
    return response


def see_other(address: str) -> web.Response:
    """Return the answer to a form that was taken: look there now."""
    return web.Response(status=303, headers={"Location": address})


async def ask(call: Call, operation: Operation, **arguments: Any) -> Any:
    """Run an operation of the API as the page's reader; raise the `Problem` that the API would answer."""
    if operation.needs is not None and not call.actor.role.may(operation.needs):
        raise forbidden(call.actor, operation.needs)
    answer = await operation.handler(call, **arguments)
    if operation.changes:
        _log.info("api.command", operation=operation.name, actor=call.actor.name)
    return answer


async def ask_or_none(call: Call, operation: Operation, **arguments: Any) -> Any:
    """Return what an operation answers, None where there is nothing (404)."""
    try:
        return await ask(call, operation, **arguments)
    except Problem as problem:
        if problem.status == 404:
            return None
        raise


async def form_of(call: Call, wanted: type[P]) -> P:
    """Return a form's fields as a struct; raise a 400 `Problem` that names the field which is wrong.

    Empty fields are left out, so that they mean the default.
    """
    fields = await call.request.post()
    if len(fields) > _FORM_FIELDS_MAX:
        raise Problem(400, "the form has too many fields")
    given = {name: value for name, value in fields.items() if isinstance(value, str) and value.strip()}
    try:
        return msgspec.convert({name: value.strip() for name, value in given.items()}, wanted, strict=False)
    except (ValueError, OverflowError) as error:
        raise Problem(400, f"the form is not complete: {error}"[:300]) from error


def _fields(request: web.Request, declared: Page) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if declared.path_type is not None:
        try:
            arguments["path"] = msgspec.convert(dict(request.match_info), declared.path_type)
        except msgspec.ValidationError as error:
            raise Problem(404, f"there is no such page: {error}") from error
    if declared.query_type is not None:
        names = declared.query_type.__struct_encode_fields__
        query = {name: value for name, value in request.query.items() if name in names and value.strip()}
        try:
            arguments["query"] = msgspec.convert(query, declared.query_type, strict=False)
        except (ValueError, OverflowError) as error:
            raise Problem(400, f"the address is not valid: {error}"[:300]) from error
    return arguments


def _to_sign_in(request: web.Request) -> web.Response:
    wanted = "" if request.method != "GET" or request.path == "/" else f"?next={quote(request.rel_url.raw_path_qs)}"
    response = web.Response(status=303, headers={"Location": f"/signin{wanted}"})
    if "HX-Request" in request.headers:
        # A fragment cannot be the sign-in page: the browser is sent there.
        response = web.Response(status=204, headers={"HX-Redirect": f"/signin{wanted}"})
    return response
