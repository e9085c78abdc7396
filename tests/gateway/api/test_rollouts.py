"""A rollout is a signed document; how far it is, the trucks' receipts say."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api.auth import Role
from protocol import cose
from protocol.documents import Addressee
from protocol.numbers import DocumentKind, Outcome
from tests.gateway.api.conftest import Answer, Gateway, World
from tests.gateway.fleets import NOW_MS, add_truck

COSE = {"Content-Type": "application/cose"}


async def states(gateway: Gateway, rollout: str) -> dict[str, str]:
    return {each["truck"]: each["state"] for each in (await gateway.get(f"/v1/rollouts/{rollout}")).json["items"]}


async def test_a_rollout_is_started_by_its_signed_document(world: World) -> None:
    signed = world.gateway.signers.rollout(world.manifest, version=2)
    answer = await world.gateway.ask("POST", "/v1/rollouts", data=signed, headers=COSE, role=Role.OPERATOR)
    assert (answer.status, answer.json["digest"]) == (201, cose.digest(signed).hex())
    shown = (await world.gateway.get(f"/v1/rollouts/{answer.json['digest']}")).json
    assert (shown["bundle"], shown["version"], shown["manifest"]) == ("maths", "v1", world.manifest.hex())
    assert shown["precedence"] == "bulk"


async def test_another_document_is_not_a_rollout(world: World) -> None:
    signed = world.gateway.signers.config(7)
    answer = await world.gateway.ask("POST", "/v1/rollouts", data=signed, headers=COSE)
    assert (answer.status, "config" in answer.json["detail"]) == (422, True)
    assert (await world.gateway.get(f"/v1/rollouts/{world.config.hex()}")).status == 404


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.APPLIED, "done"),
        (Outcome.REJECTED, "rejected"),
        (Outcome.ROLLED_BACK, "rolled-back"),
        (Outcome.HELD, "held"),
    ],
)
async def test_progress_is_what_the_truck_signed(world: World, outcome: Outcome, state: str) -> None:
    await world.truck.receipt(DocumentKind.MANIFEST, world.manifest, outcome, "maths")
    assert await states(world.gateway, world.rollout.hex()) == {"ke-arrow": state}


async def test_a_group_is_followed_in_pages_with_every_kind_of_truck(world: World) -> None:
    gateway = world.gateway
    done, other, revoked = [await add_truck(gateway.fleet, name) for name in ("ke-done", "ke-other", "ke-revoked")]
    signed = gateway.signers.rollout(world.manifest, version=2, to=Addressee(group="kenya"))
    assert (await gateway.put_document(signed)).status == 201
    await done.receipt(DocumentKind.MANIFEST, world.manifest, name="maths")
    await other.receipt(DocumentKind.MANIFEST, b"x" * 32, name="maths")
    await gateway.fleet.revoke_truck(revoked.name, NOW_MS)
    rollout = cose.digest(signed).hex()
    assert await states(gateway, rollout) == {
        "ke-arrow": "superseded",  # a rollout by name wins over one by group
        "ke-done": "done",
        "ke-other": "waiting",
        "ke-revoked": "revoked",
    }
    page = (await gateway.get(f"/v1/rollouts/{rollout}?limit=3")).json
    rest = (await gateway.get(f"/v1/rollouts/{rollout}?limit=3&after={page['next']}")).json
    assert [each["truck"] for each in rest["items"]] == ["ke-revoked"]


async def test_a_newer_rollout_supersedes(world: World) -> None:
    newer = world.gateway.signers.rollout(None, version=2)
    await world.gateway.put_document(newer)
    assert await states(world.gateway, world.rollout.hex()) == {"ke-arrow": "superseded"}
    shown = (await world.gateway.get(f"/v1/rollouts/{cose.digest(newer).hex()}")).json
    assert (shown["manifest"], shown["version"]) == (None, None)


async def test_a_truck_that_never_enrolled_is_unknown(world: World) -> None:
    signed = world.gateway.signers.rollout(world.manifest, to=Addressee(("ke-nobody",)))
    await world.gateway.put_document(signed)
    assert await states(world.gateway, cose.digest(signed).hex()) == {"ke-nobody": "unknown"}


async def test_rollouts_are_listed_newest_first_in_pages(world: World) -> None:
    for version in (2, 3):
        await world.gateway.put_document(world.gateway.signers.rollout(world.manifest, version=version))
    first = (await world.gateway.get("/v1/rollouts?limit=2")).json
    rest = (await world.gateway.get(f"/v1/rollouts?limit=2&after={first['next']}")).json
    listed = first["items"] + rest["items"]
    assert [each["document"]["version"] for each in listed] == [3, 2, 1]
    assert rest["next"] is None


async def act(world: World, action: str, rollout: bytes | None = None, **kwargs: Any) -> Answer:
    identity = (rollout or world.rollout).hex()
    return await world.gateway.ask("POST", f"/v1/rollouts/{identity}/{action}", role=Role.OPERATOR, **kwargs)


async def test_it_is_paused_resumed_and_aborted_by_an_operator_and_the_log_says_by_whom(world: World) -> None:
    seen = [(await act(world, action)).json["state"] for action in ("pause", "resume", "abort")]
    assert seen == ["paused", "running", "aborted"]
    for action in ("pause", "resume", "abort"):
        refused = await act(world, action)
        assert (refused.status, "is aborted" in refused.json["detail"]) == (409, True)
    assert [(each.action, each.actor) for each in (await world.gateway.log())[:3]] == [
        ("rollout.aborted", "the-operator"),
        ("rollout.running", "the-operator"),
        ("rollout.paused", "the-operator"),
    ]


async def test_rolling_back_takes_a_signed_rollout_of_the_same_bundle_and_trucks(world: World) -> None:
    signers = world.gateway.signers
    elsewhere = signers.rollout(None, version=2, to=Addressee(group="kenya"))
    refused = await act(world, "rollback", data=elsewhere, headers=COSE)
    assert (refused.status, "same trucks" in refused.json["detail"]) == (422, True)
    assert (await act(world, "rollback", data=signers.config(3), headers=COSE)).status == 422
    back = signers.rollout(None, version=2)
    assert (await act(world, "rollback", data=back, headers=COSE)).status == 201
    shown = (await world.gateway.get(f"/v1/rollouts/{world.rollout.hex()}")).json
    assert shown["state"] == "aborted"
    assert shown["reason"] == f"rolled back by {cose.digest(back).hex()[:12]}"
    assert shown["items"][0]["state"] == "superseded"


async def test_a_truck_says_why_it_is_not_further(world: World) -> None:
    fleet, signers = world.gateway.fleet, world.gateway.signers
    for name in ("ke-a", "ke-b", "ke-c"):
        await add_truck(fleet, name)
        await fleet.heard(name, "sat", NOW_MS - 60_000)
    signed = signers.rollout(
        world.manifest, version=2, to=Addressee(group="kenya"), stages=(30,), stop_at_percent=50, dark_after_s=3_600
    )
    await world.gateway.put_document(signed)
    shown = (await world.gateway.get(f"/v1/rollouts/{cose.digest(signed).hex()}")).json
    by_state = {each["state"]: each["reason"] for each in shown["items"] if each["truck"] != "ke-arrow"}
    assert (shown["stage"], shown["stages"], shown["counts"]) == (1, [30, 100], {"waiting": 1, "staged": 2})
    assert by_state["staged"].startswith("stage 1 of 2 is open; stage 2 of 2 begins when ke-")
    assert by_state["waiting"] == "knows of it; nothing fetched yet"


async def test_an_unknown_action_is_not_found(world: World) -> None:
    assert (await world.gateway.ask("POST", f"/v1/rollouts/{world.rollout.hex()}/explode")).status == 404
