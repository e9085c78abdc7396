"""Signing in with a browser: to the OpenID provider and back, and out again.

One secret in a short-lived cookie binds state, nonce and PKCE verifier to the browser that began, so that the gateway
keeps nothing meanwhile and any process of it can end what another began. A sign-in ends in an ordinary token with a
short life, in an HttpOnly, SameSite=Lax cookie; `gateway.api.auth` says what such a cookie alone may not do. Or, begun
with `show=true`, it ends in the token's text, to be pasted into a command on another machine.
"""

from __future__ import annotations

import html
import re
import secrets
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api.auth import VIEWER, new_token, session_cookie, token_sha256
from gateway.api.dispatch import charge_stranger, json_response
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.services import SignIn
from gateway.api.shapes import Shape
from gateway.api.tokens import Session
from gateway.oidc import Identity, LoginSecrets, ProviderUnreachableError, SignInError
from store.fleet.errors import TokenNameError

SESSION_PREFIX = "oidc."
_LOGIN_S = 600
_SECRET = re.compile(r"(paste\.)?[A-Za-z0-9_-]{43}")
_FORGET_AFTER_MS = 30 * 86_400_000
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Signed in</title>
<p>You are signed in as {name} with the role {role}. Give this to the command that asked for it, and to nobody else:</p>
<pre>{token}</pre>
<p>Did somebody else send you here? Then close this page: whoever has these characters is you.</p>
</html>
"""


class LoginQuery(Shape, frozen=True):
    """Whether to end with the token's text, for a command on another machine, instead of a cookie."""

    show: bool = False


class CallbackQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider sends back (RFC 6749 section 4.1.2, RFC 9207); it may add fields of its own."""

    state: Annotated[str, Meta(max_length=512)]
    code: Annotated[str, Meta(min_length=1, max_length=2_048)] | None = None
    iss: Annotated[str, Meta(max_length=512)] | None = None
    error: Annotated[str, Meta(max_length=512)] | None = None


@operation(
    "GET", "/v1/session/login", tag="tokens", needs=None, status=303, media=(), problems=(404, 503), changes=False
)
async def begin_login(call: Call, query: LoginQuery) -> web.Response:
    """Send a browser to the identity provider."""
    sign_in = _sign_in(call)
    secret = ("paste." if query.show else "") + secrets.token_urlsafe(32)
    try:
        address = await sign_in.address(LoginSecrets.derive(secret))
    except ProviderUnreachableError as error:
        raise Problem(503, str(error)) from error
    response = web.Response(status=303, headers={"Location": address, "Referrer-Policy": "no-referrer"})
    secure = _secure(sign_in)
    response.set_cookie(
        _login_cookie(secure), secret, max_age=_LOGIN_S, path="/", httponly=True, secure=secure, samesite="Lax"
    )
    return response


@operation(
    "GET",
    "/v1/session/callback",
    tag="tokens",
    needs=None,
    status=303,
    statuses=(200,),
    media=(),
    problems=(403, 404, 503),
    changes=True,
)
async def end_login(call: Call, query: CallbackQuery) -> web.Response:
    """Take a browser back from the identity provider, with a session of its own."""
    sign_in = _sign_in(call)
    secure = _secure(sign_in)
    secret = call.request.cookies.get(_login_cookie(secure), "")
    login = LoginSecrets.derive(secret)
    if _SECRET.fullmatch(secret) is None or not secrets.compare_digest(login.state.encode(), query.state.encode()):
        charge_stranger(call.api, call.request)
        raise Problem(400, "this browser did not begin this sign-in, or too long ago: begin again at /v1/session/login")
    if query.iss is not None and query.iss != sign_in.settings.issuer:
        raise Problem(400, "this answer is another identity provider's: begin again at /v1/session/login")
    if query.error is not None or query.code is None:
        raise Problem(403, "the identity provider did not sign you in: begin again at /v1/session/login")
    try:
        identity = await sign_in.redeem(query.code, login)
    except SignInError as error:
        charge_stranger(call.api, call.request)
        raise Problem(403, str(error)) from error
    except ProviderUnreachableError as error:
        raise Problem(503, str(error)) from error
    token = await _open_session(call, sign_in, identity)
    if secret.startswith("paste."):
        response = _token_page(identity, token)
    else:
        response = web.Response(status=303, headers={"Location": sign_in.settings.landing})
        response.set_cookie(
            session_cookie(secure),
            token,
            max_age=sign_in.settings.session_s,
            path="/",
            httponly=True,
            secure=secure,
            samesite="Lax",
        )
    response.headers["Referrer-Policy"] = "no-referrer"
    response.del_cookie(_login_cookie(secure), path="/", secure=secure, httponly=True, samesite="Lax")
    return response


@operation("DELETE", "/v1/session", tag="tokens", needs=VIEWER, changes=False)
async def end_session(call: Call) -> web.StreamResponse:
    """Sign out.

    A session that began at the identity provider ends; a token that an admin made stays, and is revoked at /v1/tokens.
    """
    name = call.actor.name
    if name.startswith(SESSION_PREFIX):
        await call.api.fleet.revoke_token(name, call.api.services.now_ms(), revoked_by=name)
    response = json_response(call.request, Session(name=name, role=call.actor.role.value), 200)
    for secure in (False, True):
        if session_cookie(secure) in call.request.cookies:
            response.del_cookie(session_cookie(secure), path="/", secure=secure, httponly=True, samesite="Lax")
    return response


async def _open_session(call: Call, sign_in: SignIn, identity: Identity) -> str:
    """Keep a token for who signed in and return its text."""
    fleet, now_ms = call.api.fleet, call.api.services.now_ms()
    await fleet.forget_tokens(SESSION_PREFIX, now_ms - _FORGET_AFTER_MS)
    token = new_token()
    expires_ms = now_ms + sign_in.settings.session_s * 1000
    # Lower case and few characters, as token names are; the audit log has the subject, which names one person only.
    person = re.sub(r"[^a-z0-9._@-]", "-", identity.name.lower())[:40]
    name = f"{SESSION_PREFIX}{person}.{secrets.token_hex(6)}"
    try:
        await fleet.put_token(
            token_sha256(token), name, identity.role, now_ms, expires_ms, put_by=f"oidc/{identity.subject}"
        )
    except TokenNameError as error:
        raise Problem(503, "please begin again at /v1/session/login") from error
    return token


def _token_page(identity: Identity, token: str) -> web.Response:
    text = _PAGE.format(name=html.escape(identity.name), role=html.escape(identity.role), token=html.escape(token))
    response = web.Response(text=text, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'; sandbox"
    return response


def _sign_in(call: Call) -> SignIn:
    sign_in = call.api.services.sign_in
    if sign_in is None:
        raise Problem(404, "no identity provider is set up here: sign in with a token")
    return sign_in


def _secure(sign_in: SignIn) -> bool:
    return sign_in.settings.redirect_url.startswith("https:")


def _login_cookie(secure: bool) -> str:
    return session_cookie(secure).replace("session", "login")


OPERATIONS = (begin_login, end_login, end_session)
