"""Tokens are known by their hash, named once, and end by time or by hand."""

import pytest

from store.fleet.errors import TokenNameError
from store.fleet.fleet import FleetStore
from store.fleet.records import TokenRecord


async def test_a_token_is_usable_until_it_expires_or_is_revoked(fleet: FleetStore) -> None:
    await fleet.put_token(b"a" * 32, "laptop", "operator", 1, 100)
    await fleet.put_token(b"b" * 32, "console", "viewer", 1)
    token = await fleet.token(b"a" * 32)
    assert token == TokenRecord(b"a" * 32, "laptop", "operator", 1, 100)
    assert [token.usable(now_ms) for now_ms in (99, 100)] == [True, False]
    assert (await fleet.token(b"b" * 32)).usable(10**15)
    assert await fleet.revoke_token("console", 50)
    assert not (await fleet.token(b"b" * 32)).usable(51)
    assert not await fleet.revoke_token("console", 60)
    assert not await fleet.revoke_token("nobody", 60)
    assert await fleet.token(b"c" * 32) is None
    assert [each.name for each in await fleet.tokens()] == ["console", "laptop"]


async def test_a_name_is_given_once_even_after_it_was_revoked(fleet: FleetStore) -> None:
    await fleet.put_token(b"a" * 32, "laptop", "operator", 1)
    await fleet.revoke_token("laptop", 2)
    with pytest.raises(TokenNameError, match="choose another name"):
        await fleet.put_token(b"b" * 32, "laptop", "operator", 3)
