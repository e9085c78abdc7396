"""A gateway with all of its own keys stolen installs nothing: it signs everything that there is with them."""

from __future__ import annotations

import itertools

import pytest

from protocol import cose
from protocol.documents import Document, OperatorRole, PublisherRole, document_aad
from protocol.errors import PeerError
from protocol.numbers import DocumentKind, Outcome
from tests.attacks.rig import (
    GATEWAY,
    NOW,
    ROOTS,
    Gateway,
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


async def test_nothing_but_a_desired_state_ever_verifies_under_the_gateways_key(truck: Truck) -> None:
    """The trusted set itself, asked directly with each forgery as each kind."""
    for document in everything().values():
        for signed, kind in itertools.product(in_every_form(document), set(DocumentKind) - {DocumentKind.DESIRED}):
            with pytest.raises(PeerError):
                truck.trust.accept(signed, kind, NOW)
    assert truck.trust.root.version == 1
    assert truck.trust.delegation is None
