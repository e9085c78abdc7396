"""A folder becomes a bundle: its regular files are listed and hashed, its manifest made and signed, all of it sent.

What a truck could not hold exactly (links, sockets, names that some file system cannot store) is refused here, by
name, before anything is signed. The same folder with the same arguments gives the same bytes on every machine: files
are sorted by path, and owner, mode and times of files are deliberately absent from a bundle.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.client import ApiError, Client
from protocol.documents import Manifest, ManifestFile, read_document
from protocol.errors import LocalError, PeerError
from protocol.numbers import BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX, PATH_CHARS_MAX, DocumentKind
from protocol.paths import check_paths

READ_BYTES = 1 << 20
_PIECE_BYTES = 2 << 20
_ASK_FIRST_BYTES = 1_024
_UPLOADS_AT_ONCE = 4
_CORRECTIONS_MAX = 16
_BUSY_S_MAX = 8.0
_REFUSED_SHOWN_MAX = 20
_DEPTH_MAX = 64

Progress = Callable[[int, int], None]
"""Told (bytes done, bytes in all) as a folder is read."""


class PublishingError(LocalError):
    """A folder that cannot become a bundle. `refused` names each file and what is wrong with it."""

    def __init__(self, message: str, refused: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One regular file of the folder: its path in the bundle, where it is, its size (bytes) and its SHA-256."""

    path: str
    file: Path
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Source:
    """A folder that can become a bundle; files in ascending order of their paths."""

    folder: Path
    files: tuple[SourceFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files)

    def blobs(self) -> dict[bytes, SourceFile]:
        """Return one file for each distinct content, by digest: equal files are uploaded once."""
        found: dict[bytes, SourceFile] = {}
        for each in self.files:
            found.setdefault(each.digest, each)
        return found


def scan(folder: Path, progress: Progress | None = None) -> Source:
    """Read a folder; raise `PublishingError` naming every file that cannot be in a bundle."""
    if not folder.is_dir():
        raise PublishingError(f"{folder} is not a folder: name the folder whose files make the bundle")
    refused: list[str] = []
    found = sorted(_walk(folder, refused), key=lambda each: each[0])
    if not refused:
        refused += _collisions([path for path, _ in found])
    if refused:
        raise PublishingError(_summary(folder, refused), tuple(refused))
    if not found:
        raise PublishingError(f"{folder} has no files: a bundle has at least one")
    if len(found) > BUNDLE_FILES_MAX:
        raise PublishingError(f"{folder} has {len(found)} files; a bundle has at most {BUNDLE_FILES_MAX}")
    total = sum(file.lstat().st_size for _, file in found)
    if total > BUNDLE_BYTES_MAX:
        raise PublishingError(f"{folder} has {total} bytes; a bundle has at most {BUNDLE_BYTES_MAX}")
    files: list[SourceFile] = []
    done = 0
    for path, file in found:
        hasher, size = hashlib.sha256(), 0
        for block in _blocks_of(file):
            hasher.update(block)
            size += len(block)
            if progress is not None:
                progress(done + size, total)
        done += size
        files.append(SourceFile(path, file, size, hasher.digest()))
    return Source(folder, tuple(files))


def make_manifest(
    source: Source,
    *,
    name: str,
    label: str,
    version: int,
    issued_s: int,
    expires_s: int,
    content: str = "static",
    title: str = "",
) -> Manifest:
    """Return the manifest of a folder, ready to be signed; raise `PublishingError` for a name or label that is odd.

    `label` is the version that people see (`2026.11`), `version` the number that must grow; times are Unix seconds.
    """
    files = tuple(ManifestFile(each.path, each.size, each.digest) for each in source.files)
    try:
        manifest = Manifest(
            document=DocumentKind.MANIFEST,
            version=version,
            issued_s=issued_s,
            expires_s=expires_s,
            name=name,
            label=label,
            content=content,
            files=files,
            title=title,
        )
        # The constructor does not check field patterns and sizes; reading the encoding does, as every truck will.
        read_document(manifest.encode())
    except (ValueError, PeerError) as error:
        raise PublishingError(str(error)) from error
    return manifest


def read_blocks(source: SourceFile, *, offset: int = 0, bytes_max: int | None = None) -> Iterator[bytes]:
    """Yield a file's bytes from `offset` on, at most `bytes_max`; raise `PublishingError` if its size has changed."""
    with _open_regular(source.file) as file:
        if os.fstat(file.fileno()).st_size != source.size:
            raise PublishingError(f"{source.path} has changed since it was listed: run the command again")
        file.seek(offset)
        left = source.size - offset if bytes_max is None else min(bytes_max, source.size - offset)
        while left > 0:
            block = file.read(min(READ_BYTES, left))
            if not block:
                raise PublishingError(f"{source.path} became shorter while it was read: run the command again")
            left -= len(block)
            yield block


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of a push: the manifest's digest, and what had to be sent of how much."""

    digest: str
    sent_files: int
    sent_bytes: int
    size: int


async def push(
    client: Client,
    source: Source,
    signed: bytes,
    *,
    held: frozenset[bytes] = frozenset(),
    progress: Progress | None = None,
) -> Pushed:
    """Bring a folder's contents and its signed manifest to the gateway; repeating it goes on where it stopped.

    The manifest comes last: a bundle that can be seen is complete.
    """
    sent_files, sent_bytes = await push_blobs(client, source, held=held, progress=progress)
    answer = await client.put_document(signed)
    return Pushed(answer.digest, sent_files, sent_bytes, sum(each.size for each in source.blobs().values()))


async def push_blobs(
    client: Client, source: Source, *, held: frozenset[bytes] = frozenset(), progress: Progress | None = None
) -> tuple[int, int]:
    """Bring a folder's contents to the gateway; return how many were sent, and their bytes.

    Contents that are there already, from whatever bundle, are not sent; those in `held` (digests) are not even asked
    for. `progress` is told (bytes done, bytes in all) of distinct contents.
    """
    blobs = source.blobs()
    total = sum(each.size for each in blobs.values())
    done = 0
    sent: list[int] = []
    waiting = iter(blobs.items())

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    async def work() -> None:
        for digest, file in waiting:
            if digest in held:
                advance(file.size)
                continue
            count = await _push_blob(client, digest.hex(), file, advance)
            if count is not None:
                sent.append(count)

    workers = [asyncio.create_task(work()) for _ in range(_UPLOADS_AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return len(sent), sum(sent)


async def _push_blob(client: Client, digest: str, file: SourceFile, advance: Callable[[int], None]) -> int | None:
    """Upload one content as far as it is not there; return how many bytes were sent, None if it was there."""
    # Asking first costs a round trip, which is more than a small content itself.
    offset = await client.blob_offset(digest) if file.size > _ASK_FIRST_BYTES else 0
    if offset is None:
        advance(file.size)
        return None
    advance(offset)
    sent = 0
    for attempt in range(_CORRECTIONS_MAX):
        try:
            while True:
                piece = await asyncio.to_thread(_piece, file, offset)
                upload = await client.put_piece(digest, piece, first=offset, size=file.size)
                advance(upload.received - offset)
                sent += len(piece)
                offset = upload.received
                if offset >= file.size:
                    return sent
        except ApiError as error:
            if error.status == 422:
                raise PublishingError(f"{file.path} has changed since it was listed: run the command again") from error
            if error.status != 409:
                raise
            if error.offset is None:  # the connection broke, and the gateway has not noticed yet
                await asyncio.sleep(min(_BUSY_S_MAX, 0.25 * 2.0**attempt))
                continue
            advance(error.offset - offset)
            offset = error.offset
    raise PublishingError(f"{file.path}: the gateway still waits for another upload of it; run the command again later")


def _piece(file: SourceFile, offset: int) -> bytes:
    return b"".join(read_blocks(file, offset=offset, bytes_max=_PIECE_BYTES))


def _walk(top: Path, refused: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield (bundle path, file) of the regular files below `top`; what is not one goes to `refused`."""
    stack: list[tuple[str, Path, int]] = [("", top, 0)]
    while stack:
        prefix, folder, depth = stack.pop()
        if depth > _DEPTH_MAX:
            refused.append(f"{_shown(prefix)}: folders nested deeper than {_DEPTH_MAX}")
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_symlink():
                    refused.append(f"{_shown(path)}: a link; put the file itself there")
                elif entry.is_dir(follow_symlinks=False):
                    stack.append((path + "/", Path(entry.path), depth + 1))
                elif not entry.is_file(follow_symlinks=False):
                    refused.append(f"{_shown(path)}: not a regular file")
                elif problem := _odd(path):
                    refused.append(f"{_shown(path)}: {problem}")
                else:
                    yield path, Path(entry.path)


def _odd(path: str) -> str | None:
    """Return what is wrong with one path, None if nothing."""
    if len(path) > PATH_CHARS_MAX:
        return f"longer than {PATH_CHARS_MAX} characters"
    if unicodedata.normalize("NFC", path) != path:
        return "its name is in a decomposed form of Unicode; rename it to the composed form (NFC)"
    try:
        check_paths([path])
    except ValueError as error:
        return str(error).removeprefix(f"{path!r} ").removeprefix("has ").removeprefix("is ")
    return None


def _collisions(paths: list[str]) -> list[str]:
    """Return what is wrong with sorted paths together: names that a disk without case would merge."""
    seen: dict[str, str] = {}
    found = []
    for path in paths:
        # Every folder on the way counts too: `A/x` and `a/y` would share a folder on one disk and not on another.
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            other = seen.setdefault(part.casefold(), part)
            if other != part:
                found.append(f"{_shown(path)}: differs from {_shown(other)} only in case")
                break
    if not found:
        try:
            check_paths(paths)
        except ValueError as error:
            found.append(str(error))
    return found


def _blocks_of(file: Path) -> Iterator[bytes]:
    with _open_regular(file) as opened:
        while block := opened.read(READ_BYTES):
            yield block


def _open_regular(file: Path) -> io.FileIO:
    # A file may have been replaced since the listing: what is opened is checked, and a FIFO does not hang.
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PublishingError(f"{_shown(str(file))} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PublishingError(f"{_shown(str(file))} is not a regular file any more")
    return io.FileIO(descriptor, "rb")


def _shown(path: str) -> str:
    """Return a path as it may stand on a terminal: undecodable bytes and control characters are written out."""
    shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


def _summary(folder: Path, refused: list[str]) -> str:
    refused.sort()
    shown = "; ".join(refused[:_REFUSED_SHOWN_MAX])
    more = f"; and {len(refused) - _REFUSED_SHOWN_MAX} more" if len(refused) > _REFUSED_SHOWN_MAX else ""
    return f"{folder} cannot become a bundle: {shown}{more}"
