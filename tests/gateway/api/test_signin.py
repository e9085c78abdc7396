"""Browsers sign in at the provider and get a session of their own; a foreign page can begin, end or use none."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest

from gateway.api.auth import REQUEST_HEADER, Role, token_sha256
from gateway.api.limits import ApiLimits
from gateway.oidc import LoginSecrets
from tests.gateway.api.conftest import LOGIN, LOGIN_SECRET, NOW_MS, Answer, FakeSignIn, Gateway, Opener

LOGIN_COOKIE = {"Cookie": f"digitruck-login={LOGIN_SECRET}"}


async def back(gateway: Gateway, headers: dict[str, str] = LOGIN_COOKIE, **query: Any) -> Answer:
    fields = {"state": LOGIN.state, "code": LOGIN.nonce, "iss": "https://id.example.org"} | query
    return await gateway.get(
        "/v1/session/callback", role=None, headers=headers, params={n: v for n, v in fields.items() if v is not None}
    )


def cookie(answer: Answer, name: str = "digitruck-session") -> Any:
    jar: SimpleCookie = SimpleCookie()
    for line in answer.headers.getall("Set-Cookie", []):
        jar.load(line)
    return jar[name]


async def signed_in(gateway: Gateway) -> str:
    return cookie(await back(gateway)).value


async def test_a_browser_is_sent_to_the_provider_with_a_secret_of_its_own(gateway: Gateway) -> None:
    answers = [await gateway.get("/v1/session/login", role=None) for _ in range(2)]
    first, second = (cookie(each, "digitruck-login") for each in answers)
    assert first.value != second.value
    assert (first["httponly"], first["samesite"], first["path"], first["max-age"]) == (True, "Lax", "/", "600")
    assert [each.status for each in answers] == [303, 303]
    assert answers[0].headers["Location"].endswith(LoginSecrets.derive(first.value).state)


async def test_the_session_is_an_ordinary_short_token_in_a_cookie(gateway: Gateway) -> None:
    answer = await back(gateway)
    assert (answer.status, answer.headers["Location"]) == (303, "/v1/session")
    session = cookie(answer)
    assert (session["httponly"], session["samesite"], session["path"], session["secure"]) == (True, "Lax", "/", "")
    assert cookie(answer, "digitruck-login").value == ""
    record = await gateway.fleet.token(token_sha256(session.value))
    assert record is not None
    assert (record.role, record.expires_ms) == ("operator", NOW_MS + 4 * 3_600_000)
    assert record.name.startswith("oidc.amina--b-@example.org.")
    (entry,) = await gateway.log()
    assert (entry.actor, entry.action, entry.subject) == ("oidc/subject-1", "token.created", record.name)
    told = await gateway.get("/v1/session", role=None, headers={"Cookie": f"digitruck-session={session.value}"})
    assert told.json == {"name": record.name, "role": "operator"}


async def test_over_https_cookies_are_secure_and_of_this_host_only(open_gateway: Opener) -> None:
    sign_in = FakeSignIn()
    sign_in.settings = type(sign_in.settings)(
        issuer="https://id.example.org",
        client_id="c",
        redirect_url="https://fleet.example.org/v1/session/callback",
        roles={"a": "viewer"},
    )
    async with open_gateway(sign_in=sign_in) as gateway:
        begun = await gateway.get("/v1/session/login", role=None)
        assert cookie(begun, "__Host-digitruck-login")["secure"]
        ended = await back(gateway, {"Cookie": f"__Host-digitruck-login={LOGIN_SECRET}"})
        session = cookie(ended, "__Host-digitruck-session")
        assert (session["secure"], session["path"], session["domain"]) == (True, "/", "")
        assert (await back(gateway)).status == 400  # the cookie that another host could set


async def test_a_session_reads_but_changes_nothing_without_the_header_of_its_own_site(gateway: Gateway) -> None:
    headers = {"Cookie": f"digitruck-session={await signed_in(gateway)}", "Content-Type": "application/json"}
    body = b'{"truck":"ke-arrow"}'

    async def enrol(**more: str) -> int:
        return (await gateway.ask("POST", "/v1/enrolments", role=None, headers=headers | more, data=body)).status

    assert (await gateway.get("/v1/trucks", role=None, headers=headers)).status == 200
    header = {REQUEST_HEADER: "1"}
    assert await enrol() == 403
    assert await enrol(**header, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert await enrol(**header, **{"Sec-Fetch-Site": "same-site"}) == 403
    assert await gateway.fleet.enrolments() == []
    assert await enrol(**header, **{"Sec-Fetch-Site": "same-origin"}) == 201
    assert await enrol(**header) == 201
    assert (await gateway.get("/v1/tokens", role=None, headers=headers)).status == 403  # the role still counts


async def test_an_authorization_header_counts_alone(gateway: Gateway) -> None:
    headers = {"Cookie": f"digitruck-session={await signed_in(gateway)}", "Authorization": "Bearer nonsense"}
    assert (await gateway.get("/v1/trucks", role=None, headers=headers)).status == 401


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, {}, 400),
        ({"Cookie": "digitruck-login=" + "x" * 43}, {}, 400),
        ({"Cookie": "digitruck-login="}, {"state": LoginSecrets.derive("").state}, 400),
        (LOGIN_COOKIE, {"state": "x" * 43}, 400),
        (LOGIN_COOKIE, {"state": "é"}, 400),
        (LOGIN_COOKIE, {"state": None}, 400),
        (LOGIN_COOKIE, {"iss": "https://evil.example.org"}, 400),
        (LOGIN_COOKIE, {"code": "not the code"}, 403),
        (LOGIN_COOKIE, {"code": None}, 403),
        (LOGIN_COOKIE, {"code": None, "error": "access_denied"}, 403),
        (LOGIN_COOKIE, {"code": "unreachable"}, 503),
    ],
)
async def test_whoever_did_not_begin_it_or_comes_back_with_less_gets_no_session(
    gateway: Gateway, headers: dict[str, str], query: dict[str, Any], status: int
) -> None:
    answer = await back(gateway, headers, **query)
    assert answer.status == status, answer.body
    assert answer.media == "application/problem+json"
    assert "Set-Cookie" not in answer.headers
    assert await gateway.log() == []


async def test_for_a_command_elsewhere_the_token_is_shown_and_not_kept_in_the_browser(gateway: Gateway) -> None:
    begun = await gateway.get("/v1/session/login?show=true", role=None)
    secret = cookie(begun, "digitruck-login").value
    login = LoginSecrets.derive(secret)
    shown = await back(gateway, {"Cookie": f"digitruck-login={secret}"}, state=login.state, code=login.nonce)
    assert shown.status == 200
    token = shown.body.partition(b"<pre>")[2].partition(b"</pre>")[0].decode()
    assert (await gateway.get("/v1/session", role=None, headers={"Authorization": f"Bearer {token}"})).status == 200
    assert b"<b>" not in shown.body  # the name is the provider's word
    assert "frame-ancestors 'none'" in shown.headers["Content-Security-Policy"]
    assert shown.headers["Cache-Control"] == "no-store"
    assert all("digitruck-session" not in line for line in shown.headers.getall("Set-Cookie"))


async def test_signing_out_ends_a_session_but_no_token_that_an_admin_made(gateway: Gateway) -> None:
    token = await signed_in(gateway)
    headers = {"Cookie": f"digitruck-session={token}", REQUEST_HEADER: "1"}
    assert (await gateway.ask("DELETE", "/v1/session", role=None, headers=headers)).status == 200
    assert (await gateway.get("/v1/session", role=None, headers=headers)).status == 401
    assert (await gateway.ask("DELETE", "/v1/session", role=Role.VIEWER)).status == 200
    assert (await gateway.get("/v1/session", role=Role.VIEWER)).status == 200


async def test_without_a_provider_there_is_nothing_to_begin(open_gateway: Opener) -> None:
    async with open_gateway(sign_in=None) as gateway:
        assert (await gateway.get("/v1/session/login", role=None)).status == 404
        assert (await back(gateway)).status == 404


async def test_guessing_is_limited(open_gateway: Opener) -> None:
    limits = ApiLimits(address_burst=50.0, address_rate=0.1, wrong_token_cost=20.0)
    async with open_gateway(limits) as gateway:
        statuses = [(await back(gateway, code="guess")).status for _ in range(4)]
    assert statuses == [403, 403, 403, 429]


async def test_long_expired_sessions_are_forgotten_and_other_tokens_are_not(gateway: Gateway) -> None:
    await gateway.fleet.put_token(b"o" * 32, "oidc.old.1", "viewer", 0, 1)
    await gateway.fleet.put_token(b"l" * 32, "laptop", "viewer", 0, 1)
    await signed_in(gateway)
    names = [each.name for each in await gateway.fleet.tokens()]
    assert "oidc.old.1" not in names
    assert "laptop" in names
