"""A pack leads from what is held to what is wanted, through every kind of container, and a broken one is refused."""

import hashlib
import io
import random
from pathlib import Path

import pytest

from gateway.packing import encode, plan_update
from protocol import cose
from protocol.documents import Manifest, ManifestFile, sign_document
from protocol.errors import PeerError
from protocol.numbers import DocumentKind
from protocol.pack.decoder import decode_files
from protocol.pack.profile import Profile, own_profile
from store.heldviews import HeldViews
from tests.protocol.pack.making import Containers, broken

KEY = cose.SigningKey(bytes(32))


class Fleet:
    """Two versions of a bundle on disk, the way between them, and what comes of it."""

    def __init__(self, folder: Path, old: dict[str, bytes], new: dict[str, bytes]) -> None:
        self._folder = folder
        self.new = new
        before = self._publish(old) if old else None
        self.update = plan_update(self._publish(new), [before] if before else [])

    def pack(self, profile: Profile | None = None) -> bytes:
        wanted = [(file, self._folder / file.digest.hex()) for file in self.update.wanted]
        return b"".join(encode(wanted, [path for _, path in self.held()], profile=profile))

    def held(self) -> list[tuple[bytes, Path]]:
        return [(digest, self._folder / digest.hex()) for digest in self.update.held]

    def decode(self, pack: bytes) -> dict[str, bytes]:
        with HeldViews(self.held(), scratch=self._folder) as held:
            return {
                file.path: b"".join(pieces)
                for file, pieces in decode_files(io.BytesIO(pack).read, self.update.wanted, held)
            }

    def check(self, pack: bytes) -> None:
        made = self.decode(pack)
        assert made == {file.path: self.new[file.path] for file in self.update.wanted}

    def _publish(self, files: dict[str, bytes]) -> bytes:
        listed = []
        for path in sorted(files):
            digest = hashlib.sha256(files[path]).digest()
            (self._folder / digest.hex()).write_bytes(files[path])
            listed.append(ManifestFile(path, len(files[path]), digest))
        manifest = Manifest(
            document=DocumentKind.MANIFEST, version=1, issued_s=1, expires_s=2, name="b", label="1", content="static",
            files=tuple(listed),
        )  # fmt: skip
        return sign_document(manifest, [KEY])


def page(number: int, version: str) -> bytes:
    noise = random.Random(number)
    return b"".join(b"<p>%d %s</p>\n" % (noise.randrange(1 << 40), version.encode()) for _ in range(60))


def folder(version: str) -> dict[str, bytes]:
    return {f"html/page{n}.html": page(n, version) for n in range(30)}


def test_an_edit_in_every_page_costs_a_fraction_of_the_pages(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, folder("15.18"), folder("15.20"))
    pack = fleet.pack()
    fleet.check(pack)
    assert len(pack) < sum(map(len, fleet.new.values())) / 15


def test_a_first_install_needs_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {}, folder("1"))
    fleet.check(fleet.pack())


def test_what_is_held_costs_nothing_whatever_its_path(tmp_path: Path) -> None:
    old = folder("1")
    fleet = Fleet(tmp_path, old, {f"moved/{path}": data for path, data in old.items()})
    assert fleet.update.wanted == ()


def test_an_edit_inside_a_zip_of_everything_costs_as_little_as_outside(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "plain", tmp_path / "zipped"
    plain.mkdir()
    zipped.mkdir()
    outside = Fleet(plain, folder("15.18"), folder("15.20")).pack()
    inside = Fleet(
        zipped, {"book.epub": Containers.zip(folder("15.18"))}, {"book.epub": Containers.zip(folder("15.20"))}
    )
    pack = inside.pack()
    inside.check(pack)
    assert len(pack) < len(outside) + 300


def test_every_kind_of_container_comes_through(tmp_path: Path) -> None:
    def bundle(version: str) -> dict[str, bytes]:
        return {
            "app.js.gz": Containers.gzip(page(1, version)),
            "book.epub": Containers.zip({"a.html": page(2, version), "inner.gz": Containers.gzip(page(3, version))}),
            "logo.png": Containers.png(len(version)),
            "wiki.zim": Containers.zim([[page(4, version), page(5, version)], [page(6, version)]]),
            "empty": b"",
            "plain.txt": page(7, version),
        }

    fleet = Fleet(tmp_path, bundle("1.0"), bundle("1.1x"))
    fleet.check(fleet.pack())


def test_a_truck_with_other_libraries_gets_a_pack_that_needs_none_of_them(tmp_path: Path) -> None:
    versions = [{"book.epub": Containers.zip(folder(version))} for version in ("1", "2")]
    fleet = Fleet(tmp_path, *versions)
    pack = fleet.pack(Profile(b"zng1", b"zst9", ppmd=False))
    fleet.check(pack)
    assert len(pack) > 5 * len(fleet.pack(own_profile()))


def test_a_rotted_base_is_refused_and_named(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, folder("1"), folder("2"))
    pack = fleet.pack()
    for _, path in fleet.held():
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(PeerError, match="rotted"):
        fleet.decode(pack)


def test_a_missing_base_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, folder("1"), folder("2"))
    pack = fleet.pack()
    for _, path in fleet.held():
        path.unlink()
    with pytest.raises(PeerError, match="held"):
        fleet.decode(pack)


def test_a_pack_of_other_files_than_were_signed_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {}, folder("1"))
    pack = fleet.pack()
    fleet.update = plan_update(fleet._publish({"only": b"one byte more than there is"}), [])
    with pytest.raises(PeerError):
        fleet.decode(pack)


def test_broken_packs_are_refused_or_come_out_wrong_within_their_size(tmp_path: Path) -> None:
    versions = [{"book.epub": Containers.zip({"a": page(1, v)}), "b.html": page(2, v)} for v in ("1", "2")]
    fleet = Fleet(tmp_path, *versions)
    pack = fleet.pack()
    refused = 0
    for harmed in broken(pack, 200):
        try:
            made = fleet.decode(harmed)
            assert all(len(made[file.path]) == file.size for file in fleet.update.wanted)
        except PeerError:
            refused += 1
    assert refused > 100
