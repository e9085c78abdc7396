"""Signing in to the console: by a token, by a link that works once; what another site sends counts for nothing."""

from __future__ import annotations

import pytest

from gateway.api.auth import Role, session_cookie
from gateway.console.session import local_address
from tests.gateway.api.conftest import Gateway, World
from tests.gateway.console.conftest import Visitor, body_of, text_of

COOKIE = session_cookie(False)


def token_in(answer: object) -> str:
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    return cookie.partition(f"{COOKIE}=")[2].partition(";")[0]


async def test_a_token_signs_in_and_leads_back_to_where_one_wanted_to_be(gateway: Gateway) -> None:
    nobody = Visitor(gateway, None)
    token = gateway.tokens[Role.OPERATOR]
    answer = await nobody.post("/signin", token=f" {token} ", next="/trucks/ke-arrow")
    assert (answer.status, answer.headers["Location"], token_in(answer)) == (303, "/trucks/ke-arrow", token)
    page = await gateway.get("/", role=None, headers={"Cookie": f"{COOKIE}={token}"})
    assert "No trucks yet." in text_of(page)


@pytest.mark.parametrize("token", ["", "dt_" + "x" * 43, "hello", "dt_" + "ä" * 43])
async def test_a_wrong_token_shows_the_form_again(gateway: Gateway, token: str) -> None:
    answer = await Visitor(gateway, None).post("/signin", token=token, next="/audit")
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers
    assert 'value="/audit"' in body_of(answer)


async def test_a_link_signs_in_once_with_the_role_of_who_asked(gateway: Gateway) -> None:
    made = (await gateway.ask("POST", "/v1/session/link", role=Role.OPERATOR)).json
    shown = await gateway.get(made["path"], role=None)
    assert shown.status == 200  # looking at it (a preview, a scanner) does not spend it
    code = made["path"].partition("code=")[2]
    first = await Visitor(gateway, None).post("/signin", token=code)
    token = token_in(first)
    assert token != code
    session = await gateway.get("/v1/session", role=None, headers={"Authorization": f"Bearer {token}"})
    assert session.json["role"] == "operator"
    assert session.json["name"].startswith("console.the-operator.")
    assert (await Visitor(gateway, None).post("/signin", token=code)).status == 403
    # The code is no token of the API once it was used, and signing out ends the session.
    for each, status in ((code, 401), (token, 200)):
        asked = await gateway.get("/v1/session", role=None, headers={"Authorization": f"Bearer {each}"})
        assert asked.status == status
    out = await gateway.ask(
        "POST", "/signout", role=None, headers={"Cookie": f"{COOKIE}={token}", "Origin": gateway.base}
    )
    assert out.status == 303
    assert (await gateway.get("/v1/session", role=None, headers={"Authorization": f"Bearer {token}"})).status == 401


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_form_of_another_site_changes_nothing(world: World, origin: str | None) -> None:
    gateway = world.gateway
    headers = {"Cookie": f"{COOKIE}={gateway.tokens[Role.ADMIN]}"} | ({} if origin is None else {"Origin": origin})
    for path, fields in (("/trucks/ke-arrow/revoke", {}), ("/enrol", {"truck": "xx-new"}), ("/signout", {})):
        answer = await gateway.ask("POST", path, role=None, headers=headers, data=fields)
        assert answer.status == 403, path
    truck = await gateway.fleet.truck("ke-arrow")
    assert truck is not None
    assert truck.revoked_ms is None


@pytest.mark.parametrize(
    ("wanted", "led"),
    [("/trucks/x?a=1", "/trucks/x?a=1"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil", "/"),
     ("javascript:alert(1)", "/"), ("", "/"), ("/a\nb", "/")],
)  # fmt: skip
def test_one_is_led_on_within_this_site_only(wanted: str, led: str) -> None:
    assert local_address(wanted) == led


async def test_a_language_is_kept_and_an_unknown_one_is_not(gateway: Gateway) -> None:
    nobody = Visitor(gateway, None)
    answer = await nobody.post("/language", language="fr", next="/signin")
    assert "digitruck-language=fr" in answer.headers["Set-Cookie"]
    assert "Set-Cookie" not in (await nobody.post("/language", language="xx")).headers
    assert "Se connecter" in text_of(await nobody.get("/signin", **{"Accept-Language": "sw;q=0.9, fr-CD, en;q=0.3"}))
    assert "Sign in" in text_of(await nobody.get("/signin", **{"Accept-Language": "de, fr;q=0"}))
