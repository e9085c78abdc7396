"""Tokens are random, stored as hashes, and roles include each other as declared."""

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.api.auth import (
    ADMIN,
    OPERATOR,
    PUBLISHER,
    SIGNER,
    VIEWER,
    Actor,
    Role,
    actor_of,
    bearer_token,
    forbidden,
    new_token,
    token_sha256,
)
from gateway.api.problem import Problem
from store.fleet.records import TokenRecord


def record(*, expires_ms: int | None = None, revoked_ms: int | None = None) -> TokenRecord:
    return TokenRecord(bytes(32), "amina", "operator", 0, expires_ms, revoked_ms)


@pytest.mark.parametrize(
    ("needs", "roles"),
    [
        (VIEWER, {Role.VIEWER, Role.OPERATOR, Role.PUBLISHER, Role.ADMIN}),
        (OPERATOR, {Role.OPERATOR, Role.ADMIN}),
        (PUBLISHER, {Role.PUBLISHER, Role.ADMIN}),
        (SIGNER, {Role.OPERATOR, Role.PUBLISHER, Role.ADMIN}),
        (ADMIN, {Role.ADMIN}),
    ],
)
def test_roles_include_each_other(needs: frozenset[Role], roles: set[Role]) -> None:
    assert {role for role in Role if role.may(needs)} == roles


def test_tokens_differ_and_only_their_hash_is_kept() -> None:
    first, second = new_token(), new_token()
    assert first != second
    assert len(token_sha256(first)) == 32
    assert first.encode() not in token_sha256(first)


def test_a_token_is_read_from_the_header() -> None:
    token = new_token()
    assert bearer_token(make_mocked_request("GET", "/", headers={"Authorization": f"bearer {token}"})) == token


def test_a_request_without_a_token_is_refused() -> None:
    with pytest.raises(Problem):
        bearer_token(make_mocked_request("GET", "/"))


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic YTpi", "Bearer dt_short", "Bearer " + "x" * 4000, "Bearer dt_" + "é" * 43]
)
def test_a_header_of_another_form_is_refused(header: str) -> None:
    with pytest.raises(Problem) as caught:
        bearer_token(make_mocked_request("GET", "/", headers={"Authorization": header}))
    assert caught.value.status == 401
    assert "WWW-Authenticate" in caught.value.headers


@pytest.mark.parametrize("token", [None, record(expires_ms=1000), record(revoked_ms=1)])
def test_unknown_expired_and_revoked_tokens_look_the_same(token: TokenRecord | None) -> None:
    with pytest.raises(Problem, match="unknown, expired or revoked"):
        actor_of(token, 1000)


def test_a_token_that_holds_names_its_actor() -> None:
    assert actor_of(record(expires_ms=1001), 1000) == Actor("amina", Role.OPERATOR)


def test_a_refusal_names_the_roles_that_would_do() -> None:
    assert "admin or publisher" in forbidden(Actor("amina", Role.VIEWER), PUBLISHER).detail
