"""Who is asking: bearer tokens (RFC 6750) and the four roles.

A token is 32 random bytes that its holder sees once; the database holds its SHA-256. A token has so much entropy that
a fast hash is enough, and looking it up by its hash leaks no timing about it. Every role may read; operator and
publisher each may change their own part; admin may do everything. What a route needs is declared at the route.
A browser that signed in at the OpenID provider brings its token in a cookie, which a foreign page could make it send:
so what changes something also needs a header that a foreign page cannot set (`X-Digitruck-Request`: the preflight is
never granted). An `Authorization` header, where there is one, counts alone. Deliberately absent: passwords.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from gateway.api.problem import Problem
from store.fleet.records import TokenRecord

_PREFIX = "dt_"
_TOKEN = re.compile(r"dt_[A-Za-z0-9_-]{43}")
# Its value does not matter.
REQUEST_HEADER = "X-Digitruck-Request"
_REALM = 'Bearer realm="digitruck"'


class Role(StrEnum):
    """What a token may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    ADMIN = "admin"

    def may(self, needs: frozenset[Role]) -> bool:
        """Return whether this role is enough where one of `needs` is asked for."""
        return self is Role.ADMIN or self in needs or Role.VIEWER in needs


VIEWER = frozenset({Role.VIEWER})
OPERATOR = frozenset({Role.OPERATOR})
PUBLISHER = frozenset({Role.PUBLISHER})
SIGNER = frozenset({Role.OPERATOR, Role.PUBLISHER})
ADMIN = frozenset({Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Actor:
    """A signed-in client: the name that its token was given, and its role."""

    name: str
    role: Role


def new_token() -> str:
    """Return a fresh token; show it once and keep only `token_sha256` of it."""
    return _PREFIX + secrets.token_urlsafe(32)


def token_sha256(token: str) -> bytes:
    """Return what the database holds of a token."""
    return hashlib.sha256(token.encode()).digest()


def bearer_token(request: web.Request) -> str:
    """Return the token that a request brings; raise a 401 `Problem` for one that brings anything else."""
    headers = request.headers.getall("Authorization", [])
    scheme, _, value = headers[0].partition(" ") if headers else ("", "", "")
    if len(headers) != 1 or scheme.lower() != "bearer" or _TOKEN.fullmatch(value.strip()) is None:
        raise unauthorized("the Authorization header is not `Bearer` and a token of this gateway")
    return value.strip()


def session_cookie(secure: bool) -> str:
    """Return the name of the cookie with a session's token; over HTTPS no other host of the domain can set it."""
    return "__Host-digitruck-session" if secure else "digitruck-session"


def brings_token(request: web.Request) -> bool:
    """Return whether a request brings a token, right or wrong."""
    return "Authorization" in request.headers or any(session_cookie(each) in request.cookies for each in (True, False))


def presented_token(request: web.Request) -> str:
    """Return the token of a request, of its header or else of its cookie; raise a 401 or 403 `Problem`."""
    if "Authorization" in request.headers:
        return bearer_token(request)
    cookies = [request.cookies[name] for name in map(session_cookie, (True, False)) if name in request.cookies]
    if not cookies:
        raise unauthorized("sign in: send an Authorization header with `Bearer` and your token")
    if _TOKEN.fullmatch(cookies[0]) is None:
        raise unauthorized("the session's cookie is not one of this gateway; sign in again")
    if request.method not in ("GET", "HEAD"):
        from_here = request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
        if REQUEST_HEADER not in request.headers or not from_here:
            raise Problem(403, f"with a session's cookie alone this needs the header {REQUEST_HEADER}, from this site")
    return cookies[0]


def actor_of(record: TokenRecord | None, now_ms: int) -> Actor:
    """Return who holds a token; raise a 401 `Problem` that does not say whether it ever existed."""
    if record is None or not record.usable(now_ms):
        raise unauthorized("the token is unknown, expired or revoked; sign in with another")
    return Actor(record.name, Role(record.role))


def unauthorized(detail: str) -> Problem:
    """Return the refusal of a request whose sender is not known."""
    return Problem(401, detail, headers={"WWW-Authenticate": _REALM})


def forbidden(actor: Actor, needs: frozenset[Role]) -> Problem:
    """Return the refusal of a known sender whose role is not enough."""
    wanted = " or ".join(sorted(needs | {Role.ADMIN}))
    return Problem(403, f"this needs the role {wanted}; your token has the role {actor.role}")
