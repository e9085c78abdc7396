"""Tokens are given out once and refused from the moment they are revoked."""

from __future__ import annotations

import pytest

from tests.gateway.cli.conftest import Digitruck
from tests.gateway.running import RunningGateway


def test_a_token_works_until_it_is_revoked(
    signed_in: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = digitruck("token", "new", "juma", "--role", "viewer", "--expires-in", "30d").out.strip()
    listed = {each["name"]: each for each in digitruck("token", "list", "--json").json}
    assert (listed["juma"]["role"], listed["juma"]["revoked_ms"]) == ("viewer", None)
    assert made not in digitruck("token", "list").out
    with monkeypatch.context() as juma:
        juma.setenv("DIGITRUCK_URL", signed_in.url)
        juma.setenv("DIGITRUCK_TOKEN", made)
        digitruck("trucks", "--json")
    assert "juma is revoked" in digitruck("token", "revoke", "juma", "--yes").out
    monkeypatch.setenv("DIGITRUCK_URL", signed_in.url)
    monkeypatch.setenv("DIGITRUCK_TOKEN", made)
    assert "revoked" in digitruck("trucks", ok=False).err


def test_a_name_is_not_used_again_and_nothing_is_revoked_unasked(
    signed_in: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck("token", "new", "juma", "--role", "viewer")
    assert "names are not used again" in digitruck("token", "new", "juma", "--role", "admin", ok=False).err
    assert "--yes" in digitruck("token", "revoke", "juma", ok=False).err
    assert digitruck("token", "revoke", "nobody", "--yes", ok=False).code == 1
