"""Objects on a stick: cut so that FAT holds them, gone on with, and nothing left of one with another digest."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Generator
from pathlib import Path

import pytest

from protocol.errors import MalformedError, PeerError
from store import stickobjects
from store.errors import DigestMismatchError
from store.sealing import ObjectSeal
from store.stickfolder import StickError, StickFolder, StickFullError, told
from store.stickobjects import ObjectForm, is_whole, read_chunks, write_object

DATA = random.Random(3).randbytes(5_300_000)
SEALS = [None, ObjectSeal(b"k" * 32)]


@pytest.fixture
def folder(tmp_path: Path) -> StickFolder:
    found = StickFolder(tmp_path)
    found.create()
    return found


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after two chunks, so that what a 4 GiB file does is seen with few bytes."""
    monkeypatch.setattr(stickobjects, "STICK_PART_CHUNKS", 2)


def form(seal: ObjectSeal | None, data: bytes = DATA) -> ObjectForm:
    return ObjectForm(hashlib.sha256(data).digest(), len(data), seal)


class Source:
    """Hands out bytes and counts them; breaks off after some."""

    def __init__(self, data: bytes = DATA, breaks_after: int = 1 << 40) -> None:
        self.data, self.left, self.given = data, breaks_after, 0

    def __call__(self, offset: int) -> Generator[bytes]:
        for at in range(offset, len(self.data), 65_000):
            block = self.data[at : at + 65_000]
            self.left -= len(block)
            if self.left < 0:
                raise StickError("the source broke off")
            self.given += len(block)
            yield block


def write(folder: StickFolder, about: ObjectForm, source: Source) -> int:
    done = []
    write_object(folder, about, source, done.append)
    return sum(done)


@pytest.mark.parametrize("seal", SEALS)
def test_an_object_is_read_as_it_was_written_from_any_chunk_on(folder: StickFolder, seal: ObjectSeal | None) -> None:
    about = form(seal)
    assert write(folder, about, Source()) == len(DATA)
    assert is_whole(folder, about)
    assert b"".join(read_chunks(folder, about)) == DATA
    assert b"".join(read_chunks(folder, about, 3)) == DATA[3 << 20 :]
    assert [folder.size(about.path(part)) == about.part_bytes(part) for part in range(3)] == [True] * 3
    assert max(about.part_bytes(part) for part in range(3)) <= 2 * ((1 << 20) + 16)


@pytest.mark.parametrize("seal", SEALS)
def test_a_writer_that_broke_off_goes_on_and_fetches_only_the_rest(
    folder: StickFolder, seal: ObjectSeal | None
) -> None:
    about, first, second = form(seal), Source(breaks_after=3_500_000), Source()
    with pytest.raises(StickError):
        write(folder, about, first)
    assert not is_whole(folder, about)
    assert write(folder, about, second) == len(DATA)
    # The end of a part may cut a block, which then comes twice.
    assert second.given <= len(DATA) - (3 << 20) + 65_000
    assert b"".join(read_chunks(folder, about)) == DATA
    third = Source()
    assert write(folder, about, third) == len(DATA)
    assert third.given == 0


def test_nothing_is_left_of_an_object_with_another_digest(folder: StickFolder) -> None:
    about = form(None)
    with pytest.raises(DigestMismatchError):
        write(folder, about, Source(DATA[:-1] + b"x"))
    assert not [path for path in folder.root.rglob("*") if path.is_file()]


def test_a_source_that_ends_early_or_never_is_cut(folder: StickFolder) -> None:
    with pytest.raises(MalformedError):
        write(folder, form(None), Source(DATA[:-1]))
    about = form(None, DATA[:1_000])
    write(folder, about, Source(DATA[:1_000] + bytes(5_000_000)))
    assert b"".join(read_chunks(folder, about)) == DATA[:1_000]


@pytest.mark.parametrize("seal", SEALS)
@pytest.mark.parametrize("lie", ["short", "long", "gone", "empty"])
def test_a_lying_size_is_noticed_and_reads_no_more_than_was_named(
    folder: StickFolder, seal: ObjectSeal | None, lie: str
) -> None:
    about = form(seal)
    write(folder, about, Source())
    last = folder.root / about.path(2)
    if lie == "gone":
        last.unlink()
    else:
        os.truncate(last, {"short": 1_000, "long": 1 << 30, "empty": 0}[lie])
    try:
        found = b"".join(read_chunks(folder, about))
    except PeerError:
        assert not is_whole(folder, about)
    else:
        assert lie == "long"
        assert found == DATA


def test_an_empty_object_has_no_file(folder: StickFolder) -> None:
    about = form(None, b"")
    assert write(folder, about, Source(b"")) == 0
    assert is_whole(folder, about)
    assert list(read_chunks(folder, about)) == []


def test_no_link_leads_out_of_a_stick_and_no_pipe_is_waited_for(folder: StickFolder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (folder.root / "link").symlink_to(tmp_path / "secret")
    (folder.root / "out").symlink_to(tmp_path)
    os.mkfifo(folder.root / "pipe")
    (folder.root / "folder").mkdir()
    assert folder.read("link", 100) is None
    assert folder.read("out/secret", 100) is None
    for name in ("pipe", "folder"):
        with pytest.raises(MalformedError):
            folder.read(name, 100)
    (folder.root / "big").write_bytes(bytes(101))
    with pytest.raises(MalformedError):
        folder.read("big", 100)


def test_only_names_that_trucks_give_are_uploads(folder: StickFolder, tmp_path: Path) -> None:
    up = folder.root / "up"
    (up / "ke-arrow").mkdir(parents=True)
    (up / "Not A Truck").mkdir()
    (up / "evil").symlink_to(tmp_path)
    for name in ("feed000000000001-1-2", "feed000000000001-1-2.exe", "-1-2", "FEED000000000001-1-2", ".new-x"):
        (up / "ke-arrow" / name).write_bytes(b"x")
        (up / "Not A Truck" / name).write_bytes(b"x")
    assert folder.uploads() == [("ke-arrow", "up/ke-arrow/feed000000000001-1-2")]


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, StickFullError, "is full"),
        (errno.EFBIG, StickFullError, "is full"),
        (errno.EROFS, StickError, "read-only"),
        (errno.EACCES, StickError, "user of the daemon"),
        (errno.EIO, StickError, "pulled out"),
        (errno.ENODEV, StickError, "pulled out"),
        (errno.EINVAL, StickError, "another stick"),
    ],
)
def test_what_a_stick_does_is_told_with_a_next_step(
    tmp_path: Path, number: int, kind: type[StickError], said: str
) -> None:
    with pytest.raises(kind, match=said), told(tmp_path):
        raise OSError(number, os.strerror(number))
