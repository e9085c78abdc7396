"""Packs on the gateway: made once for each way from one set of held files to a manifest, in worker processes, and kept.

Trucks with the same history share a pack. Making one may take minutes: a truck is told when to ask again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import structlog

from gateway.packing import encode
from protocol import cose
from protocol.documents import Manifest, ManifestFile, parse_document
from protocol.errors import PeerError
from protocol.messages import PackOffer, PackRequest
from protocol.numbers import PIECE_BYTES, DocumentKind
from protocol.pack import encode_pack, wanted_files
from protocol.pack.decoder import list_held
from protocol.pack.profile import Profile
from protocol.wire import Digest, Uint, WireArray
from store.blobs import BlobStore
from store.files import TEMPORARY_PREFIX, publish
from store.fleet.fleet import FleetStore

log = structlog.get_logger("gateway.packs")

_READ_BYTES = 1 << 20
_ANSWER_S = 2.0
_ASK_AGAIN_S = 5
_BUSY_S = 60
_RUNNING_MAX = 64
_BYTES_MAX = 32 << 30
_ASKED = "asked"


class PackEntry(WireArray, frozen=True):
    """What is kept about a finished pack: its digest and size in bytes."""

    digest: Digest
    size: Uint


class AskedPack(WireArray, frozen=True):
    """What is kept about a truck's request: itself, and the digest and size (bytes) of the pack that answers it."""

    request: bytes
    digest: Digest
    size: Uint


class Packs:
    """Makes, keeps and hands out packs and every other object that trucks fetch in pieces."""

    def __init__(
        self, folder: Path, blobs: BlobStore, fleet: FleetStore, *, workers: int = 1, bytes_max: int = _BYTES_MAX
    ) -> None:
        """Keep packs in `folder`, of at most `bytes_max` in all: those not offered for longest go first."""
        self._folder = folder
        self._blobs = blobs
        self._fleet = fleet
        self._worker_count = workers
        self._bytes_max = bytes_max
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*self._folder.glob("*.new"), *self._folder.glob(f"{TEMPORARY_PREFIX}*")):
            leftover.unlink()
        self._workers = self._new_workers()
        self._running: dict[str, asyncio.Task[PackEntry]] = {}

    async def offer(self, request: PackRequest) -> PackOffer:
        """Return the pack that leads to a manifest from the held ones, or when to ask again; raise `PeerError`."""
        key = cose.digest(request.encode()).hex()
        entry = self._entry(key)
        if entry is None:
            task = self._running.get(key)
            if task is None:
                if len(self._running) >= _RUNNING_MAX:
                    return PackOffer(wait_s=_BUSY_S)
                task = self._running[key] = asyncio.create_task(self._make(key, request))
                task.add_done_callback(lambda done: self._finished(key, done))
            done, _ = await asyncio.wait({task}, timeout=_ANSWER_S)
            if not done:
                return PackOffer(wait_s=_ASK_AGAIN_S)
            entry = task.result()
        os.utime(self._folder / f"{entry.digest.hex()}.pack")
        return PackOffer(digest=entry.digest, size=entry.size)

    def note_asked(self, truck: str, request: PackRequest, offer: PackOffer) -> None:
        """Note what a truck was offered: a courier can bring it the very same pack. Blocks."""
        if offer.digest is None:
            return
        folder = self._folder / _ASKED / truck
        folder.mkdir(parents=True, exist_ok=True)
        path, data = folder / request.manifest.hex(), AskedPack(request.encode(), offer.digest, offer.size).encode()
        if not path.exists() or path.read_bytes() != data:
            publish(path, data)

    def asked(self, truck: str) -> list[tuple[PackRequest, PackEntry]]:
        """Return what a truck was offered and is still here; what is gone is forgotten. Blocks."""
        found = []
        for path in sorted((self._folder / _ASKED / truck).glob("[0-9a-f]*")):
            try:
                noted = AskedPack.decode(path.read_bytes())
                request = PackRequest.decode(noted.request)
            except PeerError:
                path.unlink()
                continue
            if self.path(noted.digest).exists():
                found.append((request, PackEntry(noted.digest, noted.size)))
            else:
                path.unlink()
        return found

    def path(self, digest: bytes) -> Path:
        """Return where a pack is, if it is here."""
        return self._folder / f"{digest.hex()}.pack"

    def read_pieces(self, digest: bytes, wanted: Sequence[int]) -> list[bytes] | None:
        """Return pieces of a pack or of a bundle's file, empty ones beyond its end, or None when it is not here.

        A file by itself is what a truck asks for when its own has rotted.
        """
        path = self._folder / f"{digest.hex()}.pack"
        try:
            with (path if path.exists() else self._blobs.path(digest)).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                # No reading where no file reaches, which fails.
                return [
                    os.pread(file.fileno(), PIECE_BYTES, piece * PIECE_BYTES) if piece * PIECE_BYTES < size else b""
                    for piece in wanted
                ]
        except FileNotFoundError:
            return None

    async def close(self) -> None:
        """Stop the workers; what they were making is made again when it is asked for."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _new_workers(self) -> ProcessPoolExecutor:
        # A forked worker would inherit the event loop's sockets: it starts from nothing instead.
        return ProcessPoolExecutor(self._worker_count, mp_context=get_context("spawn"))

    def _finished(self, key: str, task: asyncio.Task[PackEntry]) -> None:
        """Note how a pack went: nobody may be waiting any more, and whoever asks next has it made anew."""
        del self._running[key]
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("pack.failed", pack=key[:16], error=f"{type(error).__name__}: {error}")

    def _entry(self, key: str) -> PackEntry | None:
        try:
            entry = PackEntry.decode((self._folder / f"{key}.entry").read_bytes())
        except (FileNotFoundError, PeerError):
            return None
        return entry if (self._folder / f"{entry.digest.hex()}.pack").exists() else None

    async def _make(self, key: str, request: PackRequest) -> PackEntry:
        manifest = await self._manifest(request.manifest)
        profile = Profile.decode(request.profile) if request.profile else None
        held = list_held([(await self._manifest(digest)).files for digest in request.held])
        wanted = [(file, self._blobs.path(file.digest)) for file in wanted_files(manifest, held)]
        bases = [self._blobs.path(digest) for digest in held]
        missing = [path for path in (*(path for _, path in wanted), *bases) if not path.exists()]
        if missing:
            raise PeerError(
                f"{len(missing)} files of {manifest.name} are not at the gateway yet: push the bundle again"
            )
        log.info("pack.started", bundle=manifest.name, version=manifest.version, objects=len(wanted))
        loop = asyncio.get_running_loop()
        workers = self._workers
        try:
            entry = await loop.run_in_executor(
                workers, write_pack, wanted, bases, profile, request.views, self._folder, key
            )
        except BrokenProcessPool:
            # A worker was killed, by the kernel for its memory as a rule; its pool takes no work any more.
            if self._workers is workers:
                workers.shutdown(wait=False)
                self._workers = self._new_workers()
            raise
        log.info("pack.finished", bundle=manifest.name, version=manifest.version, bytes=entry.size)
        self._make_room(entry)
        return entry

    def _make_room(self, newest: PackEntry) -> None:
        packs = [(path.stat(), path) for path in self._folder.glob("*.pack") if path.stem != newest.digest.hex()]
        packs.sort(key=lambda each: each[0].st_mtime)
        total = newest.size + sum(stat.st_size for stat, _ in packs)
        for stat, path in packs:
            if total <= self._bytes_max:
                return
            path.unlink()
            total -= stat.st_size
            log.info("pack.evicted", pack=path.stem[:16], bytes=stat.st_size)

    async def _manifest(self, digest: bytes) -> Manifest:
        record = await self._fleet.document(digest)
        if record is None or record.kind is not DocumentKind.MANIFEST:
            raise PeerError("no such manifest is here")
        manifest, _ = parse_document(record.signed, Manifest)
        return manifest


def write_pack(
    wanted: Sequence[tuple[ManifestFile, Path]],
    held: Sequence[Path],
    profile: Profile | None,
    views: int,
    place: Path,
    key: str,
) -> PackEntry:
    """Make one pack (in a worker process); it is published whole, then named by `key`.

    A truck that sends no profile of its decoders gets a plain pack.
    """
    temporary = place / f"{key}.new"
    size = 0
    chunks = encode_pack(_contents(wanted)) if profile is None else encode(wanted, held, profile=profile, views=views)
    with temporary.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    digest = _file_digest(temporary)
    temporary.rename(place / f"{digest.hex()}.pack")
    entry = PackEntry(digest, size)
    publish(place / f"{key}.entry", entry.encode())
    return entry


def _contents(wanted: Sequence[tuple[ManifestFile, Path]]) -> Iterator[bytes]:
    for _, path in wanted:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
