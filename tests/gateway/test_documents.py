"""Documents on the gateway: what is kept, what is refused, and when a truck's desired state changes."""

from __future__ import annotations

import asyncio

import pytest

from gateway import documents as module
from gateway.documents import DESIRED_LIFETIME_S, Documents
from protocol import cose
from protocol.documents import Addressee, Desired, parse_document
from protocol.errors import PeerError, RollbackError, UntrustedError
from protocol.numbers import DocumentKind
from store.fleet.fleet import FleetStore
from tests.gateway.coapside import Clock
from tests.gateway.fleets import Signers, add_truck

BY = Signers()
FILES = {"a.html": b"a"}


@pytest.fixture
async def documents(fleet: FleetStore, clock: Clock) -> Documents:
    """Documents with a root and a delegation, and one truck."""
    made = Documents(fleet, BY.gateway, now_ms=clock.now_ms)
    await made.load()
    await made.accept(BY.root_document(), "ada")
    await made.accept(BY.delegation(), "ada")
    await add_truck(fleet)
    return made


async def desired(fleet: FleetStore, truck: str = "ke-arrow") -> Desired:
    record = await fleet.desired(truck)
    assert record is not None
    return parse_document(record.signed, Desired)[0]


async def refresh(documents: Documents, fleet: FleetStore) -> Desired:
    record = await fleet.truck("ke-arrow")
    assert record is not None
    await documents.refresh(record)
    return await desired(fleet)


async def test_without_a_root_nothing_but_a_root_is_taken(fleet: FleetStore, clock: Clock) -> None:
    documents = Documents(fleet, BY.gateway, now_ms=clock.now_ms)
    await documents.load()
    with pytest.raises(UntrustedError, match="trust push"):
        await documents.accept(BY.config(), "ada")
    record = await documents.accept(BY.root_document(), "ada")
    assert documents.root_digest == record.digest


async def test_two_first_roots_at_once_are_not_both_taken(fleet: FleetStore, clock: Clock) -> None:
    documents = Documents(fleet, BY.gateway, now_ms=clock.now_ms)
    await documents.load()
    other = Signers(root=cose.SigningKey(b"x" * 32)).root_document()
    results = await asyncio.gather(
        documents.accept(BY.root_document(), "ada"), documents.accept(other, "eve"), return_exceptions=True
    )
    assert sum(isinstance(each, PeerError) for each in results) == 1
    assert len(await fleet.documents(kind=DocumentKind.ROOT)) == 1


async def test_the_same_bytes_again_give_the_same_record(documents: Documents) -> None:
    config = BY.config()
    assert await documents.accept(config, "ada") == await documents.accept(config, "bob")


async def test_what_a_stranger_signed_is_refused(documents: Documents, fleet: FleetStore) -> None:
    stranger = cose.SigningKey(b"s" * 32)
    forgers = Signers(operator=stranger, publisher=stranger, root=stranger)
    for signed in (forgers.config(), forgers.manifest(FILES), forgers.delegation(2), forgers.root_document()):
        with pytest.raises(PeerError):
            await documents.accept(signed, "eve")
    assert len(await fleet.documents()) == 2


async def test_a_version_that_is_here_already_is_refused(documents: Documents) -> None:
    await documents.accept(BY.config(version=2), "ada")
    for version in (1, 2):
        with pytest.raises(RollbackError, match="sign version 3"):
            await documents.accept(BY.config(version=version, batch_age_s=77 + version), "ada")


async def test_a_rollout_of_what_was_not_pushed_is_refused(documents: Documents) -> None:
    with pytest.raises(UntrustedError, match="bundle push"):
        await documents.accept(BY.rollout(bytes(32)), "ada")


async def test_nobody_pushes_a_desired_state(documents: Documents, fleet: FleetStore) -> None:
    await refresh(documents, fleet)
    record = await fleet.desired("ke-arrow")
    assert record is not None
    with pytest.raises(UntrustedError):
        await documents.accept(record.signed, "eve")


async def test_a_desired_state_names_what_the_truck_should_have(documents: Documents, fleet: FleetStore) -> None:
    manifest = await documents.accept(BY.manifest(FILES), "ada")
    rollout = await documents.accept(BY.rollout(manifest.digest), "ada")
    config = await documents.accept(BY.config(), "ada")
    await documents.accept(BY.config(trucks=("tz-arrow",)), "ada")
    kinds = {entry.document: entry.digest for entry in (await desired(fleet)).entries}
    assert set(kinds) == set(DocumentKind) - {DocumentKind.DESIRED}
    assert kinds[DocumentKind.CONFIG] == config.digest
    assert (kinds[DocumentKind.ROLLOUT], kinds[DocumentKind.MANIFEST]) == (rollout.digest, manifest.digest)


async def test_it_changes_only_when_its_entries_do_and_its_versions_grow(
    documents: Documents, fleet: FleetStore, clock: Clock
) -> None:
    first = await refresh(documents, fleet)
    clock.pass_s(3_600.0)
    assert await refresh(documents, fleet) == first
    await documents.accept(BY.manifest(FILES), "ada")
    assert await desired(fleet) == first, "a manifest alone changes nothing"
    await documents.accept(BY.config(), "ada")
    second = await desired(fleet)
    clock.pass_s(-7_200.0)
    await documents.accept(BY.config(version=2), "ada")
    third = await desired(fleet)
    assert first.version < second.version < third.version, "also with a clock that was set back"


async def test_it_survives_a_restart(documents: Documents, fleet: FleetStore, clock: Clock) -> None:
    before = await refresh(documents, fleet)
    again = Documents(fleet, BY.gateway, now_ms=clock.now_ms)
    await again.load()
    assert again.root_digest == documents.root_digest
    assert await refresh(again, fleet) == before


async def test_two_changes_at_once_get_two_versions(documents: Documents, fleet: FleetStore) -> None:
    seen = []
    put = fleet.set_desired

    async def noted(truck: str, digest: bytes, signed: bytes, now_ms: int) -> None:
        seen.append(parse_document(signed, Desired)[0].version)
        await put(truck, digest, signed, now_ms)

    fleet.set_desired = noted  # type: ignore[method-assign]
    truck = await fleet.truck("ke-arrow")
    assert truck is not None
    await asyncio.gather(documents.accept(BY.config(), "ada"), documents.refresh(truck), documents.refresh(truck))
    assert len(set(seen)) == len(seen)


async def test_one_that_is_half_way_to_its_expiry_is_signed_anew(
    documents: Documents, fleet: FleetStore, clock: Clock
) -> None:
    first = await refresh(documents, fleet)
    clock.pass_s(DESIRED_LIFETIME_S / 2)
    second = await refresh(documents, fleet)
    assert second.entries == first.entries
    assert (second.version > first.version, second.expires_s > first.expires_s) == (True, True)


async def test_a_crash_before_trucks_were_told_is_made_good_at_the_start_and_by_a_repeat(
    documents: Documents, fleet: FleetStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BY.config()
    with monkeypatch.context() as patched:
        patched.setattr(module.Documents, "_refresh_affected", lambda self, document: _crash())
        with pytest.raises(OSError, match="power cut"):
            await documents.accept(config, "ada")
    before = await refresh_is_due(fleet)
    assert before
    again = Documents(fleet, BY.gateway, now_ms=clock.now_ms)
    await again.load()
    work = asyncio.create_task(again.run())
    async with asyncio.timeout(60):
        while await refresh_is_due(fleet):
            await asyncio.sleep(0.01)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def _crash() -> None:
    raise OSError("power cut")


async def refresh_is_due(fleet: FleetStore) -> bool:
    record = await fleet.desired("ke-arrow")
    if record is None:
        return True
    return DocumentKind.CONFIG not in {entry.document for entry in parse_document(record.signed, Desired)[0].entries}


async def test_a_rollout_to_a_group_reaches_its_trucks_only(documents: Documents, fleet: FleetStore) -> None:
    await add_truck(fleet, "tz-arrow", "tanzania")
    manifest = await documents.accept(BY.manifest(FILES), "ada")
    await documents.accept(BY.rollout(manifest.digest, to=Addressee(group="tanzania")), "ada")
    assert DocumentKind.ROLLOUT in {entry.document for entry in (await desired(fleet, "tz-arrow")).entries}
    assert DocumentKind.ROLLOUT not in {entry.document for entry in (await refresh(documents, fleet)).entries}
