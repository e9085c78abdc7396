"""Files of bundles that came by another way than a pack (a stick, another truck): whole and verified, until they are
built into a version.

One file per digest in `content/.inbox`, published by fsync, rename and fsync of the folder; a copy that broke off goes
on where it was, once its beginning was hashed again. Everything blocks: call it in a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from protocol.documents import ManifestFile
from protocol.errors import MalformedError
from protocol.numbers import STICK_CHUNK_BYTES
from store.files import sync_folder

_NAME: Final = re.compile(r"^[0-9a-f]{64}\Z")
_PARTIAL: Final = ".part"


class Inbox:
    """The verified files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def places(self) -> dict[bytes, Path]:
        """Return where each digest is that has arrived whole."""
        if not self.folder.is_dir():
            return {}
        return {bytes.fromhex(path.name): path for path in self.folder.iterdir() if _NAME.match(path.name)}

    def sizes(self) -> dict[bytes, int]:
        """Return how long each of them is."""
        return {digest: path.stat().st_size for digest, path in self.places().items()}

    def take(
        self, file: ManifestFile, chunks: Callable[[int], Iterator[bytes]], advance: Callable[[int], None]
    ) -> None:
        """Copy a file in, unless it is here; `chunks(number)` yields it from a chunk of STICK_CHUNK_BYTES on.

        Raises `MalformedError` for contents that are not those that were signed (then nothing is left of it), and what
        `chunks` raises (then its beginning is left, and it goes on from there next time).
        """
        if file.digest in self.places():
            advance(file.size)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / (file.digest.hex() + _PARTIAL)
        if not self._copy(file, partial, chunks, advance, resume=True):
            # A beginning that rotted here is not the source's fault.
            advance(-file.size)
            if not self._copy(file, partial, chunks, advance, resume=False):
                raise MalformedError(f"{file.path} does not have the contents that were signed")
        partial.replace(self.folder / file.digest.hex())
        sync_folder(self.folder)

    def _copy(
        self,
        file: ManifestFile,
        partial: Path,
        chunks: Callable[[int], Iterator[bytes]],
        advance: Callable[[int], None],
        *,
        resume: bool,
    ) -> bool:
        """Write the file to `partial`; return whether it has its digest, and leave nothing of it if not."""
        hashed = hashlib.sha256()
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            count = 0
            while resume and (chunk := os.pread(descriptor, STICK_CHUNK_BYTES, count * STICK_CHUNK_BYTES)):
                if len(chunk) < STICK_CHUNK_BYTES or (count + 1) * STICK_CHUNK_BYTES > file.size:
                    break
                hashed.update(chunk)
                advance(len(chunk))
                count += 1
            at = count * STICK_CHUNK_BYTES
            os.ftruncate(descriptor, at)
            if at < file.size:
                for chunk in chunks(count):
                    data = memoryview(chunk)
                    if at + len(data) > file.size:
                        raise MalformedError(f"{file.path} is longer than was signed")
                    hashed.update(data)
                    while data:
                        written = os.pwrite(descriptor, data, at)
                        at, data = at + written, data[written:]
                    advance(len(chunk))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if at == file.size and hashed.digest() == file.digest:
            return True
        partial.unlink()
        return False

    def forget(self, digests: Iterable[bytes]) -> None:
        """Delete files that are built into a version by now."""
        for digest in digests:
            (self.folder / digest.hex()).unlink(missing_ok=True)

    def clean(self, wanted: frozenset[bytes]) -> int:
        """Delete what no bundle that is wanted needs any more; return how many files went."""
        gone = 0
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else []:
            name = path.name.removesuffix(_PARTIAL)
            if not _NAME.match(name) or bytes.fromhex(name) not in wanted:
                path.unlink()
                gone += 1
        return gone
