"""Signing in: the token is checked, kept from other eyes, and never sent where it can be read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.api.auth import Role
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.running import TOKENS, RunningGateway


def test_a_good_token_is_kept_0600_and_used(gateway: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    digitruck("login", gateway.url + "/", "--token", TOKENS[Role.VIEWER])
    path = home / "config" / "digitruck" / "session.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert digitruck("trucks", "--json").json == []


def test_a_wrong_token_is_refused_and_not_kept(gateway: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    for token in ("dt_" + "a" * 43, "nonsense"):
        ran = digitruck("login", gateway.url, "--token", token, ok=False)
        assert ran.code == 1
        assert "does not know this token" in ran.err
    assert not (home / "config").exists()


def test_scripts_sign_in_by_environment(
    gateway: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITRUCK_URL", gateway.url)
    monkeypatch.setenv("DIGITRUCK_TOKEN", TOKENS[Role.VIEWER])
    assert digitruck("trucks", "--json").json == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://fleet.example.org", "can be read on the way"),
        ("ftp://fleet.example.org", "not a gateway's address"),
        ("fleet.example.org", "not a gateway's address"),
        ("https://", "not a gateway's address"),
        ("https://u:p@fleet.example.org", "not a gateway's address"),
        ("https://fleet.example.org/?x=1", "not a gateway's address"),
        ("https://fleet.example.org\n", "not a gateway's address"),
    ],
)
def test_addresses_that_would_leak_or_not_work_are_refused(digitruck: Digitruck, url: str, message: str) -> None:
    ran = digitruck("login", url, "--token", "dt_x", ok=False)
    assert ran.code == 1
    assert message in ran.err


def test_a_damaged_session_says_how_to_mend_it(signed_in: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    (home / "config" / "digitruck" / "session.toml").write_text("url = 3")
    assert "sign in again" in digitruck("trucks", ok=False).err


def test_with_a_browser_elsewhere_the_token_that_it_shows_is_pasted(
    gateway: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.prompt", lambda *_, **__: TOKENS[Role.VIEWER] + " ")
    assert f"{gateway.url}/v1/session/login?show=true" in digitruck("login", gateway.url, "--web").err
    assert digitruck("trucks", "--json").json == []
