"""A pack becomes exactly the wanted files, whether plain or made against what is held."""

import hashlib
import io
from pathlib import Path

import pytest

from edge.unpacking import unpack
from gateway.packing import encode
from protocol.documents import ManifestFile
from protocol.errors import MalformedError
from protocol.pack import encode_pack
from tests.protocol.pack.making import make_zip, text


def listed(files: dict[str, bytes]) -> list[ManifestFile]:
    return [ManifestFile(path, len(data), hashlib.sha256(data).digest()) for path, data in files.items()]


OLD = make_zip({f"{n}.html": text(n) for n in range(6)})
NEW = {"book.epub": make_zip({f"{n}.html": text(n) + b"!" for n in range(6)}), "deep/er/page.html": text(9)}


def test_a_plain_pack_becomes_its_files(tmp_path: Path) -> None:
    pack = b"".join(encode_pack(NEW.values()))
    unpack(io.BytesIO(pack), listed(NEW), tmp_path, assumed=(), places={})
    assert {path: (tmp_path / path).read_bytes() for path in NEW} == NEW


def against_old(tmp_path: Path) -> tuple[bytes, Path]:
    held, sources = tmp_path / "held", tmp_path / "sources"
    held.write_bytes(OLD)
    sources.mkdir()
    wanted = []
    for file in listed(NEW):
        (sources / file.digest.hex()).write_bytes(NEW[file.path])
        wanted.append((file, sources / file.digest.hex()))
    return b"".join(encode(wanted, [held])), held


def test_a_pack_against_what_is_held_becomes_its_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    pack, held = against_old(tmp_path)
    assert len(pack) < len(NEW["book.epub"]) / 3
    digest = hashlib.sha256(OLD).digest()
    building = tmp_path / "building"
    building.mkdir()
    unpack(io.BytesIO(pack), listed(NEW), building, assumed=[digest], places={digest: held})
    assert {path: (building / path).read_bytes() for path in NEW} == NEW
    assert {str(each.relative_to(building)) for each in building.rglob("*") if each.is_file()} == set(NEW)


def test_a_base_that_is_gone_is_refused(tmp_path: Path) -> None:
    pack, _ = against_old(tmp_path)
    building = tmp_path / "building"
    building.mkdir()
    with pytest.raises(MalformedError, match="held"):
        unpack(io.BytesIO(pack), listed(NEW), building, assumed=[hashlib.sha256(OLD).digest()], places={})


@pytest.mark.parametrize("pack", [b"".join(encode_pack(NEW.values())), b"", b"\x02", b"\x02\x00\x00"])
def test_contents_that_were_not_signed_are_refused(tmp_path: Path, pack: bytes) -> None:
    other = {path: bytes(len(data)) for path, data in NEW.items()}
    with pytest.raises(MalformedError):
        unpack(io.BytesIO(pack), listed(other), tmp_path, assumed=(), places={})
