"""A truck's virtual disk: a folder whose power can be cut at any write, and what may be left of it then.

SQLite and the product's own files work on a real folder (in memory, for speed). Each SQL statement, fsync, rename,
link, unlink and creation is a step; the power can be cut at any of them. `image` then makes the folder of the next
life as POSIX allows it to be, no kinder:

- a committed transaction of a connection with synchronous=FULL is there; of NORMAL, the WAL's tail may be gone;
- a COMMIT that was under way left any mixture of old and new sectors, first of the WAL, then of the database;
- a file has the bytes of its last fsync, or any mixture of those and newer ones; without an fsync anything or nothing;
- a folder has the names of its last fsync, or those after any one of the changes since.

What is absent: reordering between two folders, and ext4's habit of making renames durable sooner than it must.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECTOR_BYTES = 512
Entries = dict[str, tuple[str, int | str]]


class PowerCut(BaseException):
    """The power is gone: nobody handles this."""


class Disk:
    """The disk of one machine; `root` is the folder of its present life."""

    def __init__(self, home: Path, seed: random.Random, on_cut: Callable[[], None]) -> None:
        self.home = home
        self.root = home / "life-0"
        self.root.mkdir(parents=True)
        self.random = seed
        self.life = 0
        self.steps = 0
        self.cut_after: int | None = None  # steps until the power goes
        self.full = False
        self.dead = False
        self.kept_inodes: dict[int, set[int]] = {}  # an inode of this life -> those that it was in lives before
        self._kept_before: dict[int, set[int]] = {}
        self._on_cut = on_cut
        self._synced: dict[int, bytes] = {}
        self._names: dict[int, list[Entries]] = {}  # by the folder's inode: a folder may be renamed
        self._connections: list[VirtualConnection] = []

    def holds(self, path: str) -> bool:
        """Return whether a path is on this disk, as it is now."""
        return path.startswith(f"{self.root}/") or path == str(self.root)

    # -- what happens --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Count a step; the power may go here."""
        self.steps += 1
        if self.cut_after is not None and not self.dead:
            self.cut_after -= 1
            if self.cut_after <= 0:
                self.cut()
                raise PowerCut

    def refuse_when_full(self) -> None:
        """Fail as a full disk does."""
        if self.full and not self.dead:
            raise OSError(28, "No space left on device")

    def synced(self, descriptor: int) -> None:
        """Note what an fsync has made durable."""
        about = os.fstat(descriptor)
        if stat.S_ISDIR(about.st_mode):
            self._names[about.st_ino] = [_entries(f"/proc/self/fd/{descriptor}")]
        else:
            self._synced[about.st_ino] = _read_whole(f"/proc/self/fd/{descriptor}")

    def renamed(self, path: str) -> None:
        """Note that the folder of `path` has other names now, not durably."""
        folder = os.path.dirname(path)
        if os.path.isdir(folder):
            self._names.setdefault(os.stat(folder).st_ino, [{}]).append(_entries(folder))

    def all_synced(self) -> None:
        """Note that everything is durable as it is."""
        self._synced.clear()
        self._names.clear()
        for folder, _, files in os.walk(self.root):
            self._names[os.stat(folder).st_ino] = [_entries(folder)]
            for name in files:
                path = os.path.join(folder, name)
                if not _is_sqlite(name) and not os.path.islink(path):
                    self._synced[os.stat(path).st_ino] = _read_whole(path)

    def connected(self, connection: VirtualConnection) -> None:
        """Know an open database."""
        self._connections = [each for each in self._connections if not each.closed]
        self._connections.append(connection)

    def commit(self, connection: VirtualConnection, run: Callable[[], Any]) -> Any:
        """Run a COMMIT; the power may go before it, in the middle of it, or before anybody hears of it."""
        if self.full and not self.dead:
            if self.random.random() < 0.5:
                run()
            else:
                connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        if self.cut_after is None or self.cut_after > 1 or self.dead:
            self.step()
            return run()
        before = _database(connection.path)
        run()
        after = _database(connection.path)
        stage = self.random.choice(("log", "checkpoint", "unheard"))
        if stage == "log":
            torn = before[0], _mixed(before[1], after[1], self.random)
        elif stage == "checkpoint":
            torn = _mixed(before[0], after[0], self.random), after[1]
        else:
            torn = after
        self.cut({connection.path: torn if connection.is_full_sync else before})
        raise PowerCut

    # -- the cut -------------------------------------------------------------------------------------------------------

    def cut(self, torn: dict[str, tuple[bytes, bytes]] | None = None, *, power: bool = True) -> None:
        """End this life and make the folder of the next; `power` False: only the process died, nothing is lost."""
        old = self.root
        self.life += 1
        new = self.home / f"life-{self.life}"
        new.mkdir()
        shutil.rmtree(self.home / f"life-{self.life - 3}", ignore_errors=True)
        self._kept_before, self.kept_inodes = self.kept_inodes, {}
        lost_logs = {each.path: _shorter(each, self.random) for each in self._connections if each.loses_tail and power}
        self._image(str(old), str(new), {**lost_logs, **(torn or {})}, _by_inode(old), power)
        for connection in self._connections:
            connection.ended = True
        self._connections = []
        self.root, self.cut_after, self.dead = new, None, True
        self._on_cut()

    def begin(self) -> None:
        """Begin a life: what is in the folder is what the disk has."""
        self.dead = False
        self.all_synced()

    def _image(
        self, old: str, new: str, torn: dict[str, tuple[bytes, bytes]], live: dict[int, str], power: bool
    ) -> None:
        # A folder that is gone by now, and whose going was not durable, comes back without what was in it.
        now = _entries(old) if os.path.isdir(old) else {}
        known = self._names.get(os.stat(old).st_ino, [{}]) if os.path.isdir(old) else [{}]
        states = [*known, now] if power else [now]
        chosen = dict(self.random.choice(states))
        # SQLite makes its own files' names durable; these are taken as they are.
        chosen = {name: entry for name, entry in chosen.items() if not _is_sqlite(name)}
        chosen |= {name: entry for name, entry in now.items() if _is_sqlite(name)}
        for name, (kind, value) in sorted(chosen.items()):
            source, target = os.path.join(old, name), os.path.join(new, name)
            if kind == "folder":
                os.mkdir(target)
                self._image(source, target, torn, live, power)
            elif kind == "link":
                os.symlink(str(value), target)
            elif _is_sqlite(name):
                self._image_database(name, source, target, torn)
            else:
                inode = int(value)
                _write(target, self._contents(inode, live.get(inode), power))
                self.kept_inodes[os.stat(target).st_ino] = {inode} | self._kept_before.get(inode, set())

    @staticmethod
    def _image_database(name: str, source: str, target: str, torn: dict[str, tuple[bytes, bytes]]) -> None:
        if name.endswith("-shm"):
            return  # of the memory, not of the disk
        if name.endswith("-wal"):
            found = torn.get(source.removesuffix("-wal"))
            _write(target, found[1] if found is not None else _read_whole(source))
        else:
            found = torn.get(source)
            _write(target, found[0] if found is not None else _read_whole(source))

    def _contents(self, inode: int, live: str | None, power: bool) -> bytes:
        durable = self._synced.get(inode)
        if live is None:
            return durable or b""
        newest = _read_whole(live)
        if not power or durable == newest:
            return newest
        if durable is None:
            return self.random.choice((b"", bytes(len(newest)), newest[: len(newest) // 2], newest))
        return _mixed(durable, newest, self.random)


class VirtualConnection(sqlite3.Connection):
    """A connection to a database on a virtual disk: every statement is a step."""

    disk: Disk
    path: str
    closed = False
    ended = False  # the life that it belonged to is over

    @property
    def is_full_sync(self) -> bool:
        """Whether COMMIT makes durable."""
        return bool(super().execute("PRAGMA synchronous").fetchone()[0] >= 2)

    @property
    def loses_tail(self) -> bool:
        """Whether a power cut may take transactions that were committed."""
        return not self.closed and not self.is_full_sync

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if self.ended:
            raise PowerCut
        if sql.startswith("COMMIT"):
            found: sqlite3.Cursor = self.disk.commit(self, lambda: sqlite3.Connection.execute(self, sql))
            return found
        if not sql.startswith(("SELECT", "PRAGMA")):
            self.disk.step()
        return super().execute(sql, parameters)

    def close(self) -> None:
        self.closed = True
        super().close()


def _entries(folder: str) -> Entries:
    found: Entries = {}
    with os.scandir(folder) as entries:
        for each in sorted(entries, key=lambda entry: entry.name):
            if each.is_symlink():
                found[each.name] = "link", os.readlink(each.path)
            elif each.is_dir():
                found[each.name] = "folder", 0
            else:
                found[each.name] = "file", each.inode()
    return found


def _by_inode(root: Path) -> dict[int, str]:
    found = {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                found[os.stat(path).st_ino] = path
    return found


def _is_sqlite(name: str) -> bool:
    stem = name.removesuffix("-wal").removesuffix("-shm")
    return stem.endswith(".db") or ".db.corrupt-" in stem


def _database(path: str) -> tuple[bytes, bytes]:
    log = path + "-wal"
    return _read_whole(path), _read_whole(log) if os.path.exists(log) else b""


def _shorter(connection: VirtualConnection, seed: random.Random) -> tuple[bytes, bytes]:
    database, log = _database(connection.path)
    frames = max(0, len(log) - 32) // 4_120
    return database, log[: 32 + 4_120 * seed.randint(0, frames)]


def _mixed(old: bytes, new: bytes, seed: random.Random) -> bytes:
    """Return sectors of either, as long as either."""
    if old == new:
        return new
    size = seed.choice((len(old), len(new), max(len(old), len(new))))
    mixed = bytearray(new.ljust(size, b"\0")[:size])
    share = seed.random()
    for at in range(0, size, SECTOR_BYTES):
        if old[at : at + SECTOR_BYTES] != new[at : at + SECTOR_BYTES] and seed.random() < share:
            mixed[at : at + SECTOR_BYTES] = old[at : at + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
    return bytes(mixed[:size])


def _read_whole(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
