"""A folder of immutable byte strings, each a file named by its SHA-256; used by gateways and trucks.

A blob appears under its name whole and verified, or not at all: it is written to a partial file, hashed, fsynced,
renamed, and the folder is fsynced. Partial uploads resume at their length, also after a restart; what a crash left
unsynced in one shows when the hash does not hold. Digests come as 32 bytes, so no name from outside reaches a path;
`digest_from_hex` is the border for those that arrive as text. Links are never followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from protocol.errors import MalformedError
from protocol.numbers import DIGEST_BYTES
from store.errors import DigestMismatchError, QuotaExceededError, StoreError
from store.files import TEMPORARY_PREFIX, sync_folder

READ_BYTES: Final = 1 << 20
_HEX: Final = re.compile(r"[0-9a-f]{64}")


def digest_from_hex(text: str) -> bytes:
    """Return the digest that 64 lower-case hexadecimal digits spell; raise `MalformedError` for anything else."""
    if not _HEX.fullmatch(text):
        raise MalformedError("a blob is named by 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


def digest_of_file(path: Path) -> bytes:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


class BlobStore:
    """The blobs below `root` (made if need be): `ab/abcd...` whole ones, `partial/abcd...` those still coming."""

    def __init__(self, root: Path, *, bytes_max: int | None = None) -> None:
        """Open the folder and clean what a crash left. `bytes_max` bounds each blob; None is no bound."""
        self.root = root
        self.bytes_max = bytes_max
        self._partial = root / "partial"
        self._corrupt = root / "corrupt"
        self._partial.mkdir(parents=True, exist_ok=True)
        for leftover in [*root.glob(f"??/{TEMPORARY_PREFIX}*"), *self._partial.glob(f"{TEMPORARY_PREFIX}*")]:
            leftover.unlink()

    def path(self, digest: bytes) -> Path:
        """Return where the blob of this digest lies, or would lie."""
        name = _name(digest)
        return self.root / name[:2] / name

    def has(self, digest: bytes) -> bool:
        """Return whether the whole blob is here."""
        return self.path(digest).is_file()

    def size(self, digest: bytes) -> int | None:
        """Return the blob's size in bytes, or None when it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def open(self, digest: bytes) -> BinaryIO:
        """Open a blob for reading; raise `FileNotFoundError`."""
        file = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return os.fdopen(file, "rb")

    def read(self, digest: bytes, first: int, count: int) -> bytes:
        """Return up to `count` bytes from byte `first` on; raise `FileNotFoundError`."""
        with self.open(digest) as stream:
            return os.pread(stream.fileno(), count, first)

    def digests(self) -> Iterator[bytes]:
        """Yield the digests of all whole blobs, in ascending order."""
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for each in sorted(folder.iterdir()):
                if _HEX.fullmatch(each.name):
                    yield bytes.fromhex(each.name)

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, digest: bytes, chunks: Iterable[bytes]) -> Path:
        """Store a whole blob from its chunks; return its path. Raises `DigestMismatchError`, `QuotaExceededError`."""
        if self.has(digest):
            return self.path(digest)
        self.discard_partial(digest)
        offset = 0
        for chunk in chunks:
            offset = self.append(digest, offset, chunk)
        if offset == 0:
            self.append(digest, 0, b"")
        return self.finish(digest)

    def partial_size(self, digest: bytes) -> int:
        """Return how many bytes of a blob have come so far: where its upload resumes. 0 when none have."""
        try:
            return self._partial_path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, digest: bytes, offset: int, data: bytes) -> int:
        """Add bytes to a partial blob at its end and return its new size; raise `StoreError` for another offset."""
        size = self.partial_size(digest)
        if offset != size:
            raise StoreError(f"the upload resumes at byte {size}, not {offset}")
        if self.bytes_max is not None and size + len(data) > self.bytes_max:
            self.discard_partial(digest)
            raise QuotaExceededError(f"a blob here has at most {self.bytes_max} bytes")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._partial_path(digest), flags, 0o600), "ab") as stream:
            stream.write(data)
        return size + len(data)

    def finish(self, digest: bytes) -> Path:
        """Verify a partial blob and give it its name, durably; a wrong one is discarded.

        Raises `DigestMismatchError`, and `FileNotFoundError` when nothing has come of it.
        """
        if self.has(digest):
            self.discard_partial(digest)
            return self.path(digest)
        return self.adopt(digest, self._partial_path(digest))

    def adopt(self, digest: bytes, source: Path) -> Path:
        """Move a file on the same file system in as a blob, verified and durable; a wrong one is deleted and raises."""
        target = self.path(digest)
        if digest_of_file(source) != digest:
            source.unlink()
            raise DigestMismatchError(
                f"the bytes for {_name(digest)[:12]} do not have that digest; they were discarded"
            )
        with source.open("rb") as stream:
            os.fsync(stream.fileno())
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            sync_folder(self.root)
        source.chmod(0o644)
        source.rename(target)
        sync_folder(target.parent)
        return target

    def copy_in(self, digest: bytes, source: Path) -> Path:
        """Store a copy of a file from anywhere (a courier's stick), verified."""
        if self.has(digest):
            return self.path(digest)
        partial = self._partial / (TEMPORARY_PREFIX + _name(digest))
        try:
            shutil.copyfile(source, partial)
            return self.adopt(digest, partial)
        finally:
            partial.unlink(missing_ok=True)

    def discard_partial(self, digest: bytes) -> None:
        """Forget what has come of a blob so far."""
        self._partial_path(digest).unlink(missing_ok=True)

    def delete(self, digest: bytes) -> bool:
        """Delete a blob; return whether it was there."""
        path = self.path(digest)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        sync_folder(path.parent)
        return True

    def scrub(self) -> tuple[bytes, ...]:
        """Hash every blob again; move those that rotted to `corrupt/` (fetch them anew) and return their digests."""
        rotten = []
        for digest in self.digests():
            if digest_of_file(self.path(digest)) != digest:
                self._corrupt.mkdir(exist_ok=True)
                self.path(digest).rename(self._corrupt / _name(digest))
                sync_folder(self.path(digest).parent)
                rotten.append(digest)
        return tuple(rotten)

    def _partial_path(self, digest: bytes) -> Path:
        return self._partial / _name(digest)


def _name(digest: bytes) -> str:
    if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
        raise MalformedError(f"a digest has {DIGEST_BYTES} bytes")
    return digest.hex()
