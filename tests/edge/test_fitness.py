"""What was activated stays only if it is fit: hooks, kinds, a real ZIM file and a real kiwix-serve."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import struct
import subprocess
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import pytest

from edge.config import EdgeConfig, HookSettings, KolibriSettings
from edge.daemon import Edge
from edge.fitness import Fitness, UnfitError
from edge.zimlibrary import ZimError, read_header
from protocol.documents import Manifest, parse_document
from protocol.numbers import DocumentKind, Outcome, Precedence
from tests.edge.rig import Rig, until
from tests.gateway.fleets import Signers

V1, V2 = {"index.html": b"one"}, {"index.html": b"two"}


def manifest(files: dict[str, bytes], content: str = "files") -> Manifest:
    made, _ = parse_document(Signers().manifest(files), Manifest)
    return Manifest(**{**{name: getattr(made, name) for name in made.__struct_fields__}, "content": content})


def shell(text: str, **fields: Any) -> HookSettings:
    return HookSettings(command=("/bin/sh", "-c", text, "hook"), **fields)


async def judged(path: Path, *hooks: HookSettings, content: str = "files", **settings: Any) -> str:
    return await Fitness(EdgeConfig(hook=hooks, **settings)).check(manifest(V1, content), path)


async def test_a_hook_gets_the_versions_folder_and_its_name(tmp_path: Path) -> None:
    said = tmp_path / "said"
    text = f'test "$1" = "$DIGITRUCK_PATH" && test "$PWD" = "$1" && echo "$DIGITRUCK_BUNDLE" > {said}'
    assert await judged(tmp_path, shell(text)) == ""
    assert said.read_text() == "maths\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo first; echo 'page 3 is empty' >&2; exit 3", "sh ended with 3: page 3 is empty"),
        ("kill -9 $$", "sh ended with -9"),
        ("sleep 60", "sh took longer than 0.3 s"),
        ("sleep 60 & exit 1", "sh ended with 1"),
        ("yes | head -c 3000000; exit 1", "sh ended with 1: y"),
    ],
)
async def test_a_hook_that_does_not_end_well_in_time_says_why(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UnfitError, match=re.escape(reason)):
        await judged(tmp_path, shell(text, timeout_s=0.3 if text == "sleep 60" else 30))


async def test_a_hook_that_is_not_there_is_no_reason_to_keep_a_version(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="cannot be run"):
        await judged(tmp_path, HookSettings(command=("/nowhere/check",)))


async def test_a_hook_of_another_bundle_or_kind_is_not_asked(tmp_path: Path) -> None:
    hooks = shell("exit 1", bundle="physics"), shell("exit 1", kind="zim")
    assert await judged(tmp_path, *hooks) == ""
    with pytest.raises(UnfitError):
        await judged(tmp_path, shell("exit 1", bundle="maths", kind="files"))


async def test_what_a_hook_started_ends_with_it(tmp_path: Path) -> None:
    text = f"(while :; do touch {tmp_path}/beat; sleep 0.05; done) & sleep 60"
    with pytest.raises(UnfitError):
        await judged(tmp_path, shell(text, timeout_s=0.5))
    beat = tmp_path / "beat"
    beat.unlink(missing_ok=True)
    await asyncio.sleep(0.3)
    assert not beat.exists()


async def test_channels_are_imported_from_the_disk_by_the_truck_s_own_kolibri(tmp_path: Path) -> None:
    channel = "0" * 32
    files = {f"content/databases/{channel}.sqlite3": b"db", "content/storage/a/b/ab.mp4": b"film"}
    (tmp_path / "content" / "databases").mkdir(parents=True)
    log = tmp_path / "log"
    kolibri = tmp_path / "kolibri"
    kolibri.write_text(f'#!/bin/sh\necho "$KOLIBRI_HOME $@" >> {log}\n')
    kolibri.chmod(0o755)
    settings = KolibriSettings(command=(str(kolibri),), home="/srv/kolibri")
    fitness = Fitness(EdgeConfig(kolibri=settings))
    assert await fitness.check(manifest(files, "kolibri"), tmp_path) == ""
    assert log.read_text().splitlines() == [
        f"/srv/kolibri manage {command} disk {channel} {tmp_path}" for command in ("importchannel", "importcontent")
    ]
    with pytest.raises(UnfitError, match="databases"):
        await fitness.check(manifest(V1, "kolibri"), tmp_path)
    assert "no \\[kolibri\\]".replace("\\", "") in await Fitness(EdgeConfig()).check(
        manifest(files, "kolibri"), tmp_path
    )


# -- in a running truck ------------------------------------------------------------------------------------------------


async def roll_out(rig: Rig, edge: Edge, files: dict[str, bytes], version: int) -> bytes:
    digest = await rig.hub.push(files, version=version)
    await rig.hub.accept(rig.hub.signers.rollout(digest, version=version))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    return digest


def shown(edge: Edge) -> bytes | None:
    folder = edge.installer.active_folder("maths")
    return None if folder is None else (folder / "index.html").read_bytes()


async def outcomes(rig: Rig) -> list[tuple[Outcome, str]]:
    found = [each for each in await rig.hub.receipts() if each.document is DocumentKind.MANIFEST]
    return [(each.outcome, each.reason) for each in found]


async def test_an_unfit_version_is_rolled_back_and_not_tried_again_until_somebody_wants_it_anew(
    rig: Rig, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    hook = shell(f"echo >> {ran}; grep -q one index.html || {{ echo 'lesson two is wrong'; exit 1; }}")
    data = await rig.join()
    edge = await rig.start(data, hook=(hook,))
    await roll_out(rig, edge, V1, 1)
    await until(lambda: shown(edge) == b"one")
    second = await roll_out(rig, edge, V2, 2)

    async def rolled_back() -> bool:
        return any(outcome is Outcome.ROLLED_BACK for outcome, _ in await outcomes(rig))

    await until(rolled_back)
    assert shown(edge) == b"one"
    (reason,) = [reason for outcome, reason in await outcomes(rig) if outcome is Outcome.ROLLED_BACK]
    assert reason == "sh ended with 1: lesson two is wrong; back to v1"
    # Not at the next start either.
    runs = ran.read_text()
    await rig.stop(edge)
    edge = await rig.start(data, hook=(hook,))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: edge.bundles.is_idle)
    assert (shown(edge), ran.read_text()) == (b"one", runs)
    # A new rollout of the same version is another try, and now the truck's hook is content.
    await rig.stop(edge)
    edge = await rig.start(data)
    await rig.hub.accept(rig.hub.signers.rollout(second, version=3))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: shown(edge) == b"two")


async def test_a_first_version_that_is_unfit_leaves_nothing_active(rig: Rig) -> None:
    edge = await rig.start(await rig.join(), hook=(shell("exit 1"),))
    await roll_out(rig, edge, V1, 1)

    async def told() -> bool:
        return (Outcome.ROLLED_BACK, "sh ended with 1; there was none before") in await outcomes(rig)

    await until(told)
    assert shown(edge) is None


async def test_a_daemon_that_dies_during_a_trial_finishes_it_at_its_next_start(rig: Rig, tmp_path: Path) -> None:
    data, started = await rig.join(), tmp_path / "started"
    edge = await rig.start(data, hook=(shell(f"touch {started}; sleep 60"),))
    await roll_out(rig, edge, V1, 1)
    await until(started.exists)
    await rig.crash(edge)
    edge = await rig.start(data, hook=(shell("exit 7"),))
    await edge.recorder.event("nudge", Precedence.PRIORITY)

    async def told() -> bool:
        return any(outcome is Outcome.ROLLED_BACK and "ended with 7" in why for outcome, why in await outcomes(rig))

    await until(told)
    assert shown(edge) is None


# -- ZIM ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def zim(tmp_path: Path) -> bytes:
    if shutil.which("zimwriterfs") is None:
        pytest.skip("needs zimwriterfs (Debian: zim-tools)")
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.html").write_text("<html><head><title>Water</title></head><body>Boil it first.</body></html>")
    # 48 x 48 pixels of one colour, as an illustration has to be.
    (source / "icon.png").write_bytes(_png())
    command = ["zimwriterfs", "--welcome=index.html", "--illustration=icon.png", "--language=eng", "--title=Water"]
    command += ["--description=Clean water", "--longDescription=Clean water", "--creator=us", "--publisher=us"]
    command += ["--name=water", "source", "water.zim"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return (tmp_path / "water.zim").read_bytes()


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(b"".join(b"\0" + b"\x20\x80\xc0" * 48 for _ in range(48)))
    head = struct.pack(">IIBBBBB", 48, 48, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture
def kiwix(rig: Rig) -> tuple[Path, str]:
    """Return where a real kiwix-serve looks for its library, and its address; it is started by `serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    library = rig.tmp_path / "ke-arrow" / "content" / "library.xml"
    return library, f"http://127.0.0.1:{port}"


def fetched(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


async def test_a_real_kiwix_serve_shows_a_zim_bundle_as_soon_as_it_is_active(
    rig: Rig, zim: bytes, kiwix: tuple[Path, str]
) -> None:
    if shutil.which("kiwix-serve") is None:
        pytest.skip("needs kiwix-serve (Debian: kiwix-tools)")
    library, address = kiwix
    edge = await rig.start(await rig.join())
    library.parent.mkdir(exist_ok=True)
    library.write_text('<?xml version="1.0" encoding="UTF-8"?>\n<library version="20110515">\n</library>\n')
    arguments = ["--library", "--monitorLibrary", f"--port={address.rpartition(':')[2]}", "--address=127.0.0.1"]
    serving = subprocess.Popen(
        ["kiwix-serve", *arguments, str(library)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until(lambda: asyncio.to_thread(fetched, address + "/"))
        signed = rig.hub.signers.manifest({"water.zim": zim}, content="zim")
        from protocol import cose
        from store.blobs import BlobStore

        BlobStore(rig.hub.folder / "blobs").write(cose.digest(zim), [zim])
        digest = await rig.hub.accept(signed)
        await rig.hub.accept(rig.hub.signers.rollout(digest))
        await edge.recorder.event("nudge", Precedence.PRIORITY)
        await until(lambda: edge.installer.active_folder("maths") is not None)
        await until(lambda: "water.zim" in library.read_text())

        async def page() -> bool:
            return "Boil it first" in await asyncio.to_thread(fetched, address + "/content/water/index.html") or (
                "Boil it first" in await asyncio.to_thread(fetched, address + "/water/A/index.html")
            )

        await until(page)
    finally:
        serving.terminate()
        serving.wait(timeout=10)


def test_the_head_of_a_real_zim_file_is_read_and_a_cut_one_is_refused(tmp_path: Path, zim: bytes) -> None:
    path = tmp_path / "whole.zim"
    path.write_bytes(zim)
    assert read_header(path).entries >= 2
    for damaged in (zim[:-1], zim[:50], b"", b"x" * 200, zim + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(ZimError):
            read_header(path)
