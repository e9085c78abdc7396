"""Couriers' sticks over the API: planned for trucks, revoked when lost, and what they bring is taken once."""

from __future__ import annotations

import base64
from typing import Any

from protocol import cose
from protocol.documents import Desired, Stick, parse_document
from protocol.edhoc import credential, generate_key
from protocol.trust import TrustedSet
from store.sealing import key_info, open_sealed
from tests.gateway.api.conftest import OCTETS, World
from tests.gateway.fleets import EPOCH, NOW_MS, NOW_S, carried


async def planned(world: World, **fields: object) -> dict[str, Any]:
    answer = await world.gateway.ask("POST", "/v1/sticks", json={"trucks": ["ke-arrow"]} | fields)
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json
    return found


async def take(world: World, data: bytes, query: str = "") -> tuple[int, dict[str, object]]:
    answer = await world.gateway.ask("POST", f"/v1/carried{query}", data=data, headers=OCTETS)
    return answer.status, answer.json


async def test_a_stick_is_signed_for_its_trucks_and_names_what_they_should_have(world: World) -> None:
    plan = await planned(world)
    signed = base64.b64decode(str(plan["signed"]))
    trust = TrustedSet(world.gateway.signers.root_document(), truck="ke-arrow", group="kenya")
    stick, mine = trust.check_stick(signed, NOW_S)
    assert stick.stick.hex() == plan["stick"]
    (truck,) = plan["plans"]
    desired = base64.b64decode(truck["desired"])
    assert cose.digest(desired) == mine.desired
    entries = parse_document(desired, Desired)[0].entries
    assert truck["documents"] == [each.digest.hex() for each in entries]
    assert truck["manifests"] == [world.manifest.hex()]
    assert mine.key == b""
    (committed,) = mine.committed
    assert (committed.epoch, committed.cumulative) == (EPOCH, 5)


async def test_a_stick_for_nobody_or_for_a_stranger_is_refused(world: World) -> None:
    for trucks in ([], ["nobody"], ["ke-arrow", "nobody"]):
        answer = await world.gateway.ask("POST", "/v1/sticks", json={"trucks": trucks})
        assert answer.status in (400, 422)
    assert (await world.gateway.get("/v1/sticks")).json["items"] == []


async def test_a_sealed_stick_opens_for_its_truck_alone(world: World) -> None:
    key = generate_key()
    enrol = (b"x" * 32, "zm-arrow", b"z" * 32, credential(key.public), b"zm-kid")
    await world.gateway.fleet.create_enrolment("zm-arrow", "kenya", enrol[0], NOW_MS + 1_000, "a test", now_ms=NOW_MS)
    await world.gateway.fleet.redeem_enrolment(*enrol, NOW_MS)
    plan = await planned(world, trucks=["zm-arrow"], sealed=True)
    stick, _ = parse_document(base64.b64decode(str(plan["signed"])), Stick)
    info = key_info(stick.stick, "zm-arrow")
    assert open_sealed(key.private, stick.trucks[0].key, info).hex() == plan["key"]
    again = await world.gateway.get(f"/v1/sticks/{plan['stick']}")
    assert again.json == plan


async def test_what_a_courier_brings_is_stored_once_and_told_on_the_next_stick(world: World) -> None:
    data = carried("ke-arrow", world.gateway.keys, sequence=6, names=("a", "b", "c"))
    assert await take(world, data) == (200, {"truck": "ke-arrow", "new": 3, "known": 0, "refused": 0})
    assert await take(world, data) == (200, {"truck": "ke-arrow", "new": 0, "known": 3, "refused": 0})
    events = await world.gateway.fleet.events(truck="ke-arrow", limit=10)
    assert [each.name for each in events if each.name in "abc"] == ["a", "b", "c"]
    stick, _ = parse_document(base64.b64decode(str((await planned(world))["signed"])), Stick)
    assert stick.trucks[0].committed[0].cumulative == 8


async def test_a_courier_forges_nothing_and_a_damaged_file_stores_nothing(world: World) -> None:
    data = carried("ke-arrow", world.gateway.keys, sequence=6)
    for wrong in (
        data[:-1],
        data[:40],
        data[:100] + b"x" + data[101:],
        b"",
        b"\x02" + data[1:],
        b"\x01\x09" + data[2:],
    ):
        assert (await take(world, wrong))[0] == 422, wrong[:4]
    stranger = carried("nobody", world.gateway.keys)
    assert (await take(world, stranger))[0] == 422
    # Signed by another truck's key: every parcel is refused.
    forged = carried("tz-arrow", world.gateway.keys, sequence=6)
    assert (await take(world, forged))[0] == 422
    assert (await world.gateway.fleet.epoch_state("ke-arrow", EPOCH)).cumulative == 5  # type: ignore[union-attr]


async def test_a_lost_stick_is_revoked_for_the_gateway_and_for_every_truck(world: World) -> None:
    stick = str((await planned(world))["stick"])
    assert (await world.gateway.ask("DELETE", f"/v1/sticks/{stick}")).json["revoked_ms"] == NOW_MS
    desired = await world.gateway.fleet.desired("ke-arrow")
    assert desired is not None
    assert parse_document(desired.signed, Desired)[0].revoked_sticks == (bytes.fromhex(stick),)
    status, problem = await take(world, carried("ke-arrow", world.gateway.keys, sequence=6), f"?stick={stick}")
    assert (status, "revoked" in str(problem["detail"])) == (422, True)
    assert (await world.gateway.get(f"/v1/sticks/{stick}")).status == 409
    (listed,) = (await world.gateway.get("/v1/sticks")).json["items"]
    assert (listed["stick"], listed["trucks"], listed["revoked_ms"]) == (stick, ["ke-arrow"], NOW_MS)


async def test_a_plan_is_not_gone_on_with_when_more_is_desired_by_now(world: World) -> None:
    stick = str((await planned(world))["stick"])
    await world.gateway.put_document(world.gateway.signers.config(2))
    assert (await world.gateway.get(f"/v1/sticks/{stick}")).status == 409
