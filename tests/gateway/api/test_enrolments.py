"""A code is shown once, works once, and its secret is nowhere in the database."""

from __future__ import annotations

from pathlib import Path

from gateway.api.auth import Role
from protocol import cose
from protocol.errors import PeerError
from tests.gateway.api.conftest import Gateway, Opener
from tests.gateway.fleets import NOW_MS, add_truck


async def create(gateway: Gateway, **fields: object):
    return await gateway.ask("POST", "/v1/enrolments", json={"truck": "ke-arrow", **fields}, role=Role.OPERATOR)


async def test_the_code_enrols_the_truck_that_it_names(gateway: Gateway, tmp_path: Path) -> None:
    answer = await create(gateway, group="kenya", expires_in_s=600)
    assert answer.status == 201
    code = answer.json
    assert (code["truck"], code["group"], code["replaces"]) == ("ke-arrow", "kenya", False)
    assert code["expires_ms"] == NOW_MS + 600_000
    secret = bytes.fromhex(code["code"].rpartition("-")[2])
    assert len(secret) == 16
    assert secret not in (tmp_path / "fleet.db").read_bytes()
    truck = await gateway.fleet.redeem_enrolment(
        cose.digest(secret), "ke-arrow", b"k" * 32, b"cred", b"kid", NOW_MS + 1
    )
    assert truck.group == "kenya"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_log_and_the_list_show_the_making_and_not_the_code(gateway: Gateway) -> None:
    code = (await create(gateway)).json["code"]
    listed = await gateway.get("/v1/enrolments")
    logged = await gateway.get("/v1/audit")
    for answer in (listed, logged):
        assert code.encode() not in answer.body
        assert code.rpartition("-")[2].encode() not in answer.body
    assert listed.json["items"][0]["created_by"] == "the-operator"
    assert logged.json["items"][0]["action"] == "enrolment.created"


async def test_a_code_for_an_enrolled_truck_says_that_it_replaces(gateway: Gateway) -> None:
    await add_truck(gateway.fleet)
    assert (await create(gateway)).json["replaces"] is True


async def test_a_truck_that_the_role_table_revokes_gets_no_code(open_gateway: Opener) -> None:
    async with open_gateway(is_revoked=lambda truck: truck == "ke-arrow") as gateway:
        refused = await gateway.ask("POST", "/v1/enrolments", json={"truck": "ke-arrow"})
        assert refused.status == 409
        assert "trust revoke --allow ke-arrow" in refused.json["detail"]
        assert (await gateway.ask("POST", "/v1/enrolments", json={"truck": "tz-arrow"})).status == 201


async def test_new_keys_leave_a_truck_in_its_group(gateway: Gateway) -> None:
    await add_truck(gateway.fleet, "ke-arrow", "kenya")
    for asked, given in (({"truck": "ke-arrow"}, "kenya"), ({"truck": "ke-arrow", "group": "zambia"}, "zambia")):
        assert (await gateway.ask("POST", "/v1/enrolments", json=asked)).json["group"] == given
    assert (await gateway.ask("POST", "/v1/enrolments", json={"truck": "tz-arrow"})).json["group"] == "fleet"


async def test_codes_that_cannot_be_made_yet_say_what_to_do(open_gateway: Opener) -> None:
    def not_yet(truck: str, secret: bytes) -> str:
        raise PeerError("run `digitruck trust push` first")

    async with open_gateway(make_code=not_yet) as gateway:
        answer = await create(gateway)
        assert (answer.status, answer.json["detail"]) == (409, "run `digitruck trust push` first")
        assert await gateway.fleet.enrolments() == []
