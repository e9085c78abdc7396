"""Rot in content: found, mended from a copy, or fetched by itself at its own cost."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from edge.config import LinkSettings
from edge.daemon import Edge
from edge.installer import Installer
from edge.scrubbing import scrub
from edge.sticks import StickBody, StickState
from protocol.documents import Manifest, parse_document
from protocol.numbers import Precedence
from tests.edge.rig import Rig, until
from tests.gateway.fleets import Signers

NOISE = random.Random(11).randbytes(400_000)
FILES = {"film.mp4": NOISE, "index.html": b"one", "notes.txt": b"n" * 5_000}


def installed(root: Path, files: dict[str, bytes], version: int = 1, name: str = "maths") -> Installer:
    """Install files as a version, as if its pack had come."""
    signed = Signers().manifest(files, version=version, name=name)
    manifest, _ = parse_document(signed, Manifest)
    installer = Installer(root, bytes_max=1 << 30)
    for file in manifest.files:
        data = files[file.path]
        if file.size and file.digest not in installer.held():
            installer.inbox.take(file, lambda number, data=data: iter([data]), lambda count: None)
    held = tuple(installer.held())
    done = installer.install(manifest, signed, None, assumed=held)
    installer.activate(name, done.digest)
    return installer


def damage(path: Path, at: int = 100) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        octet = file.read(1)
        file.seek(at)
        file.write(bytes([octet[0] ^ 1]))


def active(installer: Installer, name: str = "maths") -> Path:
    folder = installer.active_folder(name)
    assert folder is not None
    return folder


def test_a_sound_disk_has_nothing_to_mend(tmp_path: Path) -> None:
    installer = installed(tmp_path, FILES)
    told: list[tuple[int, int]] = []
    found = scrub(installer, lambda done, total: told.append((done, total)))
    assert (found.damaged, found.wanted, found.files) == ([], {}, 3)
    size = sum(map(len, FILES.values()))
    assert (found.read_bytes, told[-1]) == (size, (size, size))


@pytest.mark.parametrize("how", ["flipped", "short", "long", "gone", "link", "folder"])
def test_a_damaged_file_is_mended_from_a_sound_copy_in_another_bundle(tmp_path: Path, how: str) -> None:
    installer = installed(tmp_path, FILES)
    film = active(installer) / "film.mp4"
    # The same content again, under another inode: a copy and no link.
    other = installed(tmp_path, {"same.mp4": NOISE}, name="films")
    copy = active(other, "films") / "same.mp4"
    data = copy.read_bytes()
    copy.unlink()
    copy.write_bytes(data)
    film.chmod(0o600)
    match how:
        case "flipped":
            damage(film)
        case "short":
            os.truncate(film, 10)
        case "long":
            os.truncate(film, 500_000)
        case "gone":
            film.unlink()
        case "link":
            film.unlink()
            film.symlink_to("/etc/passwd")
        case "folder":
            film.unlink()
            film.mkdir()
    found = scrub(other, lambda done, total: None)
    assert len(found.damaged) == 1
    assert (found.mended, found.wanted) == (1, {})
    assert film.read_bytes() == NOISE
    assert not film.is_symlink()
    assert scrub(other, lambda done, total: None).damaged == []


def test_what_links_to_one_rotten_file_is_found_in_every_version(tmp_path: Path) -> None:
    installed(tmp_path, FILES)
    installer = installed(tmp_path, {**FILES, "index.html": b"two"}, version=2)
    damage(active(installer) / "film.mp4")
    found = scrub(installer, lambda done, total: None)
    assert len(found.damaged) == 2
    assert list(found.wanted.values()) == [len(NOISE)]


async def scrubbed(edge: Edge) -> StickState:
    edge.sticks.begin(StickBody("scrub"))
    await until(lambda: not edge.sticks.state().running)
    return edge.sticks.state()


async def test_what_rotted_is_fetched_by_itself_and_costs_no_more(rig: Rig) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    digest = await rig.hub.push(FILES)
    await rig.hub.accept(rig.hub.signers.rollout(digest))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: edge.installer.active_folder("maths") is not None)
    notes = active(edge.installer) / "notes.txt"
    damage(notes)
    before = wire.total_bytes
    state = await scrubbed(edge)
    assert state.error == ""
    assert "1 are damaged" in state.notes[0]
    await until(lambda: notes.read_bytes() == FILES["notes.txt"])
    assert wire.total_bytes - before < 4 * len(FILES["notes.txt"])

    async def told() -> bool:
        return "content.rotted" in await rig.hub.names()

    await until(told)
    assert (await scrubbed(edge)).notes == ("3 files, 0.4 MB: 0 are damaged",)
    assert await edge.repairs.wanted() == {}


async def test_what_rotted_while_no_link_works_is_remembered_over_a_restart(rig: Rig) -> None:
    wire = await rig.wire()
    data = await rig.join()
    link = LinkSettings(name="lte", gateways=(wire.address,))
    edge = await rig.start(data, link)
    digest = await rig.hub.push(FILES)
    await rig.hub.accept(rig.hub.signers.rollout(digest))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: edge.installer.active_folder("maths") is not None)
    wire.cut = True
    damage(active(edge.installer) / "notes.txt")
    await scrubbed(edge)
    await rig.stop(edge)
    wire.cut = False
    edge = await rig.start(data, link)
    await until(lambda: (active(edge.installer) / "notes.txt").read_bytes() == FILES["notes.txt"])
