"""Documents on the gateway: what is kept, what is refused, and when a truck's desired state changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import documents as module
from gateway.desired import DESIRED_LIFETIME_S
from gateway.documents import Documents
from protocol import cose
from protocol.documents import (
    Addressee,
    Delegation,
    Desired,
    OperatorRole,
    PublisherRole,
    RoleKeys,
    Root,
    parse_document,
)
from protocol.errors import PeerError, RollbackError, UntrustedError
from protocol.numbers import VERSION_FREE_MAX, VERSION_STEP_MAX, DocumentKind
from protocol.trust import TrustedSet
from store.fleet.fleet import FleetStore
from store.fleet.records import Change
from tests.gateway.coapside import Clock
from tests.gateway.fleets import NOW_S, Signers, add_truck

BY = Signers()
FILES = {"a.html": b"a"}


@pytest.fixture
async def documents(fleet: FleetStore, clock: Clock) -> Documents:
    """Documents with a root and a delegation, and one truck."""
    made = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
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
    documents = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
    await documents.load()
    with pytest.raises(UntrustedError, match="trust push"):
        await documents.accept(BY.config(), "ada")
    record = await documents.accept(BY.root_document(), "ada")
    assert documents.root_digest == record.digest


async def test_two_first_roots_at_once_are_not_both_taken(fleet: FleetStore, clock: Clock) -> None:
    documents = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
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
    assert set(kinds) == set(DocumentKind) - {DocumentKind.DESIRED, DocumentKind.STICK}
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
    again = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
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


async def test_one_that_no_truck_reports_is_signed_anew_with_a_version_of_today(
    documents: Documents, fleet: FleetStore, clock: Clock
) -> None:
    # A restored gateway whose clock was a month slow signed one below what the truck had trusted before.
    before = await refresh(documents, fleet)
    clock.pass_s(86_399)
    assert (await refresh(documents, fleet)).version == before.version
    clock.pass_s(30 * 86_400)
    after = await refresh(documents, fleet)
    assert after.version == clock.now_ms() // 1000
    assert after.entries == before.entries


async def test_a_crash_before_trucks_were_told_is_made_good_at_the_start_and_by_a_repeat(
    documents: Documents, fleet: FleetStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BY.config()
    with monkeypatch.context() as patched:
        patched.setattr(module.Documents, "_refresh_affected", lambda self, document, digest: _crash())
        with pytest.raises(OSError, match="power cut"):
            await documents.accept(config, "ada")
    before = await refresh_is_due(fleet)
    assert before
    again = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
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


# ---- keys that change, trucks that know more ----

SECOND = cose.SigningKey(b"2" * 32)
OTHER_OPERATOR = cose.SigningKey(b"z" * 32)


def table(version: int, *operators: OperatorRole, revoked: tuple[str, ...] = (), by: Signers = BY) -> bytes:
    document = Delegation(
        **by.dates(DocumentKind.DELEGATION, version),
        publishers=(PublisherRole("", RoleKeys(1, (by.publisher.public,))),),
        operators=operators,
        revoked=revoked,
    )
    return by.sign(document, by.root)


def next_root(version: int, *gateway: cose.SigningKey, **changes: Any) -> bytes:
    keys = tuple(each.public for each in gateway)
    document = Root(
        **BY.dates(DocumentKind.ROOT, version),
        root=RoleKeys(1, (BY.root.public,)),
        gateway=RoleKeys(1, keys),
        **changes,
    )
    return BY.sign(document, BY.root)


async def test_an_operator_of_one_group_cannot_use_up_the_versions_of_another(
    documents: Documents, fleet: FleetStore
) -> None:
    await documents.accept(table(2, OperatorRole("zambia", RoleKeys(1, (OTHER_OPERATOR.public,)))), "ada")
    by = Signers(operator=OTHER_OPERATOR)
    with pytest.raises(UntrustedError, match="kenya"):
        await documents.accept(by.config(1 << 20), "eve")
    with pytest.raises(UntrustedError):
        await documents.accept(by.config(1 << 20, trucks=("not-here-yet",)), "eve")
    assert await fleet.documents(kind=DocumentKind.CONFIG) == []


async def test_a_stolen_key_cannot_use_up_the_versions(documents: Documents) -> None:
    with pytest.raises(UntrustedError, match="too far above"):
        await documents.accept(BY.config(1 << 53), "eve")
    await documents.accept(BY.config(VERSION_FREE_MAX), "eve")
    with pytest.raises(UntrustedError, match="too far above"):
        await documents.accept(BY.config(VERSION_FREE_MAX + VERSION_STEP_MAX + 1), "eve")
    await documents.accept(BY.config(VERSION_FREE_MAX + 1), "ada")


async def test_what_only_a_revoked_key_signed_is_not_named_any_more(documents: Documents, fleet: FleetStore) -> None:
    await documents.accept(BY.config(), "ada")
    await documents.accept(table(2, OperatorRole("*", RoleKeys(1, (SECOND.public,)))), "ada")
    kinds = {entry.document for entry in (await desired(fleet)).entries}
    assert kinds == {DocumentKind.ROOT, DocumentKind.DELEGATION}
    assert len(documents.unsigned) == 1
    await documents.accept(Signers(operator=SECOND).config(2), "ada")
    assert DocumentKind.CONFIG in {entry.document for entry in (await desired(fleet)).entries}
    with pytest.raises(PeerError):
        await documents.accept(BY.config(3), "eve")


async def test_desired_states_are_signed_by_the_key_that_the_root_makes_the_one(
    fleet: FleetStore, clock: Clock
) -> None:
    keys = {BY.gateway.public: BY.gateway, SECOND.public: SECOND}
    documents = Documents(fleet, lambda root: keys[root.gateway.keys[-1]] if root else BY.gateway, now_ms=clock.now_ms)
    await documents.load()
    await documents.accept(BY.root_document(), "ada")
    await documents.accept(BY.delegation(), "ada")
    await add_truck(fleet)
    await refresh(documents, fleet)
    await documents.accept(next_root(2, SECOND), "ada")
    record = await fleet.desired("ke-arrow")
    assert record is not None
    trust = TrustedSet(next_root(2, SECOND), truck="ke-arrow")
    assert trust.accept_desired(record.signed, NOW_S).truck == "ke-arrow"


async def test_a_truck_that_the_role_table_revokes_is_cut_off_and_stays_out(
    documents: Documents, fleet: FleetStore
) -> None:
    everyone = OperatorRole("*", RoleKeys(1, (BY.operator.public,)))
    await documents.accept(table(2, everyone, revoked=("ke-arrow",)), "ada")
    record = await fleet.truck("ke-arrow")
    assert record is not None
    assert (record.revoked_ms is not None, documents.is_revoked("ke-arrow")) == (True, True)
    await documents.accept(table(3, everyone), "ada")
    assert not documents.is_revoked("ke-arrow")


async def test_a_truck_tells_the_role_table_that_a_restored_gateway_lost(
    documents: Documents, fleet: FleetStore
) -> None:
    everyone = OperatorRole("*", RoleKeys(1, (BY.operator.public,)))
    await documents.accept_from_truck(table(2, everyone, revoked=("ke-thief",)), "ke-arrow")
    assert documents.is_revoked("ke-thief")
    assert documents.warnings() == []
    (record,) = [each for each in await fleet.documents(kind=DocumentKind.DELEGATION) if each.version == 2]
    assert record.put_by == "truck/ke-arrow"


async def test_what_a_truck_knows_and_cannot_show_is_a_warning_until_it_is_here(documents: Documents) -> None:
    with pytest.raises(RollbackError):
        await documents.accept_from_truck(next_root(3, BY.gateway), "ke-arrow")
    (warning,) = documents.warnings()
    assert "ke-arrow knows root 3" in warning
    assert "trust push" in warning
    await documents.accept(next_root(2, BY.gateway), "ada")
    await documents.accept(next_root(3, BY.gateway), "ada")
    assert documents.warnings() == []


@pytest.mark.parametrize("signed", [BY.config(7), BY.manifest(FILES), b"junk"])
async def test_a_truck_tells_nothing_but_roots_and_role_tables(documents: Documents, signed: bytes) -> None:
    with pytest.raises(PeerError):
        await documents.accept_from_truck(signed, "ke-arrow")
    assert documents.warnings() == []


async def test_a_truck_cannot_make_up_a_role_table(documents: Documents) -> None:
    forged = Signers(root=cose.SigningKey(b"e" * 32)).delegation(9)
    with pytest.raises(PeerError):
        await documents.accept_from_truck(forged, "ke-arrow")
    assert not documents.is_revoked("ke-arrow")


async def test_another_process_hears_of_a_new_root(documents: Documents, fleet: FleetStore, clock: Clock) -> None:
    other = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
    await other.load()
    signed = next_root(2, BY.gateway)
    await documents.accept(signed, "ada")
    await other.changed(Change(1, "document", None, "", 0))
    assert other.root_digest == cose.digest(signed)


async def test_what_expires_soon_is_a_warning(documents: Documents, clock: Clock) -> None:
    assert documents.warnings() == []
    clock.pass_s(320 * 86_400)
    assert [each.partition(" expires")[0] for each in documents.warnings()] == ["root 1", "delegation 1"]


async def restored(fleet: FleetStore, clock: Clock, *, void_tokens: bool = True) -> Documents:
    """A gateway that starts on a backup, of what it replaced nothing being known."""
    await fleet.settle_restored({"made_ms": 5}, clock.now_ms(), void_tokens=void_tokens)
    again = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
    await again.load()
    return again


async def test_after_a_restore_nothing_new_is_taken_before_a_person_pushed_trust(
    documents: Documents, fleet: FleetStore, clock: Clock
) -> None:
    await fleet.put_token(b"t" * 32, "asha", "admin", 1)
    again = await restored(fleet, clock)
    (warning,) = again.warnings()
    assert "trust push" in warning
    token = await fleet.token(b"t" * 32)
    assert token is not None
    assert token.revoked_ms is not None
    with pytest.raises(UntrustedError, match="trust push"):
        await again.accept(BY.config(), "ada")
    with pytest.raises(UntrustedError, match="trust push"):
        again.check_confirmed()
    await again.accept_from_truck(BY.delegation(2), "ke-arrow")
    with pytest.raises(UntrustedError):  # a truck may tell what it knows, but not that this is all
        again.check_confirmed()
    await again.accept(BY.delegation(2), "ada")  # the same bytes: it is a person's word that counts
    again.check_confirmed()
    await again.accept(BY.config(), "ada")
    assert again.warnings() == []
    later = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
    await later.load()
    later.check_confirmed()


async def test_a_restore_that_carried_revocations_over_needs_no_word(
    documents: Documents, fleet: FleetStore, clock: Clock
) -> None:
    again = await restored(fleet, clock, void_tokens=False)
    again.check_confirmed()
    await again.accept(BY.config(), "ada")
