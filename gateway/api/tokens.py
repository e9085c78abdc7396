"""Tokens: who may sign in. A token's text is in the answer that makes it and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.api.auth import ADMIN, VIEWER, new_token, token_sha256
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, PageQuery, Shape
from store.fleet.errors import TokenNameError
from store.fleet.records import TokenRecord

_DAY_S = 86_400
RoleName = Literal["viewer", "operator", "publisher", "admin"]
TokenName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._@-]{0,62}$", description="whose token it is")]


class TokenPath(Shape, frozen=True):
    """A token in an address, by its name."""

    name: TokenName


class TokenRequest(Shape, frozen=True):
    """A new token; without a lifetime it holds until it is revoked."""

    name: TokenName
    role: RoleName
    expires_in_s: Annotated[int, Meta(ge=60, le=10 * 366 * _DAY_S)] | None = None


class NewToken(Shape, frozen=True):
    """The token's text. It is shown this once."""

    name: str
    role: str
    token: str
    expires_ms: Millis | None


class TokenShape(Shape, frozen=True):
    """A token without its text."""

    name: str
    role: str
    created_ms: Millis
    expires_ms: Millis | None
    revoked_ms: Millis | None


class TokenPage(Shape, frozen=True):
    """The tokens that were ever given out, in the order of their names."""

    items: list[TokenShape]
    next: str | None


class Session(Shape, frozen=True):
    """Whose token this is and what it may do."""

    name: str
    role: str


@operation("GET", "/v1/session", tag="tokens", needs=VIEWER)
async def get_session(call: Call) -> Session:
    """Say who is signed in."""
    return Session(name=call.actor.name, role=call.actor.role.value)


@operation("GET", "/v1/tokens", tag="tokens", needs=ADMIN)
async def list_tokens(call: Call, query: PageQuery) -> TokenPage:
    """List the tokens, without their text."""
    records = sorted(await call.api.fleet.tokens(), key=lambda each: each.name)
    found = [each for each in records if query.after is None or each.name > query.after]
    items = [_token(each) for each in found[: query.served]]
    return TokenPage(items=items, next=items[-1].name if len(found) > query.served else None)


@operation("POST", "/v1/tokens", tag="tokens", needs=ADMIN, status=201, problems=(409,))
async def create_token(call: Call, body: TokenRequest) -> NewToken:
    """Make a token for a person or a program."""
    now_ms = call.api.services.now_ms()
    expires_ms = None if body.expires_in_s is None else now_ms + body.expires_in_s * 1000
    token = new_token()
    try:
        await call.api.fleet.put_token(
            token_sha256(token), body.name, body.role, now_ms, expires_ms, put_by=call.actor.name
        )
    except TokenNameError as error:
        raise Problem(409, "a token of that name exists; names are not used again") from error
    return NewToken(name=body.name, role=body.role, token=token, expires_ms=expires_ms)


@operation("DELETE", "/v1/tokens/{name}", tag="tokens", needs=ADMIN)
async def revoke_token(call: Call, path: TokenPath) -> TokenShape:
    """Revoke a token; the next request that brings it is refused. Revoking it again changes nothing."""
    await call.api.fleet.revoke_token(path.name, call.api.services.now_ms(), revoked_by=call.actor.name)
    for each in await call.api.fleet.tokens():
        if each.name == path.name:
            return _token(each)
    raise Problem(404, "no token of that name was given out")


def _token(record: TokenRecord) -> TokenShape:
    return TokenShape(
        name=record.name,
        role=record.role,
        created_ms=record.created_ms,
        expires_ms=record.expires_ms,
        revoked_ms=record.revoked_ms,
    )


OPERATIONS = (get_session, list_tokens, create_token, revoke_token)
