"""Documents by digest, one of each version, and the ones that count for a truck."""

import hashlib
from collections.abc import Callable

import pytest

from protocol.numbers import DocumentKind
from store.fleet.errors import DocumentConflictError
from store.fleet.fleet import FleetStore
from store.fleet.records import BundleRecord, DocumentRecord, DocumentSummary


def document(version: int = 1, kind: DocumentKind = DocumentKind.CONFIG, **changes: object) -> DocumentRecord:
    trucks, group = changes.get("trucks", ()), changes.get("group")
    name = changes.pop("name", f"group:{group}" if group else ",".join(trucks))
    signed = f"{kind} {name} {version} {changes}".encode()
    values = {"received_ms": version, "put_by": "ada", "issued_s": 10, "expires_s": 20}
    return DocumentRecord(hashlib.sha256(signed).digest(), kind, version, name, signed, **(values | changes))


def bundle(manifest: DocumentRecord, label: str) -> BundleRecord:
    return BundleRecord("atlas", label, manifest.version, manifest.digest, "static", "Atlas", 3, 900, 5, "ada")


async def test_a_document_comes_back_as_it_was_put_and_once(fleet: FleetStore) -> None:
    put = document(trucks=("ke-arrow", "zm-patel"))
    assert await fleet.put_document(put)
    assert not await fleet.put_document(put)
    assert await fleet.document(put.digest) == put
    assert await fleet.document(b"x" * 32) is None
    (listed,) = await fleet.documents()
    assert listed == DocumentSummary(
        put.digest, put.kind, 1, put.name, None, None, put.trucks, 10, 20, len(put.signed), 1, "ada"
    )


async def test_a_version_is_given_once_in_a_stream(fleet: FleetStore) -> None:
    await fleet.put_document(document(4, group="kenya"))
    with pytest.raises(DocumentConflictError, match="version 4"):
        await fleet.put_document(document(4, group="kenya", expires_s=99))
    await fleet.put_document(document(4, group="zambia"))
    assert len(await fleet.documents()) == 2


async def test_documents_are_listed_newest_first_in_pages_by_kind_and_name(fleet: FleetStore) -> None:
    for version in (1, 2, 3):
        await fleet.put_document(document(version, group="kenya", received_ms=7))
    await fleet.put_document(document(1, DocumentKind.DELEGATION, name="", received_ms=8))
    assert [each.kind for each in await fleet.documents(limit=1)] == [DocumentKind.DELEGATION]
    seen, after = [], None
    while page := await fleet.documents(DocumentKind.CONFIG, "group:kenya", after=after, limit=2):
        seen += [each.version for each in page]
        after = (page[-1].received_ms, page[-1].digest)
    assert sorted(seen) == [1, 2, 3]
    assert await fleet.documents(name="group:zambia") == []


async def test_the_newest_of_a_stream_has_the_highest_version(fleet: FleetStore) -> None:
    for version in (2, 10, 3):
        await fleet.put_document(document(version, DocumentKind.ROOT, name=""))
    assert (await fleet.newest_document(DocumentKind.ROOT)).version == 10
    assert await fleet.newest_document(DocumentKind.DELEGATION) is None


async def test_a_config_by_name_goes_before_one_for_the_group(fleet: FleetStore) -> None:
    assert await fleet.newest_config("ke-arrow", "kenya") is None
    await fleet.put_document(document(9, group="kenya"))
    await fleet.put_document(document(99, group="zambia"))
    await fleet.put_document(document(50, trucks=("zm-patel",)))
    assert (await fleet.newest_config("ke-arrow", "kenya")).version == 9
    await fleet.put_document(document(1, trucks=("ke-arrow", "zm-patel")))
    await fleet.put_document(document(2, trucks=("ke-arrow", "zm-patel")))
    chosen = await fleet.newest_config("ke-arrow", "kenya")
    assert (chosen.version, chosen.trucks) == (2, ("ke-arrow", "zm-patel"))


async def test_of_each_bundle_the_rollout_that_counts_comes_first(fleet: FleetStore) -> None:
    def rollout(version: int, name: str, **to: object) -> DocumentRecord:
        return document(version, DocumentKind.ROLLOUT, bundle=name, name=f"{name}@{to}", **to)

    await fleet.put_document(rollout(5, "atlas", group="kenya"))
    await fleet.put_document(rollout(6, "atlas", group="kenya"))
    await fleet.put_document(rollout(1, "maths", group="kenya"))
    await fleet.put_document(rollout(2, "maths", trucks=("ke-arrow",)))
    await fleet.put_document(rollout(3, "zoo", trucks=("zm-patel",)))
    candidates = await fleet.rollout_candidates("ke-arrow", "kenya")
    found = {bundle: [each.document.version for each in several] for bundle, several in candidates.items()}
    assert found == {"atlas": [6, 5], "maths": [2, 1]}


async def test_a_bundles_label_names_one_manifest(fleet: FleetStore) -> None:
    first = document(1, DocumentKind.MANIFEST, name="atlas", bundle="atlas")
    second = document(2, DocumentKind.MANIFEST, name="atlas", bundle="atlas")
    await fleet.put_document(first, bundle(first, "2026.1"))
    with pytest.raises(DocumentConflictError, match="choose a new label"):
        await fleet.put_document(second, bundle(second, "2026.1"))
    assert await fleet.document(second.digest) is None
    await fleet.put_document(second, bundle(second, "2026.2"))
    assert await fleet.bundle("atlas", "2026.1") == bundle(first, "2026.1")
    assert await fleet.bundle_of_manifest(second.digest) == bundle(second, "2026.2")
    assert await fleet.bundle("atlas", "2027.1") is None
    assert [each.label for each in await fleet.bundles(limit=1)] == ["2026.1"]
    assert [each.label for each in await fleet.bundles(after=("atlas", "2026.1"))] == ["2026.2"]


async def test_the_desired_state_is_the_last_one_set(fleet: FleetStore, enrol: Callable) -> None:
    await enrol()
    assert await fleet.desired("ke-arrow") is None
    for n in (1, 2):
        await fleet.set_desired("ke-arrow", bytes([n]) * 32, b"signed", n)
    found = await fleet.desired("ke-arrow")
    assert (found.digest, found.signed, found.set_ms) == (b"\2" * 32, b"signed", 2)
    assert (await fleet.truck("ke-arrow")).desired_digest == b"\2" * 32
