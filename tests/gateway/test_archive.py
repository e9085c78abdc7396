"""The archive in a backup is a plain tar; what is not one of ours is refused, whatever the sizes of its pieces."""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archive import ArchiveError, ArchiveReader, ArchiveWriter, Member, Sink

FILES = {"contents.json": b"{}", "keys/edhoc.key": bytes(64), "fleet.db": b"x" * 1_300_000, "empty": b""}


def member(name: str, data: bytes, size: int | None = None) -> Member:
    return Member(name, len(data) if size is None else size, lambda: io.BytesIO(data))


def archive(files: dict[str, bytes]) -> bytes:
    reader = ArchiveReader([member(name, data) for name, data in files.items()], lambda count: None)
    return b"".join(iter(lambda: reader.read(8_192), b""))


class Taken:
    """Collects the members of an archive."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def open(self, name: str, size: int) -> Sink:
        taken = self

        class One(io.BytesIO):
            def close(self) -> None:
                taken.files[name] = self.getvalue()
                assert len(taken.files[name]) == size
                super().close()

        return One()


def take(data: bytes, step: int = 8_192) -> dict[str, bytes]:
    taken = Taken()
    writer = ArchiveWriter(taken.open)
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
    writer.finish()
    return taken.files


def test_tar_opens_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(FILES))) as opened:
        found = {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]
    assert found == FILES


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=9), st.binary(max_size=1_500)), st.integers(1, 3_000))
@settings(max_examples=40, deadline=None)
def test_what_goes_in_comes_out_in_pieces_of_any_size(files: dict[str, bytes], step: int) -> None:
    files = {name.strip("/") or "x": data for name, data in files.items()}
    assert take(archive(files), step) == files


def test_bytes_are_counted_as_they_go() -> None:
    counts: list[int] = []
    reader = ArchiveReader([member(*each) for each in FILES.items()], counts.append)
    while reader.read(4_096):
        pass
    assert sum(counts) == sum(map(len, FILES.values()))


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 700, 1_024])
def test_an_archive_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(ArchiveError, match="too early"):
        take(archive({"a": b"1" * 600})[:cut])


def test_a_file_that_became_shorter_is_noticed() -> None:
    reader = ArchiveReader([member("a", b"123", size=9)], lambda count: None)
    assert reader.read(512)
    assert reader.read(512) == b"123"
    with pytest.raises(ArchiveError, match="shorter"):
        reader.read(512)


def special(**changes: object) -> bytes:
    info = tarfile.TarInfo("a")
    for name, value in changes.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1_024)


@pytest.mark.parametrize(
    "data",
    [
        special(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        special(type=tarfile.LNKTYPE, linkname="b"),
        special(type=tarfile.DIRTYPE),
        special(type=tarfile.CHRTYPE),
        special(type=tarfile.GNUTYPE_SPARSE),
        special(name="n" * 200),
        special() + b"x" * 512,
        special()[:512] * 2 + bytes(1_024),
        b"no tar at all" * 100,
        b"\xff" * 512,
    ],
    ids=["link", "hardlink", "folder", "device", "sparse", "longname", "trailing", "twice", "junk", "ones"],
)
def test_what_a_backup_does_not_have_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        take(data)


def test_a_name_that_is_refused_ends_it() -> None:
    def refuse(name: str, size: int) -> Sink:
        raise ArchiveError(name)

    with pytest.raises(ArchiveError, match=r"\.\./x"):
        ArchiveWriter(refuse).write(archive({"../x": b""}))


def test_a_size_beyond_eight_gigabytes_is_kept() -> None:
    sizes = []

    def note(name: str, size: int) -> Sink:
        sizes.append(size)
        return io.BytesIO()

    reader = ArchiveReader([Member("big", 9 << 30, lambda: io.BytesIO())], lambda count: None)
    ArchiveWriter(note).write(reader.read(512))
    assert sizes == [9 << 30]


def test_the_type_of_a_reader_is_that_of_a_file() -> None:
    reader: BinaryIO = ArchiveReader([], lambda count: None)  # type: ignore[assignment]
    assert reader.read() == bytes(1_024)
    assert reader.read() == b""
