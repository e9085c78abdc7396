"""Packs: made once, kept, handed out in pieces; whatever fails is said and can be asked for again."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import structlog

from gateway import packs as packs_module
from gateway.packs import Packs
from protocol import cose
from protocol.errors import PeerError
from protocol.messages import PackOffer, PackRequest
from protocol.numbers import PIECE_BYTES, DocumentKind
from protocol.pack import decode_pack
from store.blobs import BlobStore
from store.fleet.fleet import FleetStore
from store.fleet.records import DocumentRecord
from tests.gateway import dying
from tests.gateway.fleets import NOW_MS, Signers

FILES = {"a.txt": os.urandom(3000), "b.txt": b"b" * 5000}


class InThread(ThreadPoolExecutor):
    """Works like the pool of processes, and costs no new interpreter."""

    def __init__(self, workers: int, **_: object) -> None:
        super().__init__(workers)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
async def packs(
    tmp_path: Path, fleet: FleetStore, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Packs]:
    monkeypatch.setattr(packs_module, "ProcessPoolExecutor", InThread)
    made = Packs(tmp_path / "packs", blobs, fleet)
    yield made
    await made.close()


async def put_manifest(fleet: FleetStore, files: dict[str, bytes], version: int = 1) -> bytes:
    signed = Signers().manifest(files, version=version)
    digest = cose.digest(signed)
    record = DocumentRecord(digest, DocumentKind.MANIFEST, version, "maths", signed, NOW_MS, "a test", bundle="maths")
    await fleet.put_document(record)
    return digest


def put_blobs(blobs: BlobStore, files: dict[str, bytes]) -> None:
    for data in files.values():
        blobs.write(cose.digest(data), iter([data]))


def whole(packs: Packs, offer: PackOffer) -> bytes:
    assert offer.digest is not None
    pieces: list[bytes] = []
    while piece := (packs.read_pieces(offer.digest, [len(pieces)]) or [b""])[0]:
        pieces.append(piece)
    return b"".join(pieces)


def unpacked(pack: bytes, size: int) -> bytes:
    return b"".join(decode_pack(io.BytesIO(pack).read, size))


async def test_a_pack_carries_what_is_wanted_and_not_held(packs: Packs, fleet: FleetStore, blobs: BlobStore) -> None:
    put_blobs(blobs, FILES)
    first = await put_manifest(fleet, FILES)
    more = {**FILES, "c.txt": b"new" * 400}
    put_blobs(blobs, more)
    second = await put_manifest(fleet, more, version=2)
    plain = whole(packs, await packs.offer(PackRequest(first)))
    assert unpacked(plain, 8_000) == b"".join(FILES[name] for name in sorted(FILES))
    update = whole(packs, await packs.offer(PackRequest(second, (first,))))
    assert unpacked(update, 1_200) == more["c.txt"]


async def test_the_digest_and_size_of_an_offer_are_those_of_its_bytes(
    packs: Packs, fleet: FleetStore, blobs: BlobStore
) -> None:
    put_blobs(blobs, FILES)
    offer = await packs.offer(PackRequest(await put_manifest(fleet, FILES)))
    data = whole(packs, offer)
    assert (cose.digest(data), len(data)) == (offer.digest, offer.size)
    assert offer.digest is not None
    first, beyond = packs.read_pieces(offer.digest, [0, 1 << 40]) or [b"", b"?"]
    assert (len(first), beyond) == (PIECE_BYTES, b"")
    assert packs.read_pieces(bytes(32), [0]) is None


async def test_trucks_that_ask_at_once_share_one_pack(
    packs: Packs, fleet: FleetStore, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blobs(blobs, FILES)
    request = PackRequest(await put_manifest(fleet, FILES))
    made = []
    write = packs_module.write_pack
    monkeypatch.setattr(packs_module, "write_pack", lambda *args: made.append(args) or write(*args))
    offers = await asyncio.gather(*(packs.offer(request) for _ in range(5)))
    offers.append(await packs.offer(request))
    assert len(made) == 1
    assert len({offer.digest for offer in offers}) == 1


async def test_a_pack_survives_a_restart(
    packs: Packs, fleet: FleetStore, blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blobs(blobs, FILES)
    request = PackRequest(await put_manifest(fleet, FILES))
    offer = await packs.offer(request)
    monkeypatch.delattr(packs_module, "write_pack")
    again = Packs(tmp_path / "packs", blobs, fleet)
    assert await again.offer(request) == offer
    await again.close()


async def test_what_a_crash_left_half_written_is_removed(fleet: FleetStore, blobs: BlobStore, tmp_path: Path) -> None:
    folder = tmp_path / "packs"
    folder.mkdir()
    for name in ("ab.new", ".new-ab.entry"):
        (folder / name).write_bytes(b"half")
    await Packs(folder, blobs, fleet).close()
    assert list(folder.iterdir()) == []


async def test_an_entry_without_its_pack_is_made_again(
    packs: Packs, fleet: FleetStore, blobs: BlobStore, tmp_path: Path
) -> None:
    put_blobs(blobs, FILES)
    request = PackRequest(await put_manifest(fleet, FILES))
    offer = await packs.offer(request)
    assert offer.digest is not None
    (tmp_path / "packs" / f"{offer.digest.hex()}.pack").unlink()
    assert await packs.offer(request) == offer
    assert len(whole(packs, offer)) == offer.size


async def test_a_manifest_that_is_not_here_is_refused(packs: Packs, fleet: FleetStore, blobs: BlobStore) -> None:
    put_blobs(blobs, FILES)
    known = await put_manifest(fleet, FILES)
    for request in (PackRequest(bytes(32)), PackRequest(known, (bytes(32),))):
        with pytest.raises(PeerError, match="no such manifest"):
            await packs.offer(request)


async def test_files_that_are_not_here_yet_are_counted_and_the_next_try_succeeds(
    packs: Packs, fleet: FleetStore, blobs: BlobStore
) -> None:
    request = PackRequest(await put_manifest(fleet, FILES))
    with pytest.raises(PeerError, match="2 files of maths are not at the gateway yet"):
        await packs.offer(request)
    put_blobs(blobs, FILES)
    assert (await packs.offer(request)).digest is not None


async def test_a_slow_pack_is_promised_and_then_offered(
    packs: Packs, fleet: FleetStore, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blobs(blobs, FILES)
    request = PackRequest(await put_manifest(fleet, FILES))
    monkeypatch.setattr(packs_module, "_ANSWER_S", 0.0)
    first = await packs.offer(request)
    assert (first.digest, first.wait_s) == (None, 5)
    monkeypatch.setattr(packs_module, "_ANSWER_S", 5.0)
    assert (await packs.offer(request)).digest is not None


async def test_only_so_many_packs_are_made_at_once(
    packs: Packs, fleet: FleetStore, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blobs(blobs, FILES)
    request = PackRequest(await put_manifest(fleet, FILES))
    monkeypatch.setattr(packs_module, "_RUNNING_MAX", 0)
    assert (await packs.offer(request)).wait_s == 60


async def test_packs_not_asked_for_longest_make_room(
    tmp_path: Path, fleet: FleetStore, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs_module, "ProcessPoolExecutor", InThread)
    packs = Packs(tmp_path / "packs", blobs, fleet, bytes_max=9_000)
    offers = []
    for version in (1, 2, 3):
        files = {f"{version}.bin": os.urandom(4_000)}
        put_blobs(blobs, files)
        offers.append(await packs.offer(PackRequest(await put_manifest(fleet, files, version))))
        for age, offer in enumerate(reversed(offers)):
            path = tmp_path / "packs" / f"{(offer.digest or b'').hex()}.pack"
            if path.exists():
                os.utime(path, (NOW_MS / 1000 - age, NOW_MS / 1000 - age))
    held = [packs.read_pieces(offer.digest or b"", [0]) is not None for offer in offers]
    assert held == [False, True, True]
    await packs.close()


async def test_a_worker_that_was_killed_is_reported_and_replaced(
    tmp_path: Path, fleet: FleetStore, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_blobs(blobs, FILES)
    request = PackRequest(await put_manifest(fleet, FILES))
    packs = Packs(tmp_path / "packs", blobs, fleet)  # with real processes
    monkeypatch.setattr(packs_module, "_ANSWER_S", 30.0)
    monkeypatch.setattr(packs_module, "ProcessPoolExecutor", InThread)
    with monkeypatch.context() as patched:
        patched.setattr(packs_module, "write_pack", dying.die)
        with structlog.testing.capture_logs() as logs, pytest.raises(BrokenProcessPool):
            await packs.offer(request)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["pack.failed"]
    assert (await packs.offer(request)).digest is not None
    await packs.close()
