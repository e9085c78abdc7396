"""A download that comes in pieces, in any order, over weeks: a file of full size and a journal of the pieces it holds.

The journal never runs ahead of the disk: the file is fsynced before the transaction that notes its pieces commits, so
after a crash a piece is believed only if its bytes are there; at most `SYNC_BYTES` of new data come again. Identity is
the digest alone: another link, address or session goes on with the same pieces. All methods run where the database
is used (the writer thread); the fsync inside its transaction is what keeps the order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from protocol.errors import MalformedError
from protocol.numbers import DIGEST_BYTES, PIECE_BYTES
from store.blobs import digest_of_file
from store.database import Database
from store.errors import DigestMismatchError, QuotaExceededError, StoreError
from store.files import sync_folder

SYNC_BYTES: Final = 64 * 1024
# Bits of the journal in one row: the journal of a large download is rewritten where it changes, not as a whole.
CHUNK_PIECES: Final = 4_096
_SUFFIX: Final = ".part"


class Staging:
    """One download of `size` bytes below `folder`; opening it again resumes it."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        digest: bytes,
        size: int,
        piece_bytes: int = PIECE_BYTES,
        *,
        bytes_max: int | None = None,
    ) -> None:
        """Make or resume the download. Raises `QuotaExceededError` over `bytes_max`, `OSError` on a full disk."""
        if len(digest) != DIGEST_BYTES or size < 1 or piece_bytes < 1:
            raise ValueError("a download has a 32-byte digest, at least one byte and pieces of at least one byte")
        if bytes_max is not None and size > bytes_max:
            raise QuotaExceededError(f"a download of {size} bytes is larger than its share of {bytes_max}")
        self.digest = digest
        self.size = size
        self.piece_bytes = piece_bytes
        self.pieces = -(-size // piece_bytes)
        self.path = folder / (digest.hex() + _SUFFIX)
        self._database = database
        self._held = bytearray(-(-self.pieces // 8))
        self._held_count = 0
        self._fresh: set[int] = set()  # written since the last sync
        self._fresh_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._file = -1
        self._resume()

    def _resume(self) -> None:
        with self._database.atomic():
            key = {"digest": self.digest}
            row = self._database.row("SELECT size, piece_bytes FROM stagings WHERE digest = :digest", key)
            if row != (self.size, self.piece_bytes) or not self._has_whole_file():
                # Nothing that the journal says of another shape, or of a file that is gone, can be believed.
                self._database.delete("staging_bits", "digest = :digest", key)
                values = {**key, "size": self.size, "piece_bytes": self.piece_bytes}
                self._database.insert("stagings", values, conflict="REPLACE")
            for chunk, bits in self._database.rows("SELECT chunk, bits FROM staging_bits WHERE digest = :digest", key):
                start = chunk * CHUNK_PIECES // 8
                self._held[start : start + len(bits)] = bits
        self._held_count = int.from_bytes(self._held, "little").bit_count()
        if self._held_count < self.pieces or not self.path.exists():
            self._open_file()

    def _has_whole_file(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size == self.size

    def _open_file(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.fstat(self._file).st_size != self.size:
            os.ftruncate(self._file, self.size)
            # A disk that is too small says so now, not after weeks of paying for pieces.
            os.posix_fallocate(self._file, 0, self.size)
            os.fsync(self._file)
            sync_folder(self.path.parent)

    # -- pieces -------------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many pieces are held."""
        return self._held_count

    @property
    def is_full(self) -> bool:
        """Whether every piece is held (and `complete` may be called)."""
        return self._held_count == self.pieces

    def has(self, index: int) -> bool:
        """Return whether a piece is held."""
        return bool(self._held[index >> 3] >> (index & 7) & 1)

    def missing(self) -> Iterator[int]:
        """Yield the indexes of the pieces that are not held, in ascending order."""
        for at, octet in enumerate(bytes(self._held)):
            if octet != 0xFF:
                for index in range(8 * at, min(8 * at + 8, self.pieces)):
                    if not octet >> (index & 7) & 1:
                        yield index

    def expected_bytes(self, index: int) -> int:
        """Return the length that a piece must have."""
        return min(self.piece_bytes, self.size - index * self.piece_bytes)

    def put(self, index: int, data: bytes) -> bool:
        """Take a piece; return False when it was held already. Durable by the next `sync`, which comes by itself.

        Raises `MalformedError` for a piece that the download does not have or of another length.
        """
        if not 0 <= index < self.pieces or len(data) != self.expected_bytes(index):
            raise MalformedError(f"piece {index} of {len(data)} bytes is not one of this download")
        if self.has(index):
            return False
        if self._file < 0:
            raise StoreError("this download was completed, discarded or closed")
        written = os.pwrite(self._file, data, index * self.piece_bytes)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written")
        self._held[index >> 3] |= 1 << (index & 7)
        self._held_count += 1
        self._fresh.add(index)
        self._fresh_bytes += len(data)
        if self._fresh_bytes >= SYNC_BYTES or self.is_full:
            self.sync()
        return True

    def sync(self) -> None:
        """Make the pieces taken so far durable, then note them; when the disk fails they are missing again."""
        if not self._fresh:
            return
        try:
            os.fdatasync(self._file)
        except OSError:
            # After a failed fsync the kernel may have dropped the pages: what was not synced is not there.
            for index in self._fresh:
                self._held[index >> 3] &= ~(1 << (index & 7))
            self._held_count -= len(self._fresh)
            self._fresh.clear()
            self._fresh_bytes = 0
            raise
        with self._database.atomic():
            for chunk in {index // CHUNK_PIECES for index in self._fresh}:
                start = chunk * CHUNK_PIECES // 8
                bits = bytes(self._held[start : start + CHUNK_PIECES // 8])
                values = {"digest": self.digest, "chunk": chunk, "bits": bits}
                self._database.insert("staging_bits", values, conflict="REPLACE")
        self._fresh.clear()
        self._fresh_bytes = 0

    # -- ends ---------------------------------------------------------------------------------------------------------

    def complete(self) -> Path:
        """Verify the whole file and return its path, for `BlobStore.adopt` or unpacking; then call `forget`.

        Raises `StoreError` while pieces are missing, and `DigestMismatchError` after discarding a file that is wrong.
        """
        if not self.is_full:
            raise StoreError(f"{self.pieces - self._held_count} pieces are missing")
        self.sync()
        if digest_of_file(self.path) != self.digest:
            self.discard()
            raise DigestMismatchError(f"the download {self.digest.hex()[:12]} does not have its digest; it starts over")
        self.close()
        return self.path

    def close(self) -> None:
        """Stop for now: sync, and let go of the file."""
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        """Give the download up: no file, no journal."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._fresh.clear()
        self.forget()
        self.path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop the journal of a download whose file has moved on."""
        self._database.delete("stagings", "digest = :digest", {"digest": self.digest})


def staged(database: Database) -> tuple[bytes, ...]:
    """Return the digests of all downloads under way."""
    return tuple(digest for (digest,) in database.rows("SELECT digest FROM stagings ORDER BY digest"))


def clean(database: Database, folder: Path) -> tuple[str, ...]:
    """Delete staged files that no journal knows (their database was damaged); return their names. Call at start."""
    known = {digest.hex() + _SUFFIX for digest in staged(database)}
    orphans = [each for each in sorted(folder.glob("*" + _SUFFIX)) if each.name not in known]
    for each in orphans:
        each.unlink()
    return tuple(each.name for each in orphans)
