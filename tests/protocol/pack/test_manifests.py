"""A manifest told as what changed gives the signed bytes again, and a hostile one is refused."""

import hashlib

import pytest

from gateway.packcodecs import pack_stream
from protocol import cose
from protocol.documents import Manifest, ManifestFile, sign_document
from protocol.errors import MalformedError, PeerError
from protocol.numbers import DocumentKind
from protocol.pack.manifests import decode_delta, encode_delta

KEYS = [cose.SigningKey(bytes([n]) * 32) for n in (1, 2)]


def file(path: str, data: bytes) -> ManifestFile:
    return ManifestFile(path, len(data), hashlib.sha256(data).digest())


def manifest(files: dict[str, bytes], keys=KEYS[:1]) -> tuple[bytes, tuple[ManifestFile, ...]]:
    listed = tuple(file(path, files[path]) for path in sorted(files))
    document = Manifest(
        document=DocumentKind.MANIFEST, version=2, issued_s=1, expires_s=2, name="maths", label="2", content="static",
        files=listed, title="Maths",
    )  # fmt: skip
    return sign_document(document, list(keys)), listed


OLD = {"a.html": b"one", "b.html": b"two", "c.html": b"three", "gone.html": b"four", "empty": b""}
NEW = {"a.html": b"one", "b.html": b"two, longer", "c.html": b"x", "d/new.html": b"five", "d/same.html": b"five",
       "empty": b"", "moved.html": b"four", "nothing": b""}  # fmt: skip


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS])
@pytest.mark.parametrize("before", [OLD, {}])
def test_the_signed_bytes_come_out_again(before: dict[str, bytes], keys) -> None:
    signed, _ = manifest(NEW, keys)
    old = manifest(before)[1] if before else ()
    held = [each.digest for each in old if each.size]
    expected = decode_delta(pack_stream(encode_delta(signed, old, held)), old, held)
    wanted = {each.path for each in expected.from_pack()}
    assert wanted == (
        {"b.html", "c.html", "d/new.html"} if before else {"a.html", "b.html", "c.html", "d/new.html", "moved.html"}
    )
    made = {path: hashlib.sha256(NEW[path]).digest() for path in wanted}
    assert expected.complete(made) == signed


def test_no_digest_is_sent() -> None:
    signed, files = manifest({f"page{n}.html": b"%d" % n for n in range(200)})
    delta = encode_delta(signed, (), ())
    assert not any(each.digest in delta for each in files)
    assert len(pack_stream(delta)) < len(signed) / 10


def test_a_wrong_file_gives_other_bytes_than_the_signed_ones() -> None:
    signed, _ = manifest(NEW)
    expected = decode_delta(pack_stream(encode_delta(signed, (), ())), (), ())
    made = {each.path: bytes(32) for each in expected.from_pack()}
    assert expected.complete(made) != signed
    with pytest.raises(MalformedError, match="not made"):
        expected.complete({})


def test_a_delta_against_another_manifest_is_refused() -> None:
    signed, _ = manifest(NEW)
    _, old = manifest(OLD)
    packed = pack_stream(encode_delta(signed, old, ()))
    with pytest.raises(MalformedError):
        decode_delta(packed, old[1:], ())


def test_paths_that_climb_are_refused_before_anything_is_made() -> None:
    signed, _ = manifest({"aa/bb": b"1"})
    delta = encode_delta(signed, (), ()).replace(b"aa/bb", b"../bb")
    with pytest.raises(MalformedError, match="plain relative path"):
        decode_delta(pack_stream(delta), (), ())


def test_broken_deltas_are_refused_or_lead_elsewhere(fuzz) -> None:
    signed, _ = manifest(NEW)
    _, old = manifest(OLD)
    held = [each.digest for each in old if each.size]
    delta = encode_delta(signed, old, held)
    refused = 0
    for broken in fuzz(delta, 200):
        try:
            expected = decode_delta(bytes([0]) + _twice(len(broken)) + broken, old, held)
            made = {each.path: bytes(32) for each in expected.from_pack()}
            assert expected.complete(made) != signed
        except PeerError:
            refused += 1
    assert refused > 50


def _twice(size: int) -> bytes:
    from protocol.pack.cursor import varint

    return varint(size) * 2
