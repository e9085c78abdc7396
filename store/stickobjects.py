"""Objects on a courier's stick: cut into chunks that may be sealed, and into files that FAT can hold (SPEC.md 9)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from protocol.errors import MalformedError
from protocol.numbers import STICK_CHUNK_BYTES, STICK_CHUNK_TAG_BYTES, STICK_PART_CHUNKS
from store.errors import DigestMismatchError
from store.sealing import ChunkCipher, ObjectSeal
from store.stickfolder import StickFolder, StickFullError, object_path

Fetch = Callable[[int], Generator[bytes]]
"""Called with an offset in bytes; yields an object from there on."""


class ObjectForm:
    """How one object lies on a stick: its name, the length of its chunks there, and what opens them."""

    def __init__(self, digest: bytes, size: int, seal: ObjectSeal | None) -> None:
        self.digest = digest
        self.size = size
        self.name = digest if seal is None else seal.name(digest)
        self._cipher: ChunkCipher | None = None if seal is None else seal.cipher(digest)
        self.chunk_bytes = STICK_CHUNK_BYTES + (0 if seal is None else STICK_CHUNK_TAG_BYTES)
        self.chunks = -(-size // STICK_CHUNK_BYTES)

    def path(self, part: int) -> str:
        """Return where a part lies."""
        return object_path(self.name, part)

    def part_bytes(self, part: int) -> int:
        """Return how long a part's file is."""
        first = part * STICK_PART_CHUNKS
        chunks = range(first, min(self.chunks, first + STICK_PART_CHUNKS))
        return sum(self.stored_bytes(number) for number in chunks)

    def stored_bytes(self, number: int) -> int:
        """Return how long a chunk is on the stick."""
        plain = min(STICK_CHUNK_BYTES, self.size - number * STICK_CHUNK_BYTES)
        return plain + self.chunk_bytes - STICK_CHUNK_BYTES

    @property
    def parts(self) -> int:
        """How many files it has; an empty object has none."""
        return -(-self.chunks // STICK_PART_CHUNKS)

    def store(self, number: int, chunk: bytes) -> bytes:
        """Return a chunk as it lies on the stick."""
        return chunk if self._cipher is None else self._cipher.seal(number, chunk)

    def load(self, number: int, stored: bytes) -> bytes:
        """Return a chunk as it was; raise `PeerError` for one that is short or was changed."""
        if len(stored) != self.stored_bytes(number):
            raise MalformedError("an object on the stick is shorter than it must be")
        return stored if self._cipher is None else self._cipher.open(number, stored)


def read_chunks(folder: StickFolder, form: ObjectForm, first: int = 0) -> Iterator[bytes]:
    """Yield an object's chunks from number `first` on, opened; raise `MalformedError` where it ends too early."""
    number = first
    while number < form.chunks:
        part, within = divmod(number, STICK_PART_CHUNKS)
        blocks = folder.blocks(form.path(part), within * form.chunk_bytes, form.chunk_bytes)
        before = number
        for block in blocks:
            if number // STICK_PART_CHUNKS != part or number >= form.chunks:
                break
            yield form.load(number, block)
            number += 1
        if number == before:
            raise MalformedError("an object on the stick is shorter than it must be")


def leaves_of(path: Path) -> bytes:
    """Return the digests of a file's chunks, one after another: what tells a pack's good chunks from bad ones."""
    found = bytearray()
    with path.open("rb") as file:
        while chunk := file.read(STICK_CHUNK_BYTES):
            found += hashlib.sha256(chunk).digest()
    return bytes(found)


def is_whole(folder: StickFolder, form: ObjectForm) -> bool:
    """Return whether an object of the right length is there; its digest was checked as it was written."""
    return all(folder.size(form.path(part)) == form.part_bytes(part) for part in range(form.parts))


def write_object(folder: StickFolder, form: ObjectForm, fetch: Fetch, advance: Callable[[int], None]) -> None:
    """Write an object, going on where it broke off; `advance` hears of bytes done.

    Raises `DigestMismatchError` (then nothing of it is left), `StickFullError`, `StickError`.
    """
    hashed = hashlib.sha256()
    for part in range(form.parts):
        path, length = form.path(part), form.part_bytes(part)
        first = part * STICK_PART_CHUNKS
        if folder.size(path) == length:
            for chunk in _whole_part(folder, form, part):
                hashed.update(chunk)
                advance(len(chunk))
            continue
        with folder.writing(path) as file:
            begun = _begun(file, form, first, hashed, advance)
            if length - begun * form.chunk_bytes > folder.free_bytes():
                raise StickFullError(f"{folder.path} is full: {form.size} bytes do not fit any more; take a larger one")
            _append(file, form, first + begun, fetch, hashed, advance)
    if hashed.digest() != form.digest:
        for part in range(form.parts):
            folder.remove(form.path(part))
        raise DigestMismatchError("what was written does not have its digest; run the command again")


def _whole_part(folder: StickFolder, form: ObjectForm, part: int) -> Iterator[bytes]:
    number = part * STICK_PART_CHUNKS
    for block in folder.blocks(form.path(part), 0, form.chunk_bytes):
        yield form.load(number, block)
        number += 1


def _begun(file: int, form: ObjectForm, first: int, hashed: hashlib._Hash, advance: Callable[[int], None]) -> int:
    """Take what an interrupted writer left, up to its last whole chunk; return how many chunks that is."""
    count = 0
    while first + count < form.chunks and count < STICK_PART_CHUNKS:
        block = os.pread(file, form.chunk_bytes, count * form.chunk_bytes)
        try:
            chunk = form.load(first + count, block)
        except Exception:
            break
        hashed.update(chunk)
        advance(len(chunk))
        count += 1
    os.ftruncate(file, count * form.chunk_bytes)
    return count


def _append(
    file: int, form: ObjectForm, number: int, fetch: Fetch, hashed: hashlib._Hash, advance: Callable[[int], None]
) -> None:
    end = min(form.chunks, (number // STICK_PART_CHUNKS + 1) * STICK_PART_CHUNKS)
    at = (number % STICK_PART_CHUNKS) * form.chunk_bytes
    if number >= end:
        return
    blocks = fetch(number * STICK_CHUNK_BYTES)
    for chunk in _rechunked(blocks, form.size - number * STICK_CHUNK_BYTES):
        stored = memoryview(form.store(number, chunk))
        while stored:
            written = os.pwrite(file, stored, at)
            at, stored = at + written, stored[written:]
        hashed.update(chunk)
        advance(len(chunk))
        number += 1
        if number == end:
            blocks.close()
            return
    raise MalformedError("the object ended before its announced length; run the command again")


def _rechunked(blocks: Iterator[bytes], left: int) -> Iterator[bytes]:
    """Yield chunks of STICK_CHUNK_BYTES, the last one shorter, from blocks of any length; no more than `left` bytes."""
    pending = bytearray()
    for block in blocks:
        pending += block
        while len(pending) >= STICK_CHUNK_BYTES or len(pending) >= left > 0:
            chunk = bytes(pending[: min(STICK_CHUNK_BYTES, left)])
            del pending[: len(chunk)]
            left -= len(chunk)
            yield chunk
            if left == 0:
                return
