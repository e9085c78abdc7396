"""What happens to a request before and after its handler."""

from __future__ import annotations

import msgspec
import pytest

from gateway.api.auth import Role, new_token, token_sha256
from gateway.api.limits import ApiLimits
from gateway.api.problem import ProblemShape
from tests.gateway.api.conftest import Answer, Gateway, Opener
from tests.gateway.fleets import NOW_MS, add_truck


def problem(answer: Answer) -> ProblemShape:
    assert answer.media == "application/problem+json"
    found = msgspec.json.decode(answer.body, type=ProblemShape)
    assert found.status == answer.status
    return found


async def test_every_answer_carries_the_safe_headers(gateway: Gateway) -> None:
    for path in ("/v1/trucks", "/no/such/place", "/v1/docs", "/healthz"):
        answer = await gateway.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "digitruck"
        assert "Cache-Control" in answer.headers


async def test_an_unknown_address_is_a_problem_that_reflects_nothing(gateway: Gateway) -> None:
    answer = await gateway.get("/v1/<script>alert(1)</script>?x=<script>")
    assert problem(answer).kind == "urn:digitruck:problem:not-found"
    assert b"script" not in answer.body


async def test_a_wrong_method_names_the_right_ones(gateway: Gateway) -> None:
    answer = await gateway.ask("PATCH", "/v1/trucks/ke-arrow")
    assert problem(answer).status == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "DELETE"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/trucks?limit=0",
        "/v1/trucks?limit=1001",
        "/v1/trucks?limit=ten",
        "/v1/trucks?limit=1e9",
        "/v1/trucks?limit=1&limit=2",
        "/v1/trucks?colour=red",
        "/v1/trucks?group=Kenya%0d%0aX",
        "/v1/trucks?after=" + "x" * 300,
        "/v1/audit?after=x",
        "/v1/audit?after=-1",
        "/v1/audit?after=" + "9" * 19,
        "/v1/documents?after=1.zz",
        "/v1/bundles?after=maths",
        "/v1/documents?kind=desired",
        "/v1/ledger?step=60",
        "/v1/ledger?since=yesterday",
        "/v1/ledger?since=2026-11-23",
        "/v1/ledger?since=nan",
        "/v1/session?x=1",
    ],
)
async def test_a_query_that_is_not_valid_is_refused(gateway: Gateway, path: str) -> None:
    assert problem(await gateway.get(path)).status == 400


@pytest.mark.parametrize("name", ["..", "%2e%2e", "Ke-Arrow", "a" * 40, "a%2Fb", "ke%00arrow", "-a"])
async def test_a_name_that_no_truck_can_have_is_not_found(gateway: Gateway, name: str) -> None:
    assert problem(await gateway.get(f"/v1/trucks/{name}")).status in (404, 400)


@pytest.mark.parametrize(
    "header",
    [
        "Basic YWRtaW46YWRtaW4=",
        "Bearer",
        "Bearer dt_wrong",
        pytest.param(f"Bearer {new_token()}", id="Bearer of nobody"),
        "Token x",
    ],
)
async def test_a_token_that_does_not_hold_is_unauthorized(gateway: Gateway, header: str) -> None:
    answer = await gateway.get("/v1/trucks", role=None, headers={"Authorization": header})
    assert problem(answer).status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_an_expired_or_revoked_token_ends_at_once(gateway: Gateway) -> None:
    expired = new_token()
    await gateway.fleet.put_token(token_sha256(expired), "late", "admin", 0, NOW_MS)
    answer = await gateway.get("/v1/trucks", role=None, headers={"Authorization": f"Bearer {expired}"})
    assert answer.status == 401
    assert (await gateway.get("/v1/trucks", role=Role.VIEWER)).status == 200
    await gateway.fleet.revoke_token("the-viewer", NOW_MS)
    assert (await gateway.get("/v1/trucks", role=Role.VIEWER)).status == 401


async def test_a_handler_that_fails_says_nothing_of_why(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(**_: object) -> None:
        raise RuntimeError("SELECT secret FROM /var/lib/gateway.db")

    monkeypatch.setattr(gateway.fleet, "trucks", broken)
    answer = await gateway.get("/v1/trucks")
    assert problem(answer).status == 500
    assert b"secret" not in answer.body
    assert b"RuntimeError" not in answer.body
    assert problem(answer).instance.startswith("urn:digitruck:error:")


async def test_an_answer_that_takes_too_long_is_given_up(open_gateway: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async with open_gateway(ApiLimits(answer_deadline_s=0.05)) as gateway:

        async def stuck(**_: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(gateway.fleet, "trucks", stuck)
        assert problem(await gateway.get("/v1/trucks")).status == 503


async def test_an_unchanged_answer_is_not_sent_again(gateway: Gateway) -> None:
    await add_truck(gateway.fleet)
    first = await gateway.get("/v1/trucks")
    again = await gateway.get("/v1/trucks", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    await add_truck(gateway.fleet, "tz-arrow")
    assert (await gateway.get("/v1/trucks", headers={"If-None-Match": first.headers["ETag"]})).status == 200


async def test_too_many_requests_of_one_token_wait(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(token_rate=0.01, token_burst=3)) as gateway:
        statuses = [(await gateway.get("/v1/session", role=Role.VIEWER)).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        answer = await gateway.get("/v1/session", role=Role.VIEWER)
        assert int(answer.headers["Retry-After"]) > 1
        assert problem(answer).kind == "urn:digitruck:problem:too-many-requests"
        assert (await gateway.get("/v1/session", role=Role.ADMIN)).status == 200


async def test_guessing_tokens_soon_ends_even_for_right_ones_from_there(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(address_rate=0.01, address_burst=50, wrong_token_cost=20)) as gateway:
        guesses = [
            (await gateway.get("/v1/session", role=None, headers={"Authorization": f"Bearer {new_token()}"})).status
            for _ in range(5)
        ]
        assert guesses == [401, 401, 401, 429, 429]
        assert (await gateway.get("/v1/session")).status == 429
