"""A lock file that keeps two processes from writing one database; the kernel frees it when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from store.errors import StoreInUseError


class FileLock:
    """An advisory exclusive lock; it is the open file that holds it, so a crash leaves nothing to clean."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock or raise `StoreInUseError` at once."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            name = self._path.name.removesuffix(".lock")
            raise StoreInUseError(f"another process holds {name}: stop it first") from error
        self._file = file

    def release(self) -> None:
        """Let the lock go; doing it twice is harmless."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
