"""Giving a courier what this truck has: its parcels that wait, sealed for the gateway; content for another truck.

Parcels go as they are, signed, most urgent first, in files that are whole or not there; they stay queued until the
gateway says that it has them, so a stick that is lost or comes late costs nothing but time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.believed import exchange_keys
from protocol.errors import LocalError
from protocol.messages import Carried, Upload
from protocol.numbers import PARCELS_IN_UPLOAD_MAX, STICK_CHUNK_BYTES, STICK_UPLOADS_BYTES_MAX
from store.carrying import epochs_waiting, waiting
from store.parcels import Queued
from store.sealing import INFO_UP, seal
from store.stickfolder import StickFolder, StickFullError
from store.stickobjects import ObjectForm, write_object

if TYPE_CHECKING:
    from edge.daemon import Edge
    from edge.stickimport import Told

_PAGE: Final = 500
_UPLOAD_BYTES: Final = 40 * 1024  # well below the limit of a CBOR message
_FILE_BYTES: Final = STICK_UPLOADS_BYTES_MAX - (64 << 10)
_FILE_PARCELS: Final = 2_000  # bounds the memory that one file takes; small batches lose little to it


@dataclass(frozen=True, slots=True)
class Given:
    """What a courier was given: parcels, files and bytes of content."""

    parcels: int
    bytes: int
    content: tuple[str, ...] = ()


class StickExport:
    """One export from a running truck to the folder at `path`."""

    def __init__(self, edge: Edge, path: Path, told: Told) -> None:
        self._edge = edge
        self._folder = StickFolder(path)
        self._told = told

    async def run(self, bundles: tuple[str, ...]) -> Given:
        """Write all parcels that wait, then the active versions of some bundles; raise `StickError`, `LocalError`."""
        edge = self._edge
        await asyncio.to_thread(self._folder.create)
        # Rows of batches that are still open go along: the next courier may be weeks away.
        await edge.recorder.close_all()
        parcels, size = await self._parcels()
        for name in bundles:
            await self._content(name)
        return Given(parcels, size, bundles)

    async def _parcels(self) -> tuple[int, int]:
        truck = self._edge.enrolment.truck
        before = {name for owner, name in await asyncio.to_thread(self._folder.uploads) if owner == truck}
        written: set[str] = set()
        count = size = 0
        try:
            for epoch in await self._edge.writer.run(partial(epochs_waiting, self._edge.state)):
                async for parcels in self._files(epoch):
                    sequences = [each.sequence for each in parcels]
                    name = f"up/{truck}/{epoch:016x}-{min(sequences)}-{max(sequences)}"
                    data = self._sealed(epoch, parcels)
                    await asyncio.to_thread(self._folder.write, name, data)
                    written.add(name)
                    count, size = count + len(parcels), size + len(data)
                    self._told("writing parcels", size, 0)
        except StickFullError as error:
            raise StickFullError(f"{error} ({count} parcels are on it, the most urgent first; none is lost)") from error
        for name in before - written:
            await asyncio.to_thread(self._folder.remove, name)
        return count, size

    async def _files(self, epoch: int) -> AsyncIterator[list[Queued]]:
        """Yield an epoch's waiting parcels, in the order of urgency, as many at a time as one file takes."""
        after = (-1, 0)
        batch: list[Queued] = []
        while page := await self._edge.writer.run(partial(waiting, self._edge.state, epoch, after, _PAGE)):
            after = page[-1].precedence, page[-1].sequence
            for each in page:
                if batch and (len(batch) >= _FILE_PARCELS or sum(len(b.sealed) + 8 for b in batch) > _FILE_BYTES):
                    yield batch
                    batch = []
                batch.append(each)
        if batch:
            yield batch

    def _sealed(self, epoch: int, parcels: list[Queued]) -> bytes:
        uploads = tuple(
            Upload(parcels=tuple(each.sealed for each in group), epoch=epoch).encode() for group in _grouped(parcels)
        )
        key = exchange_keys(self._edge.trust, self._edge.enrolment)[0]
        carried = Carried(self._edge.enrolment.truck, uploads)
        return bytes([1, key.number]) + seal(key.key, carried.encode(), INFO_UP)

    async def _content(self, name: str) -> None:
        installed = self._edge.installer.active(name)
        if installed is None:
            raise LocalError(f"no bundle {name} is active here: digitruck-edge status lists them")
        files = {file.digest: file for file in installed.manifest.files if file.size}
        total, done = sum(file.size for file in files.values()), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._told(f"writing {name}", done, total)

        for file in files.values():
            form, source = ObjectForm(file.digest, file.size, None), installed.path / file.path
            await asyncio.to_thread(write_object, self._folder, form, partial(_blocks, source), advance)


def _grouped(parcels: list[Queued]) -> Iterator[list[Queued]]:
    """Yield parcels as many at a time as an upload takes."""
    group: list[Queued] = []
    size = 0
    for each in parcels:
        if group and (len(group) >= PARCELS_IN_UPLOAD_MAX or size + len(each.sealed) > _UPLOAD_BYTES):
            yield group
            group, size = [], 0
        group.append(each)
        size += len(each.sealed) + 4
    if group:
        yield group


def _blocks(path: Path, offset: int) -> Generator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(STICK_CHUNK_BYTES):
            yield block
