"""People and trucks that join: enrolment codes with their QR, tokens, the audit log, and the keys of this browser."""

from __future__ import annotations

from typing import Annotated, Literal

import segno
from aiohttp import web
from msgspec import Meta

from gateway.api import audit, enrolments, tokens
from gateway.api.auth import ADMIN, OPERATOR
from gateway.api.operations import Call
from gateway.api.problem import Problem
from gateway.api.shapes import Cursor, PageQuery, Shape
from gateway.console.pages import View, ask, form_of, page, see_other
from protocol.wire import Name

_DAY_S = 86_400


class ListQuery(Shape, frozen=True):
    """Where the page begins."""

    after: Cursor | None = None


class EnrolQuery(Shape, frozen=True):
    """Which truck the form begins with."""

    truck: Annotated[str, Meta(max_length=31)] = ""


class EnrolForm(Shape, frozen=True):
    """A truck that may join, its group, and for how many days its code holds."""

    truck: Name
    group: Name | None = None
    days: Annotated[int, Meta(ge=1, le=30)] = 1


class TokenForm(Shape, frozen=True):
    """A token for a person or a program."""

    name: tokens.TokenName
    role: Literal["viewer", "operator", "publisher", "admin"] = "viewer"
    days: Annotated[int, Meta(ge=1, le=3_650)] | None = None


@page("GET", "/enrol", needs=OPERATOR)
async def show_enrolments(call: Call, query: EnrolQuery) -> View:
    """Show the form and the codes that were given out."""
    return await _enrolments(call, truck=query.truck)


@page("POST", "/enrol", needs=OPERATOR)
async def enrol(call: Call) -> View:
    """Make a code and show it, once."""
    form = await form_of(call, EnrolForm)
    body = enrolments.EnrolmentRequest(truck=form.truck, group=form.group, expires_in_s=form.days * _DAY_S)
    made = await ask(call, enrolments.create_enrolment, body=body)
    # The code's characters all are in QR's alphanumeric mode, which makes a small symbol.
    symbol = segno.make(made.code, error="m", micro=False)
    return await _enrolments(call, made=made, qr=symbol.svg_data_uri(scale=4, border=4))


@page("GET", "/users", needs=ADMIN)
async def show_tokens(call: Call, query: ListQuery) -> View:
    """List who may sign in."""
    return await _tokens(call, query.after)


@page("POST", "/users", needs=ADMIN)
async def create_token(call: Call) -> View:
    """Make a token and show it, once."""
    form = await form_of(call, TokenForm)
    expires_in_s = None if form.days is None else form.days * _DAY_S
    body = tokens.TokenRequest(name=form.name, role=form.role, expires_in_s=expires_in_s)
    made = await ask(call, tokens.create_token, body=body)
    return await _tokens(call, None, made=made)


@page("POST", "/users/{name}/revoke", needs=ADMIN)
async def revoke_token(call: Call, path: tokens.TokenPath) -> web.Response:
    """Revoke a token."""
    if path.name == call.actor.name:
        raise Problem(409, "this is the token that you are signed in with: sign out instead")
    await ask(call, tokens.revoke_token, path=path)
    return see_other("/users")


@page("GET", "/audit", needs=ADMIN)
async def show_audit(call: Call, query: ListQuery) -> View:
    """List who changed what, and whether the chain holds."""
    return View(
        "audit.html",
        {
            "found": await ask(call, audit.list_audit, query=PageQuery(after=query.after)),
            "check": await ask(call, audit.check_audit),
        },
    )


@page("GET", "/keys")
async def show_keys(call: Call) -> View:
    """Show the keys that this browser holds; all of it happens there."""
    return View("keys.html")


async def _enrolments(call: Call, *, truck: str = "", made: object = None, qr: str = "") -> View:
    found = await ask(call, enrolments.list_enrolments, query=PageQuery(limit=500))
    groups = sorted({each.group for each in await call.api.fleet.trucks(limit=500)})
    return View("enrol.html", {"found": found.items[::-1], "made": made, "qr": qr, "groups": groups, "wanted": truck})


async def _tokens(call: Call, after: str | None, *, made: object = None) -> View:
    found = await ask(call, tokens.list_tokens, query=PageQuery(after=after, limit=500))
    return View("users.html", {"found": found, "made": made})


PAGES = (show_enrolments, enrol, show_tokens, create_token, revoke_token, show_audit, show_keys)
