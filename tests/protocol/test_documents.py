"""Documents: what a file name may be, whom a document is for, and what is refused before anybody trusts it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import cbor, cose
from protocol.documents import (
    Addressee,
    Config,
    Desired,
    Document,
    Manifest,
    ManifestFile,
    Rollout,
    check_paths,
    document_aad,
    parse_document,
    read_document,
    sign_document,
)
from protocol.errors import MalformedError
from protocol.numbers import BUNDLE_BYTES_MAX, DocumentKind
from tests.protocol.instances import smallest, wire_classes

KEYS = [cose.SigningKey(bytes([n]) * 32) for n in (1, 2)]
KINDS = [pytest.param(each, id=each.__name__) for each in wire_classes() if issubclass(each, Document)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_read_by_the_kind_that_it_names(kind: type[Document]) -> None:
    document = smallest(kind)
    assert read_document(document.encode()) == document
    signed = sign_document(document, KEYS)
    again, parts = parse_document(signed, kind)
    assert again == document
    assert parts.verify({key.key_id: key.public for key in KEYS}, document_aad(kind.kind)) == {k.public for k in KEYS}


def test_every_kind_has_its_class_and_its_own_aad() -> None:
    assert {each.values[0].kind for each in KINDS} == set(DocumentKind)
    assert len({document_aad(kind) for kind in DocumentKind}) == len(DocumentKind)


@pytest.mark.parametrize(
    "payload", [b"", b"\x80", cbor.encode({}), cbor.encode({1: 7}), cbor.encode({1: "root"}), b"\xa1\x01"]
)
def test_what_names_no_kind_is_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        read_document(payload)
    with pytest.raises(MalformedError):
        parse_document(cose.sign1(KEYS[0], payload, document_aad(DocumentKind.CONFIG)), Config)


@given(st.binary(max_size=80))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_document(data, Document)


@pytest.mark.parametrize(("trucks", "group"), [((), None), (("a",), "kenya")])
def test_a_document_is_for_trucks_or_for_one_group(trucks: tuple[str, ...], group: str | None) -> None:
    with pytest.raises(ValueError, match="one group"):
        Addressee(trucks, group)
    with pytest.raises(MalformedError, match="one group"):
        Addressee.decode(cbor.encode([list(trucks), group]))


def test_whom_an_addressee_includes() -> None:
    assert Addressee(("a", "b")).includes("b", "kenya")
    assert not Addressee(("a", "b")).includes("c", "kenya")
    assert Addressee((), "kenya").includes("c", "kenya")
    assert not Addressee((), "kenya").includes("kenya", "zambia")


GOOD = [
    "a",
    "index.html",
    "a/b/c.txt",
    "a b/c d.html",
    "é.html",
    ".hidden",
    "a..b",
    "con-sole.txt",
    "школа/урок.html",
    "1" * 255,
]
BAD = {
    "": "plain relative",
    "/a": "plain relative",
    "a/": "plain relative",
    "a//b": "plain relative",
    ".": "plain relative",
    "..": "plain relative",
    "../etc/passwd": "plain relative",
    "a/../b": "plain relative",
    "a/./b": "plain relative",
    " a": "plain relative",
    "a ": "plain relative",
    "a.": "plain relative",
    "a/b./c": "plain relative",
    "a\\b": "file system",
    "C:/x": "file system",
    "a*": "file system",
    "what?": "file system",
    'a"b': "file system",
    "a<b": "file system",
    "a|b": "file system",
    "a\x00b": "file system",
    "a\nb": "file system",
    "a\x7fb": "file system",
    "a\u202eb": "file system",
    "a\u200bb": "file system",
    "con": "file system",
    "Aux.txt": "file system",
    "a/LPT1.log": "file system",
    "1" * 256: "file system",
    "é" * 128: "file system",
    "e\u0301.html": "normal form C",
}


@pytest.mark.parametrize("path", GOOD)
def test_a_path_that_every_disk_can_hold(path: str) -> None:
    check_paths([path])


@pytest.mark.parametrize(("path", "says"), list(BAD.items()))
def test_a_path_that_some_disk_cannot_hold_or_that_climbs(path: str, says: str) -> None:
    if not path:
        with pytest.raises(ValueError, match="ascending"):
            check_paths([path])
        return
    with pytest.raises(ValueError, match=says):
        check_paths([path])


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["b", "a"], "ascending"),
        (["a", "a"], "ascending"),
        (["A.html", "a.html"], "only in case"),
        (["STRASSE", "straße"], "only in case"),
        (["Dir/a", "dir/A"], "only in case"),
        (["a", "a/b"], "both a file and a folder"),
        (["a", "a.b", "a/b/c"], "both a file and a folder"),
        (["A", "a/b"], "both a file and a folder"),
    ],
)
def test_paths_that_would_merge_or_clash(paths: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_paths(paths)


def manifest_of(files: list[Any]) -> bytes:
    head = {1: 4, 2: 1, 3: 0, 4: 1, 10: "math-1", 11: "1.0", 12: "static"}
    return cbor.encode(head | {13: files})


@pytest.mark.parametrize(
    "files",
    [
        [],
        [["../up", 1, bytes(32)]],
        [["b", 1, bytes(32)], ["a", 1, bytes(32)]],
        [["a", -1, bytes(32)]],
        [["a", BUNDLE_BYTES_MAX + 1, bytes(32)]],
        [["a", BUNDLE_BYTES_MAX, bytes(32)], ["b", 1, bytes(32)]],
        [["a", 1, bytes(31)]],
        [["a" * 513, 1, bytes(32)]],
        [["a"]],
    ],
)
def test_a_manifest_that_no_truck_should_see(files: list[Any]) -> None:
    with pytest.raises(MalformedError):
        Manifest.decode(manifest_of(files))


def test_a_manifest_of_the_largest_size_is_taken() -> None:
    files = Manifest.decode(manifest_of([["a", BUNDLE_BYTES_MAX - 1, bytes(32)], ["b", 1, bytes(32)]])).files
    assert files[1] == ManifestFile("b", 1, bytes(32))


def test_many_files_are_read_within_the_limits_of_a_document() -> None:
    files = [[f"{n:06}.html", n, bytes(32)] for n in range(5_000)]
    assert len(read_document(manifest_of(files)).files) == 5_000  # type: ignore[attr-defined]


def test_a_rollout_without_a_manifest_takes_the_bundle_away() -> None:
    document = Rollout(DocumentKind.ROLLOUT, 1, 0, 1, Addressee((), "kenya"), "math-1")
    assert Rollout.decode(document.encode()).manifest is None


def test_unknown_labels_of_a_later_version_are_skipped_but_stay_signed() -> None:
    document = smallest(Desired)
    payload = cbor.encode(document.fields() | {90: "later"})
    signed = cose.sign1(KEYS[0], payload, document_aad(DocumentKind.DESIRED))
    again, parts = parse_document(signed, Desired)
    assert (again, parts.payload) == (document, payload)
