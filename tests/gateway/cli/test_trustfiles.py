"""Documents in files: signatures come together, and count only if they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.cli.trustfiles import (
    SignedFile,
    Standing,
    TrustFileError,
    TrustFolder,
    is_complete,
    merge,
    open_signed,
    roles_wanted,
    signers_of,
    with_signature,
)
from protocol import cose
from protocol.documents import (
    Addressee,
    Config,
    Delegation,
    Document,
    Manifest,
    ManifestFile,
    OperatorRole,
    PublisherRole,
    RoleKeys,
    Root,
    sign_document,
)
from protocol.numbers import SIGNATURES_MAX, DocumentKind

KEYS = [cose.SigningKey(bytes([number]) * 32) for number in range(20)]
ROLE = RoleKeys(2, tuple(key.public for key in KEYS[:3]))


def root(version: int = 1, role: RoleKeys = ROLE) -> Root:
    gateway = RoleKeys(1, (KEYS[9].public,))
    return Root(document=DocumentKind.ROOT, version=version, issued_s=1, expires_s=2, root=role, gateway=gateway)


def signed(document: Document, *keys: cose.SigningKey) -> SignedFile:
    return open_signed(Path("x.cose"), sign_document(document, list(keys)))


def test_a_second_sitting_adds_to_the_first() -> None:
    first = signed(root(), KEYS[0])
    both = with_signature(first, KEYS[1])
    assert signers_of(first, ROLE) == {KEYS[0].public}
    assert signers_of(both, ROLE) == {KEYS[0].public, KEYS[1].public}
    assert both.signed == sign_document(root(), [KEYS[1], KEYS[0]])


def test_the_same_signature_twice_counts_once() -> None:
    first = signed(root(), KEYS[0])
    assert with_signature(first, KEYS[0]).signed == first.signed
    assert merge(first, first).signed == first.signed


def test_signatures_of_strangers_do_not_count_and_false_ones_are_named() -> None:
    assert signers_of(signed(root(), KEYS[5]), ROLE) == frozenset()
    file = signed(root(), KEYS[0])
    [each] = file.parts.signatures
    false = cose.assemble(file.parts.payload, [replace(each, signature=bytes(64))])
    with pytest.raises(TrustFileError, match="false signature"):
        signers_of(open_signed(file.path, false), ROLE)


def test_two_documents_of_one_version_are_never_merged() -> None:
    other = signed(root(role=RoleKeys(1, ROLE.keys)), KEYS[1])
    with pytest.raises(TrustFileError, match="two different documents"):
        merge(signed(root(), KEYS[0]), other)


def test_a_document_has_a_bounded_number_of_signatures() -> None:
    full = signed(root(), *KEYS[:SIGNATURES_MAX])
    with pytest.raises(TrustFileError, match="already"):
        with_signature(full, KEYS[SIGNATURES_MAX])


def test_what_one_signer_made_takes_no_second() -> None:
    config = Config(
        document=DocumentKind.CONFIG, version=1, issued_s=1, expires_s=2, addressee=Addressee(("ke-arrow",))
    )
    with pytest.raises(TrustFileError, match="--save"):
        with_signature(signed(config, KEYS[0]), KEYS[1])


def test_a_new_root_needs_the_old_and_the_new_threshold() -> None:
    new = root(2, RoleKeys(2, (KEYS[3].public, KEYS[4].public)))
    names = [name for name, _ in roles_wanted(new, root(), None)]
    assert names == ["root 1", "root 2"]


def test_a_later_root_without_the_one_before_is_never_complete() -> None:
    file = signed(root(2), *KEYS[:3])
    roles = roles_wanted(file.document, None, None)
    found = [Standing(name, role, signers_of(file, role)) for name, role in roles]
    assert [each.missing for each in found] == [1, 0]
    assert not is_complete(file.document, found)


def test_content_and_configuration_need_one_of_the_roles_that_cover_them() -> None:
    operators = (OperatorRole("*", ROLE), OperatorRole("kenya", ROLE), OperatorRole("west", ROLE))
    publishers = (PublisherRole("", ROLE), PublisherRole("maths", ROLE), PublisherRole("history", ROLE))
    dates = {"version": 1, "issued_s": 1, "expires_s": 2}
    table = Delegation(document=DocumentKind.DELEGATION, operators=operators, publishers=publishers, **dates)  # type: ignore[arg-type]
    config = Config(document=DocumentKind.CONFIG, addressee=Addressee((), "kenya"), **dates)  # type: ignore[arg-type]
    file = ManifestFile("a", 1, bytes(32))
    manifest = Manifest(
        document=DocumentKind.MANIFEST, name="maths-2", label="1", content="static", files=(file,), **dates  # type: ignore[arg-type]
    )  # fmt: skip
    assert [name for name, _ in roles_wanted(config, None, table)] == ["operators of *", "operators of kenya"]
    assert [name for name, _ in roles_wanted(manifest, None, table)] == ["publishers of *", "publishers of maths*"]
    assert roles_wanted(config, None, None) == []
    assert not is_complete(config, [])


def test_the_folder_keeps_every_version_and_joins_copies(tmp_path: Path) -> None:
    folder = TrustFolder(tmp_path / "trust")
    folder.save(signed(root(), KEYS[0]))
    folder.save(signed(root(), KEYS[1]))
    folder.save(signed(root(2), KEYS[0]))
    assert [file.document.version for file in folder.roots()] == [1, 2]
    assert len(folder.roots()[0].parts.signatures) == 2
    before = folder.root_before(root(2))
    assert before is not None
    assert before.version == 1
    assert folder.root_before(root(1)) is None


def test_a_file_of_another_kind_under_a_documents_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root-1.cose").write_bytes(
        sign_document(Delegation(document=DocumentKind.DELEGATION, version=1, issued_s=1, expires_s=2), [KEYS[0]])
    )
    with pytest.raises(TrustFileError, match="is a delegation"):
        TrustFolder(tmp_path).roots()


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xd2\x84\x40\xa0\x40\x40", b"text"])
def test_files_that_are_no_documents_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "root-1.cose").write_bytes(data)
    with pytest.raises(TrustFileError, match=r"root-1\.cose is not a signed document"):
        TrustFolder(tmp_path).roots()
