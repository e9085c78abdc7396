"""The downlink against a real gateway: what is trusted is applied and receipted, what is not is refused, by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from edge.config import LinkSettings
from edge.daemon import Edge
from protocol import cose
from protocol.documents import Addressee, Config, RoleKeys, Root, sign_document
from protocol.numbers import DocumentKind, Outcome, Precedence
from store.fleet.tables import holdings
from tests.edge.rig import Rig, until


def config_of(edge: Edge) -> int | None:
    return edge.configurator.applied_version


async def nudge(edge: Edge) -> None:
    """Have the truck say something: the answer names the desired state."""
    await edge.recorder.event("nudge", Precedence.PRIORITY)


async def receipt(rig: Rig, kind: DocumentKind, outcome: Outcome, version: int | None = None) -> Any:
    """Wait for a receipt and return it."""
    found: list[Any] = []

    async def came() -> bool:
        found[:] = [
            each
            for each in await rig.hub.receipts()
            if each.document is kind and each.outcome is outcome and version in (None, each.version)
        ]
        return bool(found)

    await until(came)
    return found[-1]


def group_config(rig: Rig, version: int, issued_s: int, **settings: Any) -> bytes:
    dates = {**rig.hub.signers.dates(DocumentKind.CONFIG, version), "issued_s": issued_s}
    return rig.hub.signers.sign(
        Config(**dates, addressee=Addressee(group="kenya"), **settings), rig.hub.signers.operator
    )


@pytest.fixture
async def edge(rig: Rig) -> Edge:
    return await rig.start(await rig.join())


async def test_a_configuration_is_applied_and_receipted_with_the_time(rig: Rig, edge: Edge) -> None:
    digest = await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    await nudge(edge)
    applied = await receipt(rig, DocumentKind.CONFIG, Outcome.APPLIED)
    assert (applied.digest, applied.version) == (digest, 1)
    assert applied.time_ms == pytest.approx(rig.hub.now_ms, abs=60_000)
    assert edge.recorder.batch_age_s == 77
    await receipt(rig, DocumentKind.DESIRED, Outcome.APPLIED)


async def test_a_large_document_comes_in_pieces(rig: Rig, edge: Edge) -> None:
    extra = {f"key-{number}": "x" * 100 for number in range(60)}
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=88, extra=extra))
    await nudge(edge)
    await until(lambda: edge.recorder.batch_age_s == 88)
    assert list((rig.tmp_path / "ke-arrow" / "staging").iterdir()) == []


async def test_what_is_applied_outlives_a_restart_without_a_new_receipt(rig: Rig, edge: Edge) -> None:
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    await nudge(edge)
    await receipt(rig, DocumentKind.CONFIG, Outcome.APPLIED)
    await rig.stop(edge)
    edge = await rig.start(rig.tmp_path / "ke-arrow")
    assert (config_of(edge), edge.recorder.batch_age_s) == (1, 77)
    await nudge(edge)
    await nudge(edge)
    receipts = [each for each in await rig.hub.receipts() if each.document is DocumentKind.CONFIG]
    assert len(receipts) == 1


async def test_an_older_configuration_that_is_still_held_is_not_brought_back_by_naming_it(rig: Rig, edge: Edge) -> None:
    old, new = (rig.hub.signers.config(version, batch_age_s=70 + version) for version in (1, 2))
    for signed in (old, new):
        await rig.hub.accept(signed)
        await nudge(edge)
        await until(lambda: config_of(edge) is not None)
    await until(lambda: config_of(edge) == 2)
    await rig.hub.desire(await rig.hub.entry(old), version=2**40)
    await nudge(edge)
    refused = await receipt(rig, DocumentKind.CONFIG, Outcome.REJECTED)
    assert "older than version 2" in refused.reason
    assert config_of(edge) == 2
    await rig.stop(edge)
    edge = await rig.start(rig.tmp_path / "ke-arrow")
    assert edge.recorder.batch_age_s == 72


async def test_a_gateway_that_withholds_a_configuration_does_not_undo_it(rig: Rig, edge: Edge) -> None:
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    await nudge(edge)
    await until(lambda: config_of(edge) == 1)
    signed = await rig.hub.desire(version=2**40)
    await nudge(edge)
    await until(lambda: edge.downlink._reported == cose.digest(signed)[:8])
    await rig.stop(edge)
    edge = await rig.start(rig.tmp_path / "ke-arrow")
    assert edge.recorder.batch_age_s == 77


async def test_what_a_stranger_signed_is_refused_and_the_rest_goes_on(rig: Rig, edge: Edge) -> None:
    signers = rig.hub.signers
    stranger = cose.SigningKey(b"x" * 32)
    forged = sign_document(
        Config(**signers.dates(DocumentKind.CONFIG, 9), addressee=Addressee(("ke-arrow",)), batch_age_s=1), [stranger]
    )
    for_other = signers.config(5, trucks=("tz-arrow",), batch_age_s=2)
    good = signers.config(1, batch_age_s=77)
    entries = [await rig.hub.entry(each) for each in (forged, for_other, good)]
    delegation = await rig.hub.entry(signers.delegation())
    await rig.hub.desire(*entries, delegation, version=2**40)
    await nudge(edge)
    await until(lambda: config_of(edge) == 1)
    await receipt(rig, DocumentKind.DESIRED, Outcome.HELD)
    reasons: dict[int, str] = {}

    async def both_are_told() -> bool:
        reasons.update(
            {each.version: each.reason for each in await rig.hub.receipts() if each.outcome is Outcome.REJECTED}
        )
        return {5, 9} <= set(reasons)

    await until(both_are_told)
    assert "signature" in reasons[9]
    assert "tz-arrow" in reasons[5]


@pytest.mark.parametrize(
    "lie",
    [{"key": cose.SigningKey(b"x" * 32)}, {"about": "tz-arrow"}, {"version": 1}],
    ids=["a key that the root does not name", "another truck's", "an older version"],
)
async def test_a_desired_state_that_is_not_believed_changes_nothing_and_is_not_asked_for_again_and_again(
    rig: Rig, edge: Edge, lie: dict[str, Any]
) -> None:
    good = rig.hub.signers.config(1, batch_age_s=77)
    await rig.hub.accept(good)
    await nudge(edge)
    await until(lambda: config_of(edge) == 1)
    await receipt(rig, DocumentKind.DESIRED, Outcome.APPLIED)
    bad = await rig.hub.entry(rig.hub.signers.config(2, batch_age_s=66))
    await rig.hub.desire(bad, **{"version": 2**40, **lie})
    await nudge(edge)
    await until(lambda: edge.downlink._refused is not None)
    asked = sum(each.datagrams for each in edge.ledger.totals() if each.cause == "document")
    for _ in range(5):
        await nudge(edge)
        await asyncio.sleep(0.05)
    assert sum(each.datagrams for each in edge.ledger.totals() if each.cause == "document") == asked
    assert config_of(edge) == 1
    assert rig.failed(edge) is None


async def test_a_root_with_new_gateway_keys_is_followed_and_lets_versions_start_over(rig: Rig, edge: Edge) -> None:
    signers = rig.hub.signers
    await rig.hub.desire(version=2**50)  # stolen keys drove the version as high as they could
    await nudge(edge)
    await receipt(rig, DocumentKind.DESIRED, Outcome.APPLIED, 2**50)
    fresh = cose.SigningKey(b"n" * 32)
    keys = RoleKeys(1, (signers.root.public,)), RoleKeys(1, (fresh.public,))
    second = sign_document(Root(**signers.dates(DocumentKind.ROOT, 2), root=keys[0], gateway=keys[1]), [signers.root])
    entries = [await rig.hub.entry(each) for each in (second, signers.delegation(), signers.config(1, batch_age_s=77))]
    await rig.hub.desire(*reversed(entries), version=3, key=fresh)
    await nudge(edge)
    await until(lambda: config_of(edge) == 1)
    assert edge.trust.root.version == 2
    await rig.stop(edge)
    edge = await rig.start(rig.tmp_path / "ke-arrow")
    assert (edge.trust.root.version, edge.recorder.batch_age_s) == (2, 77)


async def test_the_order_in_which_documents_are_named_does_not_matter(rig: Rig, edge: Edge) -> None:
    signers = rig.hub.signers
    manifest = await rig.hub.push({"index.html": b"hello"})
    record = await rig.hub.gateway.fleet.document(manifest)  # type: ignore[union-attr]
    assert record is not None
    documents = (record.signed, signers.rollout(manifest), signers.config(1, batch_age_s=77), signers.delegation())
    await rig.hub.desire(*[await rig.hub.entry(each) for each in documents], version=2**40)
    await nudge(edge)
    await receipt(rig, DocumentKind.DESIRED, Outcome.APPLIED, 2**40)
    assert not [each for each in await rig.hub.receipts() if each.outcome is Outcome.REJECTED]
    await until(lambda: edge.installer.active("maths") is not None)


async def test_the_configuration_of_the_truck_follows_that_of_its_group(rig: Rig, edge: Edge) -> None:
    now_s = rig.hub.now_ms // 1000
    await rig.hub.accept(group_config(rig, 1, now_s, batch_age_s=60))
    await nudge(edge)
    await until(lambda: edge.recorder.batch_age_s == 60)
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    await nudge(edge)
    await until(lambda: edge.recorder.batch_age_s == 77)
    applied = [each.name for each in await rig.hub.receipts() if each.document is DocumentKind.CONFIG]
    assert applied[0] == "group:kenya"


async def test_a_sync_that_the_link_broke_goes_on_when_it_is_back(rig: Rig) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    await nudge(edge)
    await receipt(rig, DocumentKind.DESIRED, Outcome.APPLIED)
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    dropping = True
    # The answers to uploads pass, those with a document do not.
    wire.drop = lambda data, is_up: dropping and not is_up and len(data) > 150
    await nudge(edge)
    await asyncio.sleep(1.0)
    assert config_of(edge) is None
    dropping = False
    await nudge(edge)
    await until(lambda: config_of(edge) == 1)


async def test_manifests_of_rollouts_that_are_over_are_not_kept_for_ever(rig: Rig, edge: Edge) -> None:
    for version in range(1, 4):
        manifest = await rig.hub.push({"index.html": b"hello %d" % version}, version=version)
        await rig.hub.accept(rig.hub.signers.rollout(manifest, version=version))
        await nudge(edge)
        await until(lambda manifest=manifest: edge.installer.active("maths") and _active(edge) == manifest)
    held = await edge.writer.run(lambda: edge.documents.names(DocumentKind.MANIFEST))
    assert len(held) == 1


def _active(edge: Edge) -> bytes | None:
    found = edge.installer.active("maths")
    return None if found is None else found.digest


async def test_what_the_gateway_still_names_is_reported_again_after_a_while(
    rig: Rig, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.downlink._REPORTED_PAUSE_S", 0.0)
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    await nudge(edge)
    await receipt(rig, DocumentKind.DESIRED, Outcome.APPLIED)
    gateway = rig.hub.gateway
    assert gateway is not None
    # As a copy of this truck, gone since, leaves it behind.
    async with gateway.fleet._database.write() as connection:
        await connection.execute(update(holdings).values(digest=bytes(32), epoch_ordinal=0, sequence=0))

    async def is_reported() -> bool:
        await nudge(edge)
        record = await gateway.fleet.truck("ke-arrow")
        return record is not None and record.desired_reported == record.desired_digest

    await until(is_reported)
