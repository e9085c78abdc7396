"""Blobs: whole and verified or not there, uploads that resume, names that cannot escape, rot that is found."""

import hashlib
import os
from pathlib import Path

import pytest

from protocol.errors import MalformedError
from store.blobs import BlobStore, digest_from_hex
from store.errors import DigestMismatchError, QuotaExceededError, StoreError


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def test_a_blob_is_there_whole_under_its_digest(blobs) -> None:
    data = os.urandom(10_000)
    assert not blobs.has(sha(data))
    path = blobs.write(sha(data), [data[:3_000], data[3_000:]])
    assert path.read_bytes() == data
    assert (blobs.has(sha(data)), blobs.size(sha(data))) == (True, 10_000)
    assert blobs.read(sha(data), 9_990, 100) == data[9_990:]
    assert list(blobs.digests()) == [sha(data)]
    with blobs.open(sha(data)) as stream:
        assert stream.read(5) == data[:5]
    assert blobs.write(sha(data), iter(())) == path


def test_the_empty_blob_is_a_blob(blobs) -> None:
    assert blobs.write(sha(b""), []).read_bytes() == b""


def test_wrong_bytes_never_get_the_name(blobs) -> None:
    with pytest.raises(DigestMismatchError):
        blobs.write(sha(b"right"), [b"wrong"])
    assert not blobs.has(sha(b"right"))
    assert blobs.partial_size(sha(b"right")) == 0


def test_an_upload_resumes_at_its_length_after_a_restart(blobs) -> None:
    data = os.urandom(5_000)
    assert blobs.append(sha(data), 0, data[:2_000]) == 2_000
    again = BlobStore(blobs.root)
    assert again.partial_size(sha(data)) == 2_000
    for wrong in (0, 1_999, 2_001):
        with pytest.raises(StoreError, match="2000"):
            again.append(sha(data), wrong, b"x")
    again.append(sha(data), 2_000, data[2_000:])
    assert not again.has(sha(data))
    assert again.finish(sha(data)).read_bytes() == data
    assert again.partial_size(sha(data)) == 0


def test_what_a_crash_left_unsynced_shows_in_the_hash_and_starts_over(blobs) -> None:
    data = os.urandom(3_000)
    blobs.append(sha(data), 0, data[:1_000] + bytes(1_000))
    blobs.append(sha(data), 2_000, data[2_000:])
    with pytest.raises(DigestMismatchError):
        blobs.finish(sha(data))
    assert blobs.partial_size(sha(data)) == 0


@pytest.mark.parametrize(
    "name", ["", "../" * 20 + "etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "/", "0" * 64 + "\n"]
)
def test_a_name_that_is_not_a_digest_is_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        digest_from_hex(name)
    assert digest_from_hex("0a" * 32) == b"\x0a" * 32


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(33), "0" * 32])
def test_a_digest_that_is_none_reaches_no_path(blobs, digest) -> None:
    for use in (blobs.path, blobs.has, blobs.delete, blobs.partial_size, blobs.discard_partial):
        with pytest.raises(MalformedError):
            use(digest)


def test_a_planted_link_is_not_followed(blobs, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    digest = sha(b"x")
    blobs.path(digest).parent.mkdir()
    blobs.path(digest).symlink_to(secret)
    with pytest.raises(OSError):
        blobs.open(digest)
    (blobs.root / "partial" / sha(b"y").hex()).symlink_to(secret)
    with pytest.raises(OSError):
        blobs.append(sha(b"y"), 6, b"more")
    assert secret.read_bytes() == b"secret"


def test_a_blob_over_the_bound_is_cut_off_and_leaves_nothing(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, bytes_max=100)
    with pytest.raises(QuotaExceededError):
        blobs.write(sha(bytes(101)), (bytes(10) for _ in range(11)))
    assert blobs.partial_size(sha(bytes(101))) == 0
    blobs.write(sha(bytes(100)), [bytes(100)])


def test_rot_is_found_and_moved_out_of_the_way(blobs) -> None:
    good, bad = os.urandom(500), os.urandom(500)
    for data in (good, bad):
        blobs.write(sha(data), [data])
    rotten = bytearray(bad)
    rotten[250] ^= 4
    blobs.path(sha(bad)).write_bytes(rotten)
    assert blobs.scrub() == (sha(bad),)
    assert (blobs.has(sha(bad)), blobs.has(sha(good))) == (False, True)
    assert (blobs.root / "corrupt" / sha(bad).hex()).read_bytes() == rotten
    assert blobs.scrub() == ()


def test_deleting_and_copying_in(blobs, tmp_path: Path) -> None:
    source = tmp_path / "stick"
    source.write_bytes(b"from a stick")
    assert blobs.copy_in(sha(b"from a stick"), source).read_bytes() == b"from a stick"
    assert source.exists()
    assert blobs.delete(sha(b"from a stick"))
    assert not blobs.delete(sha(b"from a stick"))
    with pytest.raises(DigestMismatchError):
        blobs.copy_in(sha(b"else"), source)
    assert source.exists()


def test_leftovers_of_a_crash_are_cleaned_on_open(blobs) -> None:
    leftover = blobs.root / "partial" / f".new-{sha(b'a').hex()}"
    leftover.write_bytes(b"half")
    BlobStore(blobs.root)
    assert not leftover.exists()


def test_a_blob_is_synced_named_and_its_folder_synced_in_this_order(blobs, monkeypatch) -> None:
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(file: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file")
        real_fsync(file)

    def rename(*names: object) -> None:
        steps.append("rename")
        real_rename(*names)

    blobs.path(sha(b"data")).parent.mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    blobs.write(sha(b"data"), [b"data"])
    assert steps == ["file", "rename", "folder"]
