"""Is this the database that this truck wrote last? A copy or an older state must not go on where it stopped.

Parcel sequences and OSCORE nonces may never be given twice. Beside a database lies a file with a random identity that
both change at every opening and every clean closing, in this order: the database notes the pending identity, the file
takes it, the database notes that it is current and which inode holds it. Restoring one of the two, both from a backup,
or the whole disk to other hardware leaves something that does not match. What this cannot see: a block image of the
whole disk put back on the same hardware; only the gateway can, by the numbers that come twice.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from store.files import publish

if TYPE_CHECKING:
    from store.database import Database

_IDENTITY_BYTES = 16
_NS_PER_S = 1_000_000_000
_ROW = "SELECT current, pending, inode, changed_ns, host FROM identity WHERE id = 1"


class Standing(Enum):
    """What a database is to this truck on this opening."""

    NEW = auto()
    SAME = auto()
    OTHER = auto()


def file_of(path: Path) -> Path:
    """Return where the identity of the database `path` lies."""
    return path.with_name(path.name + ".identity")


def standing(database: Database, host: bytes) -> Standing:
    """Return whether the database is new, the one that was written last, or another (older, copied, recreated)."""
    file = file_of(database.path)
    value = file.read_bytes() if file.exists() else None
    row = database.row(_ROW)
    if row is None:
        return Standing.NEW if value is None else Standing.OTHER
    current, pending, inode, changed_ns, noted_host = row
    if value is None:
        return Standing.OTHER if current else Standing.NEW  # the power went before the first file was there
    if host and noted_host and host != noted_host:
        return Standing.OTHER
    if value == pending and value != current:
        return Standing.SAME  # the power went between the file and the note of its inode
    same = value == current and _is_unchanged(file, inode, changed_ns)
    return Standing.SAME if same else Standing.OTHER


def _is_unchanged(file: Path, inode: int, changed_ns: int) -> bool:
    # A restored file has its own inode or, written over the old one, its own time of change.
    stat = file.stat()
    if stat.st_ctime_ns % _NS_PER_S == 0:
        changed_ns -= changed_ns % _NS_PER_S  # a file system that keeps whole seconds on the disk
    return (stat.st_ino, stat.st_ctime_ns) == (inode, changed_ns)


def renew(database: Database, entropy: Callable[[int], bytes], host: bytes = b"") -> None:
    """Give the database and its file a new identity, durably."""
    file = file_of(database.path)
    pending = entropy(_IDENTITY_BYTES)
    row = database.row(_ROW)
    if row is None:
        values = {"current": b"", "pending": pending, "inode": 0, "changed_ns": 0, "host": host}
        database.insert("identity", values)
    else:
        database.update("identity", "id = 1", {}, pending=pending, host=host or row[4])
    publish(file, pending)
    stat = file.stat()
    database.update("identity", "id = 1", {}, current=pending, inode=stat.st_ino, changed_ns=stat.st_ctime_ns)
