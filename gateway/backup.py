"""A backup of the whole gateway in one encrypted file, made while it serves: configuration, keys, database, blobs.

`Contents` says first what follows, so that a restore knows what it must get. The database is a consistent copy of its
own (`store.fleet.care`), without sessions. Packs are left out: they are made anew from blobs. Of a PostgreSQL database
nothing is in it: `pg_dump` and its like do that better. The file appears under its name whole, or not at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from gateway.agekeys import Lock
from gateway.archive import ArchiveReader, Member
from gateway.config import GatewayConfig
from gateway.daemon import CREDENTIALS, database_url
from store.files import sync_folder
from store.fleet.fleet import FleetStore
from store.keyfiles import KeyMissingError, read_key_file
from store.lock import FileLock

FORMAT: Final = 1
CONTENTS, CONFIG, DATABASE = "contents.json", "gateway.toml", "fleet.db"
KEY_NAME: Final = re.compile(r"keys/([a-z0-9][a-z0-9._-]{0,63})")
BLOB_NAME: Final = re.compile(r"blobs/([0-9a-f]{64})")
KEY_BYTES_MAX: Final = 64 << 10

Progress = Callable[[int, int], None]  # bytes done, bytes in all


class Contents(msgspec.Struct, frozen=True):
    """The first member: what the others are. `database` is "sqlite", or "postgresql" when there is no copy in it."""

    format: int
    made_ms: int
    database: str
    files: int
    bytes: int
    keys: tuple[str, ...]
    blobs: int
    has_all_blobs: bool


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made; `sealed_keys` are not in it because this process could not open them."""

    contents: Contents
    size: int
    sha256: str
    sealed_keys: tuple[str, ...]
    rotten_blobs: tuple[str, ...]


def make_backup(
    file: Path,
    lock: Lock,
    *,
    config: Path,
    settings: GatewayConfig,
    data: Path,
    now_ms: int,
    with_blobs: bool = True,
    on_progress: Progress = lambda done, total: None,
) -> Backup:
    """Write a backup to `file`, which must not exist; raise `LocalError` and OSError, leaving nothing behind.

    Not to be called from an event loop, as is true of what restores.
    """
    if file.exists():
        raise FileExistsError(17, "exists, and a backup never replaces a file", str(file))
    turn = FileLock(data / "backup.lock")
    turn.take()
    # In the data folder: the place of backups is perhaps another's disk, and this copy is not encrypted.
    workspace = data / ".backup"
    try:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(mode=0o700)
        sources = _sources(workspace, config, settings, data, with_blobs=with_blobs)
        return _write(file, lock, sources, now_ms, on_progress)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        turn.release()


@dataclass(frozen=True, slots=True)
class _Sources:
    members: tuple[Member, ...]
    database: str
    keys: tuple[str, ...]
    sealed_keys: tuple[str, ...]
    blobs: int
    has_all_blobs: bool


def _sources(workspace: Path, config: Path, settings: GatewayConfig, data: Path, *, with_blobs: bool) -> _Sources:
    members = [_in_memory(CONFIG, config.read_bytes())]
    keys, sealed = _keys(data / "keys")
    members += [_in_memory(f"keys/{name}", key) for name, key in sorted(keys.items())]
    url = database_url(settings, data)
    is_sqlite = url.startswith("sqlite")
    if is_sqlite:
        asyncio.run(_copy_database(url, workspace / DATABASE))
        members.append(_on_disk(DATABASE, workspace / DATABASE))
    # After the database, so that every blob that it names is there.
    blobs = [_on_disk(f"blobs/{path.name}", path) for path in blob_files(data / "blobs")] if with_blobs else []
    kind = "sqlite" if is_sqlite else "postgresql"
    return _Sources((*members, *blobs), kind, tuple(sorted(keys)), sealed, len(blobs), with_blobs)


async def _copy_database(url: str, path: Path) -> None:
    fleet = await FleetStore.open(url)
    try:
        await fleet.backup(path)
    finally:
        await fleet.close()


def blob_files(root: Path) -> Iterator[Path]:
    """Yield the files of whole blobs; unlike `BlobStore`, touch nothing of what a running gateway is writing."""
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        yield from sorted(each for each in folder.iterdir() if BLOB_NAME.fullmatch(f"blobs/{each.name}"))


def _keys(folder: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return the key files by name, and the names of the gateway's own keys that this process cannot get at."""
    found = {
        path.name: path.read_bytes()
        for path in sorted(folder.glob("*"))
        if path.is_file() and KEY_NAME.fullmatch(f"keys/{path.name}") and path.stat().st_size <= KEY_BYTES_MAX
    }
    sealed = []
    for name, credential in CREDENTIALS.items():
        if name not in found:
            try:
                found[name] = read_key_file(folder / name, credential)
            except KeyMissingError:
                sealed.append(name)
    return found, tuple(sealed)


def _write(file: Path, lock: Lock, sources: _Sources, now_ms: int, on_progress: Progress) -> Backup:
    total = sum(each.size for each in sources.members)
    contents = Contents(
        format=FORMAT,
        made_ms=now_ms,
        database=sources.database,
        files=len(sources.members),
        bytes=total,
        keys=sources.keys,
        blobs=sources.blobs,
        has_all_blobs=sources.has_all_blobs,
    )
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        on_progress(min(done, total), total)

    rotten: list[str] = []
    watched = [_watched(member, rotten) for member in sources.members]
    reader = ArchiveReader([_in_memory(CONTENTS, msgspec.json.encode(contents)), *watched], count)
    part = file.with_name(f".{file.name}.part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w+b") as target:
            lock.encrypt(cast("BinaryIO", reader), target)
            target.flush()
            os.fsync(descriptor)
            size = target.tell()
            target.seek(0)
            digest = hashlib.file_digest(target, "sha256").hexdigest()
        part.rename(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(file.absolute().parent)
    return Backup(contents, size, digest, sources.sealed_keys, tuple(rotten))


def _in_memory(name: str, data: bytes) -> Member:
    return Member(name, len(data), partial(io.BytesIO, data))


def _on_disk(name: str, path: Path) -> Member:
    return Member(name, path.stat().st_size, lambda: path.open("rb"))


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO, on_close: Callable[[str], None]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._on_close = on_close

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._hash.update(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._on_close(self._hash.hexdigest())
        super().close()


def _watched(member: Member, rotten: list[str]) -> Member:
    """Return a blob's member so that it is named in `rotten` if its bytes are not what its name says."""
    blob = BLOB_NAME.fullmatch(member.name)
    if blob is None:
        return member
    name = blob[1]

    def compare(digest: str) -> None:
        if digest != name:
            rotten.append(name)

    return Member(member.name, member.size, lambda: cast("BinaryIO", _Hashed(member.open(), compare)))
