"""What is in a backup, decrypted into a staging folder: nothing is believed before all of it was there.

age authenticates every byte and shows where a file was cut off; the contents, the first member, say what else there is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from gateway.agekeys import AGE_MAGIC, Unlock
from gateway.archive import ArchiveWriter, Sink
from gateway.backup import BLOB_NAME, CONFIG, CONTENTS, DATABASE, FORMAT, KEY_BYTES_MAX, KEY_NAME, Contents, Progress
from protocol.errors import LocalError

_SMALL_BYTES_MAX: Final = 1 << 20


class BackupDamagedError(LocalError):
    """The file is no backup, or is not whole; nothing was changed."""


@dataclass(slots=True)
class Unpacked:
    """What was in a backup: small members in memory, the others as files of a staging folder."""

    contents: Contents
    config: str = ""
    keys: dict[str, bytes] = field(default_factory=dict, repr=False)
    database: Path | None = None
    blobs: dict[bytes, Path] = field(default_factory=dict)
    rotten: list[str] = field(default_factory=list)


def unpack(
    file: Path, unlock: Unlock, stage: Path, has_blob: Callable[[bytes, int], bool], on_progress: Progress
) -> Unpacked:
    """Decrypt a backup into `stage`; raise `BackupDamagedError` unless it is whole and what its contents say."""
    unpacking = _Unpacking(stage, has_blob, on_progress)
    writer = ArchiveWriter(unpacking.open_member)
    with file.open("rb") as source:
        if source.read(len(AGE_MAGIC)) != AGE_MAGIC:
            raise BackupDamagedError(f"{file} is no backup of `digitruck-gateway backup`")
        source.seek(0)
        try:
            unlock.decrypt(source, cast("BinaryIO", writer))
        except OSError as error:
            if error.errno is not None:
                raise
            raise BackupDamagedError(f"{file} is damaged or cut off ({error})") from error
    writer.finish()
    return unpacking.finish(str(file))


class _Memory:
    """Keeps a small member."""

    def __init__(self, keep: Callable[[bytes], None]) -> None:
        self._keep = keep
        self._data = bytearray()

    def write(self, data: bytes, /) -> None:
        self._data += data

    def close(self) -> None:
        self._keep(bytes(self._data))


class _File:
    """Writes a member to a file (None: nowhere) and says what its digest was."""

    def __init__(self, path: Path | None, on_bytes: Callable[[int], None], keep: Callable[[bytes], None]) -> None:
        self._file = None if path is None else open(path, "xb", opener=_for_owner)  # noqa: SIM115 - closed by `close`
        self._hash = hashlib.sha256()
        self._on_bytes = on_bytes
        self._keep = keep

    def write(self, data: bytes, /) -> None:
        if self._file is not None:
            self._file.write(data)
        self._hash.update(data)
        self._on_bytes(len(data))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._keep(self._hash.digest())


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Unpacking:
    """Decides where each member goes; the first one says what the others are."""

    def __init__(self, stage: Path, has_blob: Callable[[bytes, int], bool], on_progress: Progress) -> None:
        self._stage = stage
        self._has_blob = has_blob
        self._on_progress = on_progress
        self._unpacked: Unpacked | None = None
        self._files = self._done = 0

    def open_member(self, name: str, size: int) -> Sink:
        if self._unpacked is None:
            if name != CONTENTS or size > _SMALL_BYTES_MAX:
                raise BackupDamagedError("this is no backup of a gateway: it does not begin with its contents")
            return _Memory(self._take_contents)
        self._files += 1
        key, blob = KEY_NAME.fullmatch(name), BLOB_NAME.fullmatch(name)
        if key is not None and size <= KEY_BYTES_MAX:
            return _Memory(lambda data: self._take_key(key[1], data))
        if blob is not None:
            return self._open_blob(bytes.fromhex(blob[1]), size)
        if name == CONFIG and size <= _SMALL_BYTES_MAX:
            return _Memory(self._take_config)
        if name == DATABASE:
            self._unpacked.database = self._stage / DATABASE
            return _File(self._unpacked.database, self._count, lambda digest: None)
        raise BackupDamagedError(f"{name[:80]!r} is not a member that a backup has")

    def finish(self, name: str) -> Unpacked:
        unpacked = self._unpacked
        if unpacked is None or self._files != unpacked.contents.files or not unpacked.config:
            raise BackupDamagedError(f"{name} does not hold what its contents say")
        if (unpacked.database is not None) != (unpacked.contents.database == "sqlite"):
            raise BackupDamagedError(f"{name} holds no database, although its contents say so")
        return unpacked

    def _open_blob(self, digest: bytes, size: int) -> Sink:
        path = None if self._has_blob(digest, size) else self._stage / digest.hex()

        def keep(found: bytes) -> None:
            assert self._unpacked is not None
            if found != digest:
                # It was rotten when the backup was made: age has shown that these are the bytes of then.
                self._unpacked.rotten.append(digest.hex())
            elif path is not None:
                self._unpacked.blobs[digest] = path

        return _File(path, self._count, keep)

    def _take_contents(self, data: bytes) -> None:
        try:
            contents = msgspec.json.decode(data, type=Contents)
        except msgspec.DecodeError as error:
            raise BackupDamagedError("this is no backup of a gateway: its contents cannot be read") from error
        if contents.format > FORMAT:
            raise BackupDamagedError("the backup was made by a newer release: upgrade this software")
        self._unpacked = Unpacked(contents)

    def _take_config(self, data: bytes) -> None:
        assert self._unpacked is not None
        self._unpacked.config = data.decode("utf-8", "replace")
        self._count(len(data))

    def _take_key(self, name: str, data: bytes) -> None:
        assert self._unpacked is not None
        self._unpacked.keys[name] = data
        self._count(len(data))

    def _count(self, size: int) -> None:
        assert self._unpacked is not None
        self._done += size
        self._on_progress(self._done, self._unpacked.contents.bytes)
