"""The folder `digitruck` on a courier's stick (SPEC.md 9): read without trusting a name, a link or a size; written so
that a stick that is pulled out has whole files or none.

Everything here blocks: call it in a thread. Deliberately absent: what is believed, which its readers decide.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from protocol.errors import LocalError, MalformedError
from protocol.numbers import NAME_PATTERN, STICK_UPLOADS_BYTES_MAX
from store.files import TEMPORARY_PREFIX, publish, sync_folder

FOLDER: Final = "digitruck"
STICK: Final = "stick.cose"
UPLOADS_MAX: Final = 10_000
UPLOAD_BYTES_MAX: Final = STICK_UPLOADS_BYTES_MAX + 1024
_NAME: Final = re.compile(NAME_PATTERN)
_UPLOAD: Final = re.compile(r"^[0-9a-f]{16}-[0-9]{1,16}-[0-9]{1,16}\Z")
_OBJECT: Final = re.compile(r"^([0-9a-f]{64})(\.[1-9][0-9]{0,5})?\Z")
_ENTRIES_MAX: Final = 200_000
# Beyond what is asked for: a file system without any room left fails in ways of its own.
_KEPT_FREE: Final = 1 << 20
_GONE: Final = frozenset({errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ESTALE, errno.ENOTCONN})


class StickError(LocalError):
    """A stick cannot be read or written as asked; the text says why and what to do. Nothing is lost by it."""


class StickFullError(StickError):
    """There is no more room on the stick."""


class StickFolder:
    """The folder below `path`, which is where the stick is mounted, or any folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / FOLDER

    def require(self) -> None:
        """Raise `StickError` unless there is a folder to read from."""
        if not self.path.is_dir():
            raise StickError(f"{self.path} is no folder: is the stick mounted there?")
        if not self.root.is_dir() or self.root.is_symlink():
            raise StickError(f"{self.path} holds no folder {FOLDER}: it was not written by digitruck")

    def create(self) -> None:
        """Make the folder; raise `StickError` when that cannot be."""
        if not self.path.is_dir():
            raise StickError(f"{self.path} is no folder: is the stick mounted there?")
        with told(self.path):
            self.root.mkdir(exist_ok=True)

    def free_bytes(self) -> int:
        """Return how many bytes may still be written."""
        with told(self.path):
            return max(0, shutil.disk_usage(self.path).free - _KEPT_FREE)

    # -- reading ------------------------------------------------------------------------------------------------------

    def size(self, name: str) -> int | None:
        """Return the size of a regular file below the folder, None if there is none."""
        with told(self.path), ExitStack() as stack:
            file = self._open(name, stack)
            return None if file is None else os.fstat(file).st_size

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """Return a whole file, None if there is none; raise `MalformedError` for one over `bytes_max`."""
        with told(self.path), ExitStack() as stack:
            file = self._open(name, stack)
            if file is None:
                return None
            data = bytearray()
            while len(data) <= bytes_max and (part := os.read(file, bytes_max + 1 - len(data))):
                data += part
            if len(data) > bytes_max:
                raise MalformedError(f"{name} on the stick is larger than {bytes_max} bytes")
            return bytes(data)

    def blocks(self, name: str, offset: int, block_bytes: int) -> Iterator[bytes]:
        """Yield a file from `offset` on in blocks; nothing if there is none. Close it if you stop before its end."""
        with told(self.path), ExitStack() as stack:
            file = self._open(name, stack)
            while file is not None and (block := os.pread(file, block_bytes, offset)):
                offset += len(block)
                yield block

    def _open(self, name: str, stack: ExitStack) -> int | None:
        *folders, last = name.split("/")
        try:
            folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            for each in folders:
                folder = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                stack.callback(os.close, folder)
            # O_NONBLOCK: opening a pipe must not wait for its other end.
            file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None  # a link on a stick is as good as nothing
            raise
        stack.callback(os.close, file)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise MalformedError(f"{name} on the stick is not a plain file")
        return file

    def uploads(self) -> list[tuple[str, str]]:
        """Return the trucks and names of the files that trucks gave the courier, in order."""
        found = []
        for truck in self._entries("up"):
            if _NAME.match(truck):
                found += [(truck, f"up/{truck}/{name}") for name in self._entries(f"up/{truck}") if _UPLOAD.match(name)]
            if len(found) > UPLOADS_MAX:
                raise MalformedError(f"more than {UPLOADS_MAX} files of trucks are on the stick: that is not ours")
        return found

    def _entries(self, name: str) -> list[str]:
        folder = self.root / name
        with told(self.path):
            if folder.is_symlink() or not folder.is_dir():
                return []
            entries = []
            with os.scandir(folder) as scan:
                for entry in scan:
                    entries.append(entry.name)
                    if len(entries) > _ENTRIES_MAX:
                        raise MalformedError(f"more than {_ENTRIES_MAX} files in one folder of the stick")
            return sorted(entries)

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all; raise `StickFullError`, `StickError`."""
        path = self.root / name
        if len(data) > self.free_bytes():
            raise StickFullError(_full(self.path))
        with told(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            publish(path, data, mode=0o644)

    @contextmanager
    def writing(self, name: str) -> Iterator[int]:
        """Open a file to be written on where it ends (a descriptor); it gets its name once the block ends well."""
        path = self.root / name
        partial = path.with_name(TEMPORARY_PREFIX + path.name)
        with told(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                yield file
                os.fsync(file)
            finally:
                os.close(file)
            partial.replace(path)
            sync_folder(path.parent)

    def remove(self, name: str) -> None:
        """Delete a file, and what there is of its beginning."""
        path = self.root / name
        with told(self.path):
            path.unlink(missing_ok=True)
            path.with_name(TEMPORARY_PREFIX + path.name).unlink(missing_ok=True)

    def keep_objects(self, names: frozenset[str]) -> int:
        """Delete every object whose 64 hex digits are not among `names`; return how many files went."""
        gone = 0
        for folder in self._entries("objects"):
            for name in self._entries(f"objects/{folder}"):
                match = _OBJECT.match(name.removeprefix(TEMPORARY_PREFIX))
                if match is not None and match[1] not in names:
                    with told(self.path):
                        (self.root / "objects" / folder / name).unlink(missing_ok=True)
                    gone += 1
        return gone


def object_path(name: bytes, part: int = 0) -> str:
    """Return where (a part of) an object lies below the folder."""
    text = name.hex()
    return f"objects/{text[:2]}/{text}" + (f".{part}" if part else "")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what a stick does to a reader or writer into words and a next step."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StickFullError(_full(path)) from error
        if error.errno == errno.EROFS:
            raise StickError(f"{path} cannot be written: it is mounted read-only, or its switch is set") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise StickError(f"{path} cannot be used: {error.strerror}; mount it for the user of the daemon") from error
        if error.errno in _GONE or not path.is_dir():
            raise StickError(
                f"{path} cannot be read any more: was it pulled out? Put it in again; it goes on"
            ) from error
        raise StickError(f"{path}: {error.strerror}; try another stick, or check its file system") from error


def _full(path: Path) -> str:
    return f"{path} is full: what is on it is whole; free some room or take another stick, it goes on there"
