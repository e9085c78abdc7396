# ruff: noqa: S608 - table and column names in SQL come from the schema and from callers' literals, never from input.
"""One SQLite file with one connection: how it is opened, what it promises, what it does when it is damaged.

Opening mends the WAL (`store.walchain`), sets and reads back write-ahead logging with synchronous=FULL (600 power cuts
lost nothing; NORMAL lost acknowledged rows), caps the file's pages to its share of the disk, bounds the WAL, runs
quick_check and the row-hash scan, applies migrations, and finds out whether the file is the one that this truck wrote
last. A damaged database is moved aside and what can be read of it is carried over; a damaged, restored or recreated one
starts a new epoch.
Nothing is deleted, nothing refuses to start except a newer schema and a second process.
Deliberately absent: a second connection that writes or checkpoints (SQLite before 3.51.3 can then corrupt a WAL).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from sqlite_utils import Database as SqliteDatabase

from store import damage, identity, incidents, rowhash, salvage, walchain
from store.damage import ERRORS, DamageError, as_damage, is_passing, require_schema
from store.errors import SchemaTooNewError, StoreError, StoreFailedError
from store.lock import FileLock
from store.schema import Schema

PAGE_BYTES: Final = 4_096
SHARE_BYTES_MIN: Final = 1 << 20
WAL_BYTES_MAX: Final = 4 << 20
BUSY_MS: Final = 5_000
SQLITE_MIN: Final = (3, 37, 0)  # STRICT tables
# https://sqlite.org/wal.html, "the WAL-reset bug": two connections that write or checkpoint at one moment.
WAL_RESET_FIXED: Final = (3, 51, 3)
SCHEMA_FLOOR: Final = "schema-floor"  # the setting below which schema numbers may have been given and forgotten
_SYNCHRONOUS_FULL: Final = 2

Entropy = Callable[[int], bytes]
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sql:
    """An SQL expression over a row's old columns, where `Database.update` otherwise takes a value."""

    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """What `Database.check` found. `damage` is empty when all is well."""

    sqlite_version: str
    wal_reset_fixed: bool
    synchronous_full: bool
    pages: int
    pages_max: int
    wal_bytes: int
    damage: tuple[str, ...]


class Database:
    """An open database, used by one thread at a time; its methods let sqlite3 errors through.

    `restored` says that at this opening the file was not the one that was written last but an older one or a copy;
    `recreated`, that it had to be made anew where one had been (damaged or deleted).
    """

    def __init__(self, path: Path, schema: Schema, share_bytes: int, entropy: Entropy, lock: FileLock) -> None:
        if share_bytes < SHARE_BYTES_MIN:
            raise ValueError(f"a database needs a share of at least {SHARE_BYTES_MIN} bytes of the disk")
        self.path = path
        self.schema = schema
        self.share_bytes = share_bytes
        self.entropy = entropy
        self.restored = False
        self.recreated = False
        self._lock = lock
        self._columns: dict[str, list[str]] = {}
        self._inode = 0
        self.sql: SqliteDatabase  # since `connect`

    @property
    def epoch(self) -> int:
        """The epoch of parcels that are added now; read anew each time, since a transaction may be undone."""
        newest = self.value("SELECT epoch FROM epochs ORDER BY id DESC LIMIT 1")
        return 0 if newest is None else int.from_bytes(newest, "big")

    def connect(self) -> None:
        """Open the connection and set what SQLite forgets between openings; raise `DamageError` or sqlite3 errors."""
        if sqlite3.sqlite_version_info < SQLITE_MIN:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
        connection = sqlite3.connect(
            self.path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self.sql = SqliteDatabase(connection, execute_plugins=False)
        self._columns = {}
        try:
            rowhash.register(connection)
            wal_bytes = min(WAL_BYTES_MAX, self.share_bytes // 8)
            self._pragma("page_size", PAGE_BYTES, None)
            self._pragma("journal_mode", "wal", "wal")
            self._pragma("synchronous", "FULL", _SYNCHRONOUS_FULL)
            self._pragma("foreign_keys", "ON", 1)
            self._pragma("cell_size_check", "ON", 1)
            self._pragma("secure_delete", "ON", 1)
            self._pragma("wal_autocheckpoint", wal_bytes // PAGE_BYTES // 2, None)
            self._pragma("journal_size_limit", wal_bytes, wal_bytes)
            # A file that is larger than its share keeps its size: SQLite answers with that, and admission stays shut.
            self._pragma("max_page_count", (self.share_bytes - wal_bytes) // self.value("PRAGMA page_size"), None)
            self._inode = self.path.stat().st_ino
        except ERRORS as error:
            connection.close()
            raise as_damage(error) from error
        except StoreError:
            connection.close()
            raise

    def _pragma(self, name: str, value: object, expected: object) -> None:
        self.sql.execute(f"PRAGMA {name} = {value}").fetchall()
        if expected is not None and (found := self.value(f"PRAGMA {name}")) != expected:
            raise StoreError(f"SQLite did not take PRAGMA {name} = {value}: it says {found!r}")

    def refuse_newer(self) -> None:
        """Raise `SchemaTooNewError` if a newer version has changed the tables; nothing is touched."""
        applied = {each.name for each in self.schema.migrations.applied(self.sql)}
        unknown = sorted(applied - self.schema.known)
        if unknown and applied < self.schema.known | set(unknown):
            raise DamageError(f"the list of migrations names {unknown[0]!r}")
        if unknown:
            raise SchemaTooNewError(f"{self.path.name} was written by a newer version (it has {', '.join(unknown)})")

    def migrate(self) -> None:
        """Bring the tables up to this version. A migration that adds a column gives its rows their hash again."""
        self.schema.migrations.apply(self.sql)
        self._columns = {}

    def damage(self) -> tuple[str, ...]:
        """Return what quick_check and the row-hash scan find wrong, one line each; empty when all is well."""
        return damage.find(self)

    def check(self) -> Check:
        """Return the state of the file and of the SQLite library that serves it."""
        wal = self.path.with_name(self.path.name + "-wal")
        return Check(
            sqlite_version=sqlite3.sqlite_version,
            wal_reset_fixed=sqlite3.sqlite_version_info >= WAL_RESET_FIXED,
            synchronous_full=self.value("PRAGMA synchronous") == _SYNCHRONOUS_FULL,
            pages=self.value("PRAGMA page_count"),
            pages_max=self.value("PRAGMA max_page_count"),
            wal_bytes=wal.stat().st_size if wal.exists() else 0,
            damage=self.damage(),
        )

    # -- reading and writing ------------------------------------------------------------------------------------------

    @contextmanager
    def atomic(self) -> Iterator[Self]:
        """Run a block as one transaction, or as one savepoint inside a transaction."""
        with self.sql.atomic():
            yield self

    def rows(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self.sql.execute(sql, dict(params or {})).fetchall()

    def row(self, sql: str, params: Params | None = None) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        found: tuple[Any, ...] | None = self.sql.execute(sql, dict(params or {})).fetchone()
        return found

    def value(self, sql: str, params: Params | None = None) -> Any:
        """Return the first value of the first row, or None."""
        found = self.row(sql, params)
        return None if found is None else found[0]

    def insert(self, table: str, values: Params, *, conflict: str = "ABORT") -> int:
        """Insert one row (every column but `id`) with its hash; return its rowid. `conflict` is SQL's word for it."""
        columns = self.columns(table)
        sql = (
            f"INSERT OR {conflict} INTO {table} ({', '.join(columns)}, {rowhash.COLUMN}) "
            f"VALUES ({', '.join(':' + each for each in columns)}, "
            f"{rowhash.expression(table, [':' + each for each in columns])})"
        )
        return int(self.sql.execute(sql, {name: values[name] for name in columns}).lastrowid or 0)

    def update(self, table: str, where: str, params: Params, **changes: Any) -> int:
        """Set columns (to a value, or to an `Sql` expression) and the hash of the rows that match; return how many."""
        new = {name: f"({value.text})" if isinstance(value, Sql) else f":new_{name}" for name, value in changes.items()}
        hashed = rowhash.expression(table, [new.get(name, name) for name in self.columns(table)])
        sets = ", ".join(f"{name} = {text}" for name, text in new.items())
        values = {f"new_{name}": value for name, value in changes.items() if not isinstance(value, Sql)}
        sql = f"UPDATE {table} SET {sets}, {rowhash.COLUMN} = {hashed} WHERE {where}"
        return int(self.sql.execute(sql, {**values, **params}).rowcount)

    def delete(self, table: str, where: str, params: Params | None = None) -> int:
        """Delete the rows that match; return how many."""
        return int(self.sql.execute(f"DELETE FROM {table} WHERE {where}", dict(params or {})).rowcount)

    def tables(self) -> list[str]:
        """Return the names of the tables that carry row hashes."""
        named = self.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%sqlite_%'")
        return sorted(name for (name,) in named)

    def columns(self, table: str) -> list[str]:
        """Return the columns that a row's hash covers: all but `id`, which SQLite gives, and the hash itself."""
        if table not in self._columns:
            info = self.rows(f"PRAGMA table_info({table})")
            self._columns[table] = [row[1] for row in info if row[1] not in ("id", rowhash.COLUMN)]
        return self._columns[table]

    def hash_of(self, table: str) -> str:
        """Return the SQL expression of the hash that a row of `table` should have."""
        return rowhash.expression(table, self.columns(table))

    # -- space and life -----------------------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """Return the bytes of the pages in use, including what the open transaction has done so far."""
        return int((self.value("PRAGMA page_count") - self.value("PRAGMA freelist_count")) * PAGE_BYTES)

    def capacity_bytes(self) -> int:
        """Return the most bytes that the pages may take."""
        return int(self.value("PRAGMA max_page_count") * self.value("PRAGMA page_size"))

    def reopen(self) -> None:
        """Open the connection again after a failure; raise `StoreFailedError` when that fails too."""
        try:
            with suppress(sqlite3.Error):
                self.sql.conn.close()
            self.connect()
        except (sqlite3.Error, StoreError, DamageError) as error:
            raise StoreFailedError(f"{self.path.name} could not be opened again: {error}") from error

    def is_in_place(self) -> bool:
        """Return whether the file that is open is the one that the next opening finds, and its WAL too."""
        return self._has_its_name() and self.path.with_name(self.path.name + "-wal").exists()

    def require_in_place(self) -> None:
        """Raise `StoreFailedError` if somebody deleted or replaced the file or its WAL, once what is open, and has no
        name any more, is where the next opening looks for it.
        """
        if self.is_in_place():
            return
        try:
            if self._has_its_name():
                self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                raise StoreFailedError(f"the WAL of {self.path.name} was deleted; what it held is in the database")
            saved = salvage.save_open(self.sql.conn, self.path)
        except (OSError, sqlite3.Error) as error:
            raise StoreFailedError(f"{self.path.name} is gone, and could not be saved: {error}") from error
        raise StoreFailedError(f"{self.path.name} was deleted or replaced; its rows are in {saved.name}")

    def _has_its_name(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Checkpoint, close and unlock; a file that was closed well is known again by its next opening."""
        with suppress(sqlite3.Error, OSError):
            identity.renew(self, self.entropy)
        self.crash()

    def crash(self) -> None:
        """Let go of the file as a killed process does, without the marks of a clean end (the simulator, and errors)."""
        with suppress(sqlite3.Error, AttributeError):
            self.sql.conn.close()
        self._lock.release()


def open_database(
    path: Path,
    *,
    schema: Schema,
    share_bytes: int,
    now_s: int = 0,
    entropy: Entropy = os.urandom,
    host: bytes = b"",
) -> Database:
    """Open (or make) a database; see the module's text for what that includes.

    `share_bytes` is all that the file and its WAL may take of the disk. `host` names the hardware, so that a cloned
    disk is found out; empty when there is nothing to name it by. Raises `StoreInUseError`, `SchemaTooNewError`,
    `StoreError`; `OSError` and sqlite3 errors when the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))
    database = Database(path, schema, share_bytes, entropy, lock)
    lock.take()
    try:
        _open_or_replace(database, now_s)
        _settle_identity(database, now_s, host)
    except BaseException:
        database.crash()
        raise
    return database


def _open_or_replace(database: Database, now_s: int) -> None:
    salvage.finish_set_aside(database.path)
    database.recreated = not database.path.exists()
    mended = walchain.mend(database.path.with_name(database.path.name + "-wal"), PAGE_BYTES)
    try:
        database.connect()
        _examine(database, 0 if mended is None else mended.rotted)
        if mended is not None:
            incidents.record(database, "store.log-mended", {"frames": mended.repaired}, now_s)
        with suppress(sqlite3.OperationalError):  # what a life before left behind the log's end could be taken for ours
            database.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except DamageError as error:
        with suppress(sqlite3.Error):
            database.sql.conn.close()
        aside = salvage.set_aside(database.path)
        database.recreated = True
        database.connect()
        database.migrate()
        incidents.record(database, "store.damaged", {"aside": aside.name, "damage": str(error)[:200]}, now_s)
    # A cut between moving aside and carrying over leaves a file that the next opening still carries over.
    salvage.carry_over(database, now_s)


def _examine(database: Database, rotted: int) -> None:
    """Raise `DamageError` for a file that is not sound, and bring a sound one up to this version."""
    try:
        database.refuse_newer()
        found = database.damage()
        if rotted:
            # A page whose last writing rotted may be there as it was before, which no hash tells from the truth.
            found = f"{rotted} frames of the WAL have rotted", *found
        if found:
            raise DamageError("; ".join(found))
        database.migrate()
        require_schema(database)
    except ERRORS as error:
        # Generic errors are values that do not even decode, and a list of migrations that is not the truth.
        if is_passing(error):
            raise
        raise DamageError(str(error)) from error


def _settle_identity(database: Database, now_s: int, host: bytes) -> None:
    standing = identity.standing(database, host)
    changed = standing is identity.Standing.OTHER
    database.recreated, database.restored = changed and database.recreated, changed and not database.recreated
    if changed:
        name = "store.recreated" if database.recreated else "store.restored"
        incidents.record(database, name, {"file": database.path.name}, now_s)
    if "epochs" in database.schema.salvaged and (changed or database.epoch == 0):
        cause = "restored" if database.restored else "recreated" if database.recreated else "new"
        start_epoch(database, cause, now_s)
    if changed:
        # The gateway knows what each schema number means for ever; numbers that were forgotten are jumped over.
        floor = 256 * (1 + database.entropy(1)[0] % 254)
        values = {"name": SCHEMA_FLOOR, "value": floor.to_bytes(8, "big")}
        database.insert("settings", values, conflict="REPLACE")
    # Last, so that a cut before it finds the same things again instead of taking them for done.
    identity.renew(database, database.entropy, host)


def start_epoch(database: Database, cause: str, now_s: int) -> int:
    """Give the parcels from now on a new random 64-bit epoch and return it; those of older epochs keep theirs."""
    epoch = int.from_bytes(database.entropy(8), "big")
    with database.atomic():
        values = {"epoch": epoch.to_bytes(8, "big"), "started_s": now_s, "cause": cause, "last_sequence": 0}
        database.insert("epochs", values)
        incidents.record(database, "store.epoch", {"epoch": f"{epoch:016x}", "cause": cause}, now_s)
    return epoch


def open_reader(path: Path) -> SqliteDatabase:
    """Open a database that a daemon may hold, for reading only: it can neither write nor checkpoint."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
    connection.execute("PRAGMA query_only = ON")
    return SqliteDatabase(connection, execute_plugins=False)
