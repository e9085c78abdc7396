"""The client of an OpenID provider, against one whose tokens are forged in every way."""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwk, jwt
from yarl import URL

from gateway.config import DEFAULT_TEXT, ConfigError, OidcSettings, load_config
from gateway.oidc import LoginSecrets, OidcProvider, ProviderUnreachableError, SignInError, read_secret
from protocol.errors import LocalError
from tests.gateway.fleets import NOW_S

REDIRECT = "http://127.0.0.1:8080/v1/session/callback"
UNSIGNED, HMAC = b'{"alg":"none","kid":"one"}', b'{"alg":"HS256","kid":"one"}'
ROLES: dict[str, Any] = {"library": "publisher", "drivers": "operator"}
LOGIN = LoginSecrets.derive("x" * 43)


def settings(issuer: str, **changes: Any) -> OidcSettings:
    values: dict[str, Any] = {"issuer": issuer, "client_id": "digitruck", "redirect_url": REDIRECT, "roles": ROLES}
    return OidcSettings(**(values | changes))


@dataclass
class Forger:
    """Answers what it is told to; `token` is made by the test."""

    issuer: str = ""
    key: jwk.ECKey = field(default_factory=lambda: jwk.ECKey.generate_key("P-256", {"kid": "one", "use": "sig"}))
    token: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def claims(self, **changes: Any) -> dict[str, Any]:
        own = {
            "iss": self.issuer, "aud": "digitruck", "sub": "1", "exp": NOW_S + 300, "iat": NOW_S,
            "nonce": LOGIN.nonce, "groups": ["drivers"], "email": "amina@example.org",
        }  # fmt: skip
        return {name: value for name, value in (own | changes).items() if value is not None}

    def sign(self, key: jwk.ECKey | None = None, kid: str | None = "one", **changes: Any) -> None:
        header = {"alg": "ES256"} | ({"kid": kid} if kid is not None else {})
        self.token = jwt.encode(header, self.claims(**changes), key or self.key)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == "/jwks":
            return web.json_response({"keys": [self.key.as_dict(private=False)]})
        if request.path == "/token":
            return web.json_response({"id_token": self.token, "access_token": "x", "token_type": "Bearer"})
        own = {
            "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/auth?a=1",
            "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/jwks",
        }  # fmt: skip
        return web.json_response(own | self.metadata)


@pytest.fixture
async def forger() -> AsyncIterator[Forger]:
    forger = Forger()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forger.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    forger.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield forger
    await runner.cleanup()


def client(forger: Forger, clock: list[float] | None = None, **changes: Any) -> OidcProvider:
    ticks = clock or [0.0]
    return OidcProvider(
        settings(forger.issuer, **changes), client_secret=None, now_s=lambda: NOW_S, monotonic_s=lambda: ticks[0]
    )


async def test_a_good_token_names_a_person_and_a_role(forger: Forger) -> None:
    forger.sign()
    found = await client(forger).redeem("code", LOGIN)
    assert (found.subject, found.name, found.role) == ("1", "amina@example.org", "operator")
    forger.sign(aud=["digitruck", "other"], azp="digitruck", groups="library", email=None)
    found = await client(forger).redeem("code", LOGIN)
    assert (found.name, found.role) == ("1", "publisher")
    forger.sign(kid=None)  # a provider with one key need not name it (Core section 10.1)
    assert (await client(forger).redeem("code", LOGIN)).subject == "1"


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": [LOGIN.nonce]},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"aud": ["digitruck", "another"]},
        {"azp": "another"},
        {"iss": "https://another.example.org"},
        {"iss": None},
        {"exp": NOW_S - 61},
        {"exp": None},
        {"exp": "soon"},
        {"iat": None},
        {"iat": NOW_S + 3_600},
        {"nbf": NOW_S + 3_600},
        {"sub": None},
        {"sub": 7},
        {"groups": None},
        {"groups": ["drivers2"]},
        {"groups": {"drivers": 1}},
        {"kid": "unknown"},
        pytest.param({"key": jwk.ECKey.generate_key("P-256")}, id="a key of somebody else"),
    ],
    ids=str,
)
async def test_a_token_for_another_time_place_or_person_is_refused(forger: Forger, changes: dict[str, Any]) -> None:
    forger.sign(**changes)
    with pytest.raises(SignInError):
        await client(forger).redeem("code", LOGIN)


def part(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(forger: Forger) -> str:
    return f"{part(UNSIGNED)}.{part(json.dumps(forger.claims()).encode())}."


def under_the_public_key(forger: Forger) -> str:
    """HS256 with the published key as the secret: algorithm confusion."""
    text = f"{part(HMAC)}.{part(json.dumps(forger.claims()).encode())}"
    return f"{text}.{part(hmac.digest(forger.key.as_pem(private=False), text.encode(), 'sha256'))}"


def with_its_own_key(forger: Forger) -> str:
    own = jwk.ECKey.generate_key("P-256")
    header = {"alg": "ES256", "kid": "one", "jwk": own.as_dict(private=False)}
    return jwt.encode(header, forger.claims(), own)


@pytest.mark.parametrize(
    "make",
    [
        unsigned,
        under_the_public_key,
        with_its_own_key,
        lambda _: "",
        lambda _: "a.b",
        lambda _: "a.b.c",
        lambda _: "é.é.é",
        lambda _: "e30.e30.",
        lambda _: "W10.W10.W10",
    ],
)
async def test_what_is_not_signed_by_the_provider_is_refused(forger: Forger, make: Any) -> None:
    forger.token = make(forger)
    with pytest.raises(SignInError):
        await client(forger).redeem("code", LOGIN)


async def test_a_new_key_of_the_provider_is_fetched_but_not_for_every_stranger(forger: Forger) -> None:
    clock = [0.0]
    provider = client(forger, clock)
    forger.sign()
    await provider.redeem("code", LOGIN)
    forger.key = jwk.ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})
    forger.sign(kid="two")
    with pytest.raises(SignInError):
        await provider.redeem("code", LOGIN)
    clock[0] = 31.0
    assert (await provider.redeem("code", LOGIN)).subject == "1"
    assert forger.asked.count("/jwks") == 2


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "https://another.example.org"}, {"token_endpoint": 7}, {"jwks_uri": None}, {"pad": "x" * 300_000}],
    ids=str,
)
async def test_a_provider_that_is_none_signs_nobody_in(forger: Forger, metadata: dict[str, Any]) -> None:
    forger.metadata = metadata
    with pytest.raises(ProviderUnreachableError):
        await client(forger).address(LOGIN)


async def test_a_provider_that_is_away_is_said_to_be_away() -> None:
    gone = Forger(issuer="http://127.0.0.1:9")
    with pytest.raises(ProviderUnreachableError, match="does not answer"):
        await client(gone).address(LOGIN)


async def test_the_address_binds_the_sign_in_and_keeps_the_endpoints_own_query(forger: Forger) -> None:
    query = URL(await client(forger).address(LOGIN)).query
    assert query["a"] == "1"
    assert (query["state"], query["nonce"], query["code_challenge_method"]) == (LOGIN.state, LOGIN.nonce, "S256")
    assert query["code_challenge"] == LOGIN.challenge
    assert LOGIN.verifier not in str(query)
    assert len({LOGIN.state, LOGIN.nonce, LOGIN.verifier, LOGIN.challenge}) == 4


def test_the_commented_example_of_the_configuration_works(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    before, _, example = DEFAULT_TEXT.format(coap="127.0.0.1:5683", http="127.0.0.1:8080", port=5683).partition(
        "# [oid"
    )
    example = example.partition("\n\n")[0]
    path.write_text(before + "[oid" + example.replace("\n# ", "\n"))
    oidc = load_config(path).oidc
    assert oidc is not None
    assert list(oidc.roles.values()) == ["admin", "operator", "publisher", "viewer"]
    assert oidc == settings(
        oidc.issuer, redirect_url=oidc.redirect_url, roles=oidc.roles, client_secret_file=oidc.client_secret_file
    )  # the rest of the example shows the defaults


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('issuer = "http://id.example.org"', "issuer"),
        ('redirect_url = "http://fleet.example.org/v1/session/callback"', "redirect_url"),
        ('landing = "//evil.example.org"', "landing"),
        ('roles = { a = "root" }', "roles"),
        ("roles = {}", "roles"),
        ("session_s = 10", "session_s"),
        ("secret = 1", "secret"),
    ],
)
def test_a_configuration_that_would_leak_or_not_work_is_refused(tmp_path: Path, line: str, key: str) -> None:
    good = {
        "issuer": '"https://id.example.org"', "client_id": '"c"', "redirect_url": '"https://f.example.org/v1"',
        "roles": '{ a = "viewer" }',
    }  # fmt: skip
    name, _, value = line.partition(" = ")
    path = tmp_path / "gateway.toml"
    path.write_text("[oidc]\n" + "\n".join(f"{n} = {v}" for n, v in (good | {name: value}).items()))
    with pytest.raises(ConfigError, match=key):
        load_config(path)


def test_the_secret_is_one_line_of_a_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "oidc.secret"
    with pytest.raises(LocalError, match="cannot be read"):
        read_secret(path)
    for text in ("", "two\nlines"):
        path.write_text(text)
        with pytest.raises(LocalError, match="one line"):
            read_secret(path)
    path.write_text("s3cret\n")
    assert read_secret(path) == "s3cret"


async def test_many_sign_ins_at_once_ask_for_the_description_once(forger: Forger) -> None:
    provider = client(forger)
    await asyncio.gather(*(provider.address(LOGIN) for _ in range(5)))
    assert len(forger.asked) == 1
