"""What a truck believes is what its database says; what has expired is told, and a version outlives its document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.believed import exchange_keys, expired, load_trust
from edge.clock import Clock, save_new_floor
from edge.identity import Enrolment
from protocol import cose
from protocol.documents import ExchangeKey, RoleKeys, Root
from protocol.errors import LocalError, RollbackError
from protocol.numbers import DocumentKind
from store.database import open_database
from store.documents import Documents
from store.schema import STATE
from store.settings import Settings
from tests.edge.rig import Rig, arrived, until
from tests.gateway.fleets import EXPIRES_S, NOW_S, Signers

BY = Signers()
CLOCK = Clock(boot=1, floor_s=NOW_S)


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[Documents]:
    state = open_database(tmp_path / "state.db", schema=STATE, share_bytes=16 << 20)
    made = Documents(state)
    for kind, signed in ((DocumentKind.ROOT, BY.root_document()), (DocumentKind.DELEGATION, BY.delegation())):
        made.put_trusted(kind, "", 1, cose.digest(signed), signed)
    yield made
    state.close()


def enrolment() -> Enrolment:
    return Enrolment("ke-arrow", "kenya", ("127.0.0.1:1",), b"k" * 32, cose.digest(BY.root_document()), 3)


def test_a_version_that_was_trusted_counts_also_when_its_document_is_gone(documents: Documents) -> None:
    signed = BY.config(5)
    documents.put_trusted(DocumentKind.CONFIG, "ke-arrow", 5, cose.digest(signed), signed)
    documents.remove(DocumentKind.CONFIG, "ke-arrow")
    trust = load_trust(documents, enrolment(), CLOCK)
    with pytest.raises(RollbackError):
        trust.accept_config(BY.config(4), NOW_S)


def test_without_a_root_the_next_step_is_told(documents: Documents) -> None:
    documents.forget_versions([DocumentKind.ROOT])
    with pytest.raises(LocalError, match="digitruck-edge join"):
        load_trust(documents, enrolment(), CLOCK)


def test_the_enrolments_key_counts_until_a_root_names_others(documents: Documents) -> None:
    trust = load_trust(documents, enrolment(), CLOCK)
    assert exchange_keys(trust, enrolment()) == (ExchangeKey(3, b"k" * 32),)
    named = (ExchangeKey(4, b"n" * 32),)
    keys = RoleKeys(1, (BY.root.public,)), RoleKeys(1, (BY.gateway.public,))
    document = Root(**BY.dates(DocumentKind.ROOT, 2), root=keys[0], gateway=keys[1], exchange=named)
    trust.update_root(BY.sign(document, BY.root))
    assert exchange_keys(trust, enrolment()) == named


def test_all_roots_are_kept_for_a_gateway_that_lost_them(documents: Documents) -> None:
    trust = load_trust(documents, enrolment(), CLOCK)
    for version in (2, 3, 4):
        keys = RoleKeys(1, (BY.root.public,)), RoleKeys(1, (BY.gateway.public,))
        signed = BY.sign(Root(**BY.dates(DocumentKind.ROOT, version), root=keys[0], gateway=keys[1]), BY.root)
        trust.update_root(signed)
        documents.put_trusted(DocumentKind.ROOT, "", version, cose.digest(signed), signed)
    assert [each.version for each in documents.newer(DocumentKind.ROOT, 1)] == [2, 3, 4]
    assert documents.newer(DocumentKind.DELEGATION, 1) == ()


def test_what_has_expired_is_named(documents: Documents) -> None:
    trust = load_trust(documents, enrolment(), CLOCK)
    assert expired(documents, trust, EXPIRES_S - 1) == ()
    assert expired(documents, trust, EXPIRES_S) == ("root", "delegation")


async def test_a_truck_whose_trust_has_expired_says_so_and_goes_on(rig: Rig) -> None:
    data = await rig.join()
    edge = await rig.start(data)
    await until(lambda: edge.trust.delegation is not None)
    await rig.stop(edge)
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    save_new_floor(Settings(state), EXPIRES_S + 1)
    state.close()
    edge = await rig.start(data)
    await arrived(rig, "trust.expired")
    assert {"root", "delegation"} <= set(edge.situation.status().expired)
