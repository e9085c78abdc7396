"""Documents are taken from the right hands only, and kept as they were signed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.api.auth import Role
from gateway.api.services import TrustState
from gateway.ownkeys import make_keys
from protocol import cose
from protocol.documents import Desired
from protocol.numbers import DocumentKind
from tests.gateway.api.conftest import Gateway, Opener, World
from tests.gateway.fleets import Signers


async def test_a_document_is_put_once_and_fetched_as_it_was_signed(gateway: Gateway) -> None:
    signed = gateway.signers.config()
    first = await gateway.put_document(signed, role=Role.OPERATOR)
    again = await gateway.put_document(signed, role=Role.OPERATOR)
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json
    assert (first.json["kind"], first.json["version"], first.json["trucks"]) == ("config", 1, ["ke-arrow"])
    fetched = await gateway.get(first.headers["Location"])
    assert (fetched.body, fetched.media) == (signed, "application/cose")
    log = await gateway.log()
    assert [(each.actor, each.action) for each in log] == [("the-operator", "config.put")]


async def test_an_unchanged_document_is_not_sent_again(world: World) -> None:
    path = f"/v1/documents/{world.config.hex()}"
    fetched = await world.gateway.get(path)
    again = await world.gateway.get(path, headers={"If-None-Match": fetched.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    ("kind", "takers"),
    [
        ("config", {Role.OPERATOR, Role.ADMIN}),
        ("rollout", {Role.OPERATOR, Role.ADMIN}),
        ("manifest", {Role.PUBLISHER, Role.ADMIN}),
        ("delegation", {Role.ADMIN}),
        ("root", {Role.ADMIN}),
    ],
)
async def test_the_kind_decides_whose_token_may_bring_it(gateway: Gateway, kind: str, takers: set[Role]) -> None:
    signers = gateway.signers
    signed = {
        "config": signers.config(),
        "rollout": signers.rollout(None),
        "manifest": signers.manifest({"a.html": b"a"}),
        "delegation": signers.delegation(2),
        "root": signers.root_document(),
    }[kind]
    for role in Role:
        status = (await gateway.put_document(signed, role=role)).status
        assert (status != 403) == (role in takers), role


async def test_a_signature_of_the_wrong_person_is_refused_with_the_reason(gateway: Gateway) -> None:
    stranger = cose.SigningKey(b"s" * 32)
    forged = dataclasses.replace(gateway.signers, operator=stranger).config()
    answer = await gateway.put_document(forged)
    assert (answer.status, answer.media) == (422, "application/problem+json")
    assert "signature" in answer.json["detail"]
    assert await gateway.fleet.documents() == []


async def test_an_older_version_is_a_conflict(gateway: Gateway) -> None:
    assert (await gateway.put_document(gateway.signers.config(2))).status == 201
    older = await gateway.put_document(gateway.signers.config(1))
    other = await gateway.put_document(gateway.signers.config(2, batch_age_s=60))
    assert (older.status, other.status) == (409, 409)


@pytest.mark.parametrize("cut", [0, 1, 10, -1, -70])
async def test_a_damaged_document_is_refused(gateway: Gateway, cut: int) -> None:
    signed = gateway.signers.config()
    answer = await gateway.put_document(signed[:cut])
    assert answer.status in (400, 422)


@pytest.mark.parametrize("flip", range(0, 200, 13))
async def test_a_flipped_bit_is_refused(gateway: Gateway, flip: int) -> None:
    signed = bytearray(gateway.signers.config())
    signed[flip % len(signed)] ^= 0x10
    answer = await gateway.put_document(bytes(signed))
    assert answer.status == 422, answer.body


async def test_a_desired_state_cannot_be_brought(gateway: Gateway) -> None:
    signers = gateway.signers
    desired = Desired(**signers.dates(DocumentKind.DESIRED, 1), truck="ke-arrow")
    answer = await gateway.put_document(signers.sign(desired, signers.gateway))
    assert answer.status == 422


async def test_a_history_is_listed_newest_first_in_pages(gateway: Gateway) -> None:
    for version in (1, 2, 3):
        await gateway.put_document(gateway.signers.config(version))
    await gateway.put_document(gateway.signers.manifest({"a.html": b"a"}))
    first = (await gateway.get("/v1/documents?kind=config&name=ke-arrow&limit=2")).json
    rest = (await gateway.get(f"/v1/documents?kind=config&name=ke-arrow&limit=2&after={first['next']}")).json
    assert [each["version"] for each in first["items"] + rest["items"]] == [3, 2, 1]
    assert rest["next"] is None


async def test_trust_names_root_delegation_and_the_freshness_key(world: World) -> None:
    trust = (await world.gateway.get("/v1/trust")).json
    assert trust["root"]["digest"] == cose.digest(world.gateway.signers.root_document()).hex()
    assert trust["delegation"]["kind"] == "delegation"
    assert trust["freshness_key"] == world.gateway.signers.gateway.public.hex()


async def test_trust_says_what_is_wrong_and_what_is_to_be_signed_again(open_gateway: Opener, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "keys")
    config = Signers().config(1)
    async with open_gateway(trust=lambda: TrustState(keys, ["push it"], frozenset({cose.digest(config)}))) as gateway:
        await gateway.put_document(config)
        trust = (await gateway.get("/v1/trust")).json
    assert trust["warnings"] == ["push it"]
    assert [each["digest"] for each in trust["to_sign_again"]] == [cose.digest(config).hex()]
    assert trust["keys"] == [
        {"kind": "freshness", "number": 0, "public": keys.freshness.public.hex()},
        {"kind": "exchange", "number": 0, "public": keys.exchange.public.hex()},
    ]


async def test_a_gateway_without_trust_says_so(gateway: Gateway) -> None:
    trust = (await gateway.get("/v1/trust")).json
    assert (trust["root"], trust["delegation"]) == (None, None)


@pytest.mark.parametrize("digest", ["0" * 64, "A" * 64, "0" * 63, "..", "%2e%2e%2f" * 3])
async def test_what_is_not_here_is_not_found(gateway: Gateway, digest: str) -> None:
    assert (await gateway.get(f"/v1/documents/{digest}")).status == 404
    assert (await gateway.get(f"/v1/blobs/{digest}")).status == 404
