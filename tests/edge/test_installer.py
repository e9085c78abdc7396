"""Bundles on a real disk: a version is whole or absent, whatever call fails, whatever the pack says."""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge import installer as installer_module
from edge.installer import DiskFullError, Installer
from protocol.documents import Manifest, parse_document
from protocol.errors import LocalError, MalformedError
from protocol.pack import encode_pack, wanted_files
from tests.gateway.fleets import Signers

SIGNERS = Signers()
V1 = {"index.html": b"<p>one</p>", "img/a.png": b"a" * 5_000, "img/same.png": b"a" * 5_000, "empty.txt": b""}
V2 = {**V1, "index.html": b"<p>two</p>", "new/deep/file.txt": b"new" * 700}
V3 = {"index.html": b"<p>three</p>"}


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def signed(files: dict[str, bytes], version: int = 1, name: str = "maths") -> tuple[Manifest, bytes]:
    document = SIGNERS.manifest(files, version=version, name=name)
    return parse_document(document, Manifest)[0], document


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    installer = Installer(tmp_path / "content", bytes_max=1_000_000)
    installer.clean()
    return installer


def make_pack(folder: Path, files: dict[str, bytes], manifest: Manifest, assumed: Sequence[bytes]) -> Path | None:
    contents = {digest(data): data for data in files.values()}
    wanted = wanted_files(manifest, assumed)
    if not wanted:
        return None
    pack = folder / "a.pack"
    pack.write_bytes(b"".join(encode_pack(iter([contents[file.digest] for file in wanted]))))
    return pack


def install(
    installer: Installer,
    files: dict[str, bytes],
    version: int = 1,
    *,
    name: str = "maths",
    assumed: Sequence[bytes] = (),
    activate: bool = True,
) -> bytes:
    manifest, document = signed(files, version, name)
    pack = make_pack(installer.root.parent, files, manifest, assumed)
    installed = installer.install(manifest, document, pack, assumed=assumed)
    if activate:
        installer.activate(name, installed.digest)
    return installed.digest


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def held_digests(installer: Installer) -> list[bytes]:
    return [file.digest for each in installer.installed() for file in each.manifest.files]


def active(installer: Installer, name: str = "maths") -> dict[str, bytes] | None:
    folder = installer.active_folder(name)
    return None if folder is None else contents(folder)


def test_what_was_signed_is_what_is_there(installer: Installer) -> None:
    install(installer, V1)
    assert active(installer) == V1
    found = installer.active("maths")
    assert found is not None
    assert found.active
    assert installer.scrub() == ()


def test_it_is_not_active_before_it_is_activated(installer: Installer) -> None:
    install(installer, V1, activate=False)
    assert installer.active("maths") is None
    assert len(installer.installed()) == 1


def test_what_is_held_is_linked_and_not_in_the_pack(installer: Installer) -> None:
    first = install(installer, V1)
    install(installer, V2, 2, assumed=held_digests(installer))
    assert active(installer) == V2
    versions = installer.root / "maths" / "versions"
    folder = installer.active_folder("maths")
    assert folder is not None
    assert (versions / first.hex() / "img/a.png").samefile(folder / "img/a.png")


def test_files_are_shared_between_bundles(installer: Installer) -> None:
    install(installer, V1)
    install(installer, V1, name="physics", assumed=held_digests(installer))
    one, two = installer.active_folder("maths"), installer.active_folder("physics")
    assert one is not None
    assert two is not None
    assert (one / "img/a.png").samefile(two / "img/a.png")
    installer.deactivate("maths")
    assert active(installer, "maths") is None
    assert active(installer, "physics") == V1


def test_the_version_before_is_kept_and_older_ones_go(installer: Installer) -> None:
    first, second, third = (install(installer, files, version) for version, files in enumerate((V1, V2, V3), start=1))
    assert {each.digest for each in installer.installed()} == {second, third}
    installer.activate("maths", second)
    assert active(installer) == V2
    with pytest.raises(LocalError, match="is not installed"):
        installer.activate("maths", first)


def test_going_back_and_forth_keeps_both(installer: Installer) -> None:
    first, second = install(installer, V1), install(installer, V2, 2)
    for each, files in ((first, V1), (second, V2), (second, V2), (first, V1)):
        installer.activate("maths", each)
        assert active(installer) == files


def test_installing_again_changes_nothing(installer: Installer) -> None:
    install(installer, V1)
    manifest, document = signed(V1)
    installer.install(manifest, document, None, assumed=())
    assert active(installer) == V1


def test_taking_a_bundle_away_leaves_nothing_of_it(installer: Installer) -> None:
    install(installer, V1)
    installer.deactivate("maths")
    installer.deactivate("never-was-there")
    assert installer.installed() == ()
    assert contents(installer.root) == {}


@pytest.mark.parametrize("lie", ["short", "other", "garbage", "empty", "long", "bomb"])
def test_a_pack_that_lies_installs_nothing(installer: Installer, lie: str) -> None:
    install(installer, V1)
    manifest, document = signed(V2, 2)
    pack = make_pack(installer.root.parent, V2, manifest, ())
    assert pack is not None
    good = pack.read_bytes()
    other = b"".join(encode_pack(iter([b"x" * file.size for file in wanted_files(manifest, ())])))
    bomb = b"".join(encode_pack(iter([bytes(64 << 20)])))
    pack.write_bytes(
        {
            "short": good[:-1],
            "other": other,
            "garbage": os.urandom(len(good)),
            "empty": b"",
            "long": good[:4] + good,
            "bomb": bomb,
        }[lie]
    )
    with pytest.raises(MalformedError):
        installer.install(manifest, document, pack, assumed=())
    assert active(installer) == V1
    assert [path.name for path in (installer.root / "maths/versions").iterdir() if "building" in path.name] == []
    pack.write_bytes(good)
    installer.activate("maths", installer.install(manifest, document, pack, assumed=()).digest)
    assert active(installer) == V2


def test_a_missing_pack_is_malformed(installer: Installer) -> None:
    manifest, document = signed(V1)
    with pytest.raises(MalformedError, match="no pack"):
        installer.install(manifest, document, None, assumed=())


@pytest.mark.parametrize("rot", [lambda path: path.write_bytes(b"b" * 5_000), lambda path: path.unlink()])
def test_a_held_file_that_rotted_is_not_linked_on(installer: Installer, rot: Callable[[Path], None]) -> None:
    install(installer, V1)
    folder = installer.active_folder("maths")
    assert folder is not None
    assumed = held_digests(installer)
    for name in ("img/a.png", "img/same.png"):
        rot(folder / name)
    assert len(installer.scrub()) == 2
    with pytest.raises(MalformedError, match="rotted"):
        install(installer, V2, 2, assumed=assumed)
    install(installer, V2, 2)  # from nothing
    assert active(installer) == V2
    assert active(installer) != V1


def test_a_version_beyond_its_share_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    installer = Installer(tmp_path / "content", bytes_max=6_000)
    installer.clean()
    install(installer, V1)  # 5,010 different bytes: two names of one file count once
    manifest, _ = signed(V2, 2)
    with pytest.raises(DiskFullError, match=r"maths needs 2110 bytes more; 990 are left"):
        installer.check_room(manifest)
    installer.check_room(signed({**V1, "small.txt": b"x" * 900}, 2)[0])
    before = contents(installer.root)
    with pytest.raises(DiskFullError):
        install(installer, V2, 2, assumed=held_digests(installer))
    assert contents(installer.root) == before


def test_a_full_disk_is_noticed_before_anything_is_paid_for(
    installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(installer.root)._replace(free=64 << 20)
    monkeypatch.setattr(installer_module.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DiskFullError):
        installer.check_room(signed(V1)[0])


class Cut(OSError):
    """What the failing call raises."""


CALLS = ("os.fsync", "os.link", "os.open", "os.rename", "os.replace", "os.symlink", "os.mkdir", "os.unlink", "open")


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the `number`-th call that touches the disk fail; return where the names of the calls are noted."""
    made: list[str] = []

    def failing(name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            if len(made) == number:
                raise Cut(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        if name == "open":
            monkeypatch.setattr(io, "open", failing(name, io.open))
            monkeypatch.setattr(builtins, "open", failing(name, builtins.open))
        else:
            attribute = name.removeprefix("os.")
            wrapped = failing(name, getattr(os, attribute))
            monkeypatch.setattr(os, attribute, wrapped)
    return made


def test_a_failure_at_any_call_leaves_the_old_or_the_new_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, document = signed(V2, 2)
    number = 0
    while True:
        number += 1
        root = tmp_path / str(number) / "content"
        installer = Installer(root, bytes_max=1_000_000)
        installer.clean()
        install(installer, V1)
        assumed = held_digests(installer)
        pack = make_pack(root.parent, V2, manifest, assumed)
        with monkeypatch.context() as broken:
            made = fail_at(broken, number)
            try:
                installer.activate("maths", installer.install(manifest, document, pack, assumed=assumed).digest)
            except (OSError, LocalError, MalformedError):
                assert len(made) >= number
        if len(made) < number:
            break  # every call has had its turn
        assert active(installer) in (V1, V2)
        # The next start cleans up and goes on as if nothing had been.
        again = Installer(root, bytes_max=1_000_000)
        again.clean()
        assert active(again) in (V1, V2)
        again.activate("maths", again.install(manifest, document, pack, assumed=assumed).digest)
        assert active(again) == V2
        assert again.scrub() == ()
    assert number > 30


def test_a_record_that_a_power_cut_left_unnamed_is_no_installed_version(installer: Installer) -> None:
    install(installer, V1)
    _, document = signed(V2, 2)
    leftover = installer.root / "maths" / "versions" / f".new-{digest(document).hex()}.cose"
    leftover.write_bytes(document)
    assert [each.manifest.version for each in installer.installed()] == [1]
    assert installer.scrub() == ()
    installer.clean()
    assert not leftover.exists()
    assert active(installer) == V1


def test_what_an_interrupted_installation_left_is_cleaned_at_start_only(installer: Installer) -> None:
    install(installer, V1)
    versions = installer.root / "maths" / "versions"
    (versions / f"{'00' * 32}.building").mkdir()
    (versions / ("11" * 32)).mkdir()  # renamed, and the power went before its record was written
    looking = Installer(installer.root, bytes_max=1)
    assert len(looking.installed()) == 1
    assert len(list(versions.iterdir())) == 4  # looking changes nothing
    installer.clean()
    assert len(list(versions.iterdir())) == 2
    assert active(installer) == V1


def test_looking_at_a_folder_that_is_not_there_makes_none(tmp_path: Path) -> None:
    assert Installer(tmp_path / "absent", bytes_max=1).installed() == ()
    assert not (tmp_path / "absent").exists()


def test_a_record_that_cannot_be_read_is_passed_over(installer: Installer) -> None:
    install(installer, V1)
    install(installer, V3, name="physics")
    (record,) = (installer.root / "maths/versions").glob("*.cose")
    record.write_bytes(b"\xff" + record.read_bytes()[1:])
    assert [each.name for each in installer.installed()] == ["physics"]


@pytest.mark.parametrize("name", ["", ".", "..", "../maths", "maths/versions", "MATHS", "a" * 40, "maths\0"])
def test_a_name_from_a_request_never_leaves_the_folder(installer: Installer, name: str) -> None:
    install(installer, V1)
    assert installer.active_folder(name) is None
    assert installer.active_folder("maths") is not None
