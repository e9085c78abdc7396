"""Content that rotted: found by hashing every file again, mended from a good copy here, else fetched by its digest.

A file that is damaged is replaced by one rename, in every version that has it; until then the bundle goes on being
served. What has to be fetched is remembered over restarts and costs the file's own bytes, not the bundle's.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from edge.fetch import Fetch
from edge.installer import Installer
from protocol.documents import ManifestFile
from protocol.errors import DigitruckError
from protocol.numbers import DIGEST_BYTES, Precedence
from store.files import TEMPORARY_PREFIX, sync_folder
from store.settings import Settings
from store.writer import Writer

log = structlog.get_logger("edge.scrubbing")

_ROTTEN: Final = "content.rotten"
_ROTTEN_MAX: Final = 4_096
_RETRY_FIRST_S, _RETRY_MAX_S = 60.0, 21_600.0


@dataclass
class Scrubbed:
    """What a scrub found: files and bytes looked at, paths that were damaged, how many were mended at once."""

    files: int = 0
    read_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    mended: int = 0
    wanted: dict[bytes, int] = field(default_factory=dict)  # digest -> size, of what no good copy is here


def scrub(installer: Installer, told: Callable[[int, int], None]) -> Scrubbed:
    """Hash every file of every version; mend what can be mended from a good copy. Blocks for as long as that takes."""
    places: dict[bytes, tuple[ManifestFile, list[Path]]] = {}
    for each in installer.installed():
        for file in each.manifest.files:
            places.setdefault(file.digest, (file, []))[1].append(each.path / file.path)
    found = Scrubbed()
    total = sum(file.size for file, _ in places.values())
    for digest, (file, paths) in places.items():
        state = _look(file, paths)
        found.files += len(paths)
        found.read_bytes += file.size
        told(found.read_bytes, total)
        bad = [path for path, good in state.items() if not good]
        good = next((path for path, is_good in state.items() if is_good), installer.inbox.places().get(digest))
        found.damaged += [str(path.relative_to(installer.root)) for path in bad]
        if bad and good is not None and _is_file(good, file):
            replace_with(good, bad)
            found.mended += len(bad)
        elif bad:
            found.wanted[digest] = file.size
    return found


def _look(file: ManifestFile, paths: list[Path]) -> dict[Path, bool]:
    """Return which of the paths hold what they should; links to one file are read once."""
    seen: dict[tuple[int, int], bool] = {}
    state: dict[Path, bool] = {}
    for path in paths:
        try:
            about = path.lstat()
        except OSError:
            state[path] = False
            continue
        key = about.st_dev, about.st_ino
        if key not in seen:
            seen[key] = _is_file(path, file)
        state[path] = seen[key]
    return state


def _is_file(path: Path, file: ManifestFile) -> bool:
    try:
        if path.is_symlink() or path.stat().st_size != file.size:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest() == file.digest
    except OSError:
        return False


def replace_with(good: Path, bad: list[Path]) -> None:
    """Put a good copy in the place of damaged files, each by one rename."""
    for path in bad:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        temporary = path.with_name(TEMPORARY_PREFIX + path.name[:200])
        temporary.unlink(missing_ok=True)
        os.link(good, temporary)
        temporary.replace(path)
        sync_folder(path.parent)


class Repairs:
    """Fetches what rotted and puts it in its place."""

    def __init__(
        self,
        installer: Installer,
        settings: Settings,
        writer: Writer,
        *,
        start_fetch: Callable[[bytes, int, Precedence, str], Awaitable[Fetch]],
    ) -> None:
        self._installer = installer
        self._settings = settings
        self._writer = writer
        self._start_fetch = start_fetch
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()

    async def mend_now(self) -> bool:
        """Look for what rotted and have it mended; return whether something had rotted and all is whole again."""
        found = await asyncio.to_thread(scrub, self._installer, lambda done, total: None)
        if not found.wanted:
            return found.mended > 0
        self._tried.clear()
        await self.want(found.wanted)
        await self._tried.wait()
        return not await self.wanted()

    async def want(self, rotten: dict[bytes, int]) -> None:
        """Remember files (digest and size) to be fetched, in place of those remembered before."""
        data = b"".join(digest + size.to_bytes(8, "big") for digest, size in list(rotten.items())[:_ROTTEN_MAX])
        await self._writer.run(lambda: self._settings.put(_ROTTEN, data))
        self._wake.set()

    async def wanted(self) -> dict[bytes, int]:
        """Return what is still to be fetched."""
        data = await self._writer.run(lambda: self._settings.get(_ROTTEN)) or b""
        step = DIGEST_BYTES + 8
        rows = [data[at : at + step] for at in range(0, len(data) - step + 1, step)]
        return {row[:DIGEST_BYTES]: int.from_bytes(row[DIGEST_BYTES:], "big") for row in rows}

    async def run(self) -> None:
        """Work until cancelled."""
        pause_s = _RETRY_FIRST_S
        while True:
            self._wake.clear()
            is_whole = await self._mend_all()
            self._tried.set()
            if is_whole:
                pause_s = _RETRY_FIRST_S
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pause_s = min(_RETRY_MAX_S, 2 * pause_s)

    async def _mend_all(self) -> bool:
        """Fetch what rotted, one file after another; return whether nothing is left."""
        left = await self.wanted()
        for digest, size in list(left.items()):
            try:
                if size:
                    await self._mend(digest, size)
            except (DigitruckError, OSError) as failure:
                log.warning("content.not_mended", file=digest.hex()[:16], reason=str(failure))
                continue
            del left[digest]
            await self.want(left)
            self._wake.clear()
        return not left

    async def _mend(self, digest: bytes, size: int) -> None:
        bad = await asyncio.to_thread(self._bad, digest, size)
        if not bad:
            return  # its version is gone, or was installed anew
        fetch = await self._start_fetch(digest, size, Precedence.BULK, "content")
        path = await fetch.run()
        await asyncio.to_thread(replace_with, path, bad)
        await fetch.discard()
        log.info("content.mended", file=digest.hex()[:16], places=len(bad))

    def _bad(self, digest: bytes, size: int) -> list[Path]:
        file = ManifestFile("x", size, digest)
        paths = [
            each.path / held.path
            for each in self._installer.installed()
            for held in each.manifest.files
            if held.digest == digest
        ]
        return [path for path, good in _look(file, paths).items() if not good]
