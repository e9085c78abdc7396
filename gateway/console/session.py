"""Signing in to the console: a token, or a one-time code that a command printed, becomes a session's cookie.

The cookie holds a token that only the server reads (HttpOnly, SameSite=Lax). What was typed is kept as it is, so that
revoking it ends the session; a one-time code is spent on its first use and replaced by a session's own token. Forms
count only if the browser says that they come from this site.
"""

from __future__ import annotations

import re
import time
from typing import Annotated
from urllib.parse import urlsplit

from aiohttp import web
from msgspec import Meta

from gateway.api.auth import Actor, Role, actor_of, new_token, session_cookie, token_sha256, unauthorized
from gateway.api.context import Api
from gateway.api.dispatch import charge_stranger
from gateway.api.links import CONSOLE_PREFIX, ONCE_PREFIX, SESSION_PREFIXES, put_session
from gateway.api.operations import Call
from gateway.api.problem import Problem
from gateway.api.shapes import Shape

SESSION_S = 12 * 3_600
_TOKEN = re.compile(r"dt_[A-Za-z0-9_-]{43}")
_LOCAL = re.compile(r"/(?![/\\])[^\\]*")
_NOT_VALID = "this token is unknown, expired, revoked or was used already"


class SignInForm(Shape, frozen=True):
    """The form of the sign-in page."""

    token: Annotated[str, Meta(max_length=128)] = ""
    next: Annotated[str, Meta(max_length=2_048)] = "/"


async def reader(api: Api, request: web.Request) -> Actor | None:
    """Return who is signed in with this browser, None if nobody is."""
    token = _cookie(request)
    if token is None:
        return None
    try:
        return actor_of(await api.fleet.token(token_sha256(token)), api.services.now_ms())
    except Problem:
        return None


async def signed_in(api: Api, request: web.Request) -> Actor:
    """Return who is signed in; raise a 401 `Problem` for nobody and a 403 for a form of another site."""
    actor = await reader(api, request)
    if actor is None:
        raise unauthorized("sign in first")
    if request.method not in ("GET", "HEAD"):
        check_origin(request)
    wait_s = api.by_token.take(token_sha256(_cookie(request) or "").hex(), time.monotonic())
    if wait_s:
        raise Problem(429, f"too many requests; try again in {max(1, round(wait_s))} s")
    return actor


def check_origin(request: web.Request) -> None:
    """Refuse a form that another site sent (a browser always says where a form comes from)."""
    if urlsplit(request.headers.get("Origin", "")).netloc != request.host:
        raise Problem(403, "this form was not sent from this site; open the page again")


async def begin(call: Call, form: SignInForm) -> web.Response:
    """Sign a browser in with a token or a one-time code; raise a 403 `Problem` for one that does not hold."""
    api, request = call.api, call.request
    check_origin(request)
    token, now_ms = form.token.strip(), api.services.now_ms()
    record = await api.fleet.token(token_sha256(token)) if _TOKEN.fullmatch(token) else None
    if record is None or not record.usable(now_ms):
        charge_stranger(api, request)
        raise Problem(403, _NOT_VALID)
    if record.name.startswith(ONCE_PREFIX):
        # Revoking is what only one of two that come at the same moment can do.
        if not await api.fleet.revoke_token(record.name, now_ms, revoked_by=record.name):
            raise Problem(403, _NOT_VALID)
        token = new_token()
        await api.fleet.forget_tokens(CONSOLE_PREFIX, now_ms)
        actor = Actor(record.name, Role(record.role))
        await put_session(api, token, CONSOLE_PREFIX, actor, now_ms + SESSION_S * 1000)
    response = web.Response(status=303, headers={"Location": local_address(form.next)})
    secure = request.secure
    response.set_cookie(
        session_cookie(secure), token, max_age=SESSION_S, path="/", httponly=True, secure=secure, samesite="Lax"
    )
    return response


async def end(call: Call) -> web.Response:
    """Sign a browser out; a session of its own ends, a token that was typed stays."""
    name = call.actor.name
    if name.startswith(SESSION_PREFIXES):
        await call.api.fleet.revoke_token(name, call.api.services.now_ms(), revoked_by=name)
    response = web.Response(status=303, headers={"Location": "/signin"})
    for secure in (False, True):
        if session_cookie(secure) in call.request.cookies:
            response.del_cookie(session_cookie(secure), path="/", secure=secure, httponly=True, samesite="Lax")
    return response


def local_address(wanted: str) -> str:
    """Return a path of this site to go on at: what somebody put into a link leads nowhere else."""
    return wanted if wanted.isprintable() and wanted.isascii() and _LOCAL.fullmatch(wanted) else "/"


def _cookie(request: web.Request) -> str | None:
    for secure in (True, False):
        value = request.cookies.get(session_cookie(secure))
        if value is not None and _TOKEN.fullmatch(value):
            return value
    return None
