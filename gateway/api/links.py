"""One-time sign-in links: a browser takes over the role of who asked for one, and no lasting token is shown."""

from __future__ import annotations

import secrets

from gateway.api.auth import VIEWER, Actor, new_token, token_sha256
from gateway.api.context import Api
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, Shape
from store.fleet.errors import TokenNameError

ONCE_S = 600
ONCE_PREFIX = "once."
CONSOLE_PREFIX = "console."
# Sessions of a person, whatever they began with.
SESSION_PREFIXES = (CONSOLE_PREFIX, ONCE_PREFIX, "oidc.")
_NAME_CHARS = 36


class SignInLink(Shape, frozen=True):
    """The path of a page that signs one browser in, once."""

    path: str
    expires_ms: Millis


@operation("POST", "/v1/session/link", tag="tokens", needs=VIEWER, status=201, problems=(409,))
async def create_link(call: Call) -> SignInLink:
    """Make a link that signs a browser in once, with the role of who asks.

    It holds for ten minutes. `digitruck console` prints one.
    """
    code = new_token()
    now_ms = call.api.services.now_ms()
    expires_ms = now_ms + ONCE_S * 1000
    await call.api.fleet.forget_tokens(ONCE_PREFIX, now_ms)
    await put_session(call.api, code, ONCE_PREFIX, call.actor, expires_ms)
    return SignInLink(path=f"/signin?code={code}", expires_ms=expires_ms)


async def put_session(api: Api, token: str, prefix: str, actor: Actor, expires_ms: int) -> None:
    """Keep a token of somebody's session; raise a 409 `Problem` if its name is taken (one in 2^48)."""
    name = f"{prefix}{person_of(actor.name)[:_NAME_CHARS]}.{secrets.token_hex(6)}"
    try:
        await api.fleet.put_token(
            token_sha256(token), name, actor.role.value, api.services.now_ms(), expires_ms, put_by=actor.name
        )
    except TokenNameError as error:
        raise Problem(409, "ask once more") from error


def person_of(name: str) -> str:
    """Return whose a session is: the name without what makes sessions differ."""
    for prefix in SESSION_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).rpartition(".")[0] or "somebody"
    return name


OPERATIONS = (create_link,)
