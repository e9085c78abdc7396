"""Tokens are made, shown once, used and revoked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.api.auth import Role
from tests.gateway.api.conftest import Gateway
from tests.gateway.fleets import NOW_MS


async def create(gateway: Gateway, **fields: Any) -> Any:
    return await gateway.ask("POST", "/v1/tokens", json={"name": "amina", "role": "operator", **fields})


async def session(gateway: Gateway, token: str) -> Any:
    return await gateway.get("/v1/session", role=None, headers={"Authorization": f"Bearer {token}"})


async def test_a_new_token_signs_in_until_it_is_revoked(gateway: Gateway, tmp_path: Path) -> None:
    made = (await create(gateway, expires_in_s=3_600)).json
    assert made["expires_ms"] == NOW_MS + 3_600_000
    assert (await session(gateway, made["token"])).json == {"name": "amina", "role": "operator"}
    assert made["token"].encode() not in (tmp_path / "fleet.db").read_bytes()
    assert made["token"].encode() not in (await gateway.get("/v1/tokens")).body
    for _ in range(2):
        assert (await gateway.ask("DELETE", "/v1/tokens/amina")).json["revoked_ms"] == NOW_MS
    assert (await session(gateway, made["token"])).status == 401
    actions = [each.action for each in await gateway.log()]
    assert actions == ["token.revoked", "token.created"]


async def test_a_name_is_given_once(gateway: Gateway) -> None:
    assert (await create(gateway)).status == 201
    assert (await create(gateway, role="viewer")).status == 409


@pytest.mark.parametrize("fields", [{"role": "root"}, {"name": "A b"}, {"name": ""}, {"expires_in_s": 1}, {"x": 1}])
async def test_what_cannot_be_a_token_is_refused(gateway: Gateway, fields: dict[str, Any]) -> None:
    assert (await create(gateway, **fields)).status == 400


async def test_tokens_are_listed_in_pages(gateway: Gateway) -> None:
    first = (await gateway.get("/v1/tokens?limit=3")).json
    rest = (await gateway.get(f"/v1/tokens?limit=3&after={first['next']}")).json
    listed = [each["name"] for each in first["items"] + rest["items"]]
    assert listed == sorted(f"the-{role}" for role in Role)


async def test_an_unknown_token_cannot_be_revoked(gateway: Gateway) -> None:
    assert (await gateway.ask("DELETE", "/v1/tokens/nobody")).status == 404
