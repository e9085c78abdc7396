"""A gateway with all of its own keys stolen installs nothing: it signs everything that there is with them."""

from __future__ import annotations

import itertools

import pytest

from protocol import cose
from protocol.documents import Document, OperatorRole, PublisherRole, document_aad
from protocol.errors import PeerError
from protocol.numbers import DocumentKind, Outcome
from tests.attacks.rig import (
    DAY,
    GATEWAY,
    NEW_GATEWAY,
    NOW,
    ROOTS,
    Gateway,
    Good,
    Truck,
    config,
    delegation,
    key,
    manifest,
    role,
    rollout,
    root,
    sign,
)

FILES = {"index.html": b"<script>not a lesson</script>"}


def everything() -> dict[DocumentKind, Document]:
    """Return one of each kind of document, all in the thief's favour."""
    signed_manifest = sign(manifest(FILES), GATEWAY)
    return {
        DocumentKind.ROOT: root(2, root=role(1, GATEWAY), gateway=role(1, GATEWAY)),
        DocumentKind.DELEGATION: delegation(
            publishers=(PublisherRole("", role(1, GATEWAY)),), operators=(OperatorRole("*", role(1, GATEWAY)),)
        ),
        DocumentKind.CONFIG: config(),
        DocumentKind.MANIFEST: manifest(FILES),
        DocumentKind.ROLLOUT: rollout(signed_manifest),
    }


def in_every_form(document: Document) -> list[bytes]:
    """Return a document signed with the gateway's key in every way that could be taken for another's signature."""
    thief, payload = key(GATEWAY), document.encode()
    forms = [sign(document, GATEWAY)]
    for kind, named in itertools.product(DocumentKind, (GATEWAY, *ROOTS[:1], "operator", "publisher")):
        aad = document_aad(kind)
        many = [cose.Countersigned(key(named).key_id, thief.sign(cose._sign_structure(payload, aad)))]
        forms.append(cose.assemble(payload, many))
    forms.append(sign(document, GATEWAY, GATEWAY))
    forms.append(cose.sign1(thief, payload, document_aad(DocumentKind.DESIRED)))
    return forms


@pytest.mark.parametrize("pinned_only", [True, False])
async def test_a_gateway_with_all_its_keys_stolen_installs_nothing(
    truck: Truck, gateway: Gateway, pinned_only: bool
) -> None:
    """On a truck that has just joined, and on one whose people have signed a role table already."""
    if not pinned_only:
        gateway.want(sign(delegation(), *ROOTS[:2]))
        assert await truck.sync() is None
    before = truck.versions()
    gateway.blobs = {cose.digest(data): data for data in FILES.values()}
    forged = [each for document in everything().values() for each in in_every_form(document)]
    for signed in forged:
        gateway.hold(signed)
        if gateway.entry(signed).document == DocumentKind.MANIFEST:
            gateway.packs[cose.digest(signed)] = gateway.pack(signed, frozenset())
    gateway.state(*(gateway.entry(each) for each in forged))
    assert await truck.sync() is None  # the desired state itself is the gateway's to sign
    await truck.work(lambda: truck.active() is not None, within_s=0.2)
    assert truck.active() is None
    assert truck.config_version() is None
    assert (truck.wanted.rollouts, truck.wanted.manifests) == ((), {})
    assert truck.files() in ([], ["content"])
    after = truck.versions()
    assert {name: v for name, v in after.items() if name[0] is not DocumentKind.DESIRED} == {
        name: v for name, v in before.items() if name[0] is not DocumentKind.DESIRED
    }
    kinds = {each.document for each in truck.receipts if each.outcome is Outcome.REJECTED}
    assert kinds == set(everything())
    again = await truck.restarted()
    assert again.trust.root.version == 1
    assert (await again.downlink.wanted()).rollouts == ()
    await again.close()
    truck.state, truck.writer = again.state, again.writer


@pytest.mark.parametrize("ahead_s", [10 * 365 * DAY, (1 << 62) - NOW])
async def test_a_desired_state_of_the_future_brings_nothing_and_leaves_a_way_back(
    truck: Truck, gateway: Gateway, served: Good, ahead_s: int
) -> None:
    """Issued and valid far ahead, of the highest version: it names what it will, and a new root ends it."""
    forged = [each for document in everything().values() for each in in_every_form(document)]
    gateway.hold(*forged)
    entries = [gateway.entry(each) for each in forged]
    gateway.state(*entries, version=1 << 53, issued_s=NOW + ahead_s, expires_s=NOW + ahead_s + DAY)
    assert await truck.sync() is None
    await truck.work(lambda: truck.active() != "v1", within_s=0.1)
    assert (truck.active(), truck.config_version(), truck.trust.root.version) == ("v1", 1, 1)
    assert truck.clock.at_least_s() < NOW + DAY  # what a desired state says of time moves no clock
    honest = Gateway(signer=NEW_GATEWAY)
    good = Good.make(2)
    honest.publish(good.files, good.manifest)
    honest.want(sign(root(2, gateway=role(1, NEW_GATEWAY)), *ROOTS[:2]), *good.all)
    truck.link.gateway = honest
    assert await truck.sync() is None
    assert await truck.work(lambda: truck.active() == "v2")


LESSON = b"a true lesson " * 300


@pytest.mark.parametrize(
    "payload",
    [FILES["index.html"].ljust(len(LESSON)), LESSON + b"more", LESSON[:-1], b"", LESSON[:-1] + b"!"],
    ids=["other bytes", "longer", "shorter", "nothing", "one byte"],
)
async def test_a_pack_of_the_thiefs_own_becomes_no_file(
    truck: Truck, gateway: Gateway, served: Good, payload: bytes
) -> None:
    """5.7.1: a true manifest, and in its pack whatever the thief likes."""
    good = Good.make(2, files={"index.html": LESSON})
    gateway.blobs |= {cose.digest(LESSON): payload}
    gateway.packs[cose.digest(good.manifest)] = gateway.pack(good.manifest, frozenset())
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert not await truck.install() or truck.active() == "v1"
    assert (truck.active(), bool(truck.rejected(DocumentKind.MANIFEST))) == ("v1", True)
    assert not [each for each in truck.files() if "building" in each]


async def test_nothing_but_a_desired_state_ever_verifies_under_the_gateways_key(truck: Truck) -> None:
    """The trusted set itself, asked directly with each forgery as each kind."""
    for document in everything().values():
        for signed, kind in itertools.product(in_every_form(document), set(DocumentKind) - {DocumentKind.DESIRED}):
            with pytest.raises(PeerError):
                truck.trust.accept(signed, kind, NOW)
    assert truck.trust.root.version == 1
    assert truck.trust.delegation is None
