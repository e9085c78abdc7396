# ruff: noqa: S608 - table and column names in SQL come from the schema, never from input.
"""What happens to a damaged database: it is moved aside and its sound rows are carried over; a few such files stay.

Rows are read from both ends of each table until SQLite stumbles, and only those whose hash holds are taken. Parcels
keep the epoch and sequence that they were signed under, so the gateway's deduplication still knows them; highest
trusted versions survive, so that damage does not open the door to a rollback. A table whose columns this version does
not know is left in the file that was moved aside.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store import incidents, rowhash
from store.asides import asides_of, next_aside, prune_asides
from store.damage import ERRORS
from store.files import publish, sync_folder

if TYPE_CHECKING:
    from store.database import Database

_WORD = "corrupt"
_MARK = "salvaged:"
_DONE = ".salvaged"
_PARTS = ("-wal", "-shm")
# Beyond, what is left stays in the file that was moved aside: new records need room as well.
_FULL_SHARE = 0.85
_ROWS_A_LOOK = 64


def set_aside(path: Path) -> Path:
    """Rename a database and its WAL to the next free `NAME.corrupt-N`; return where it lies now."""
    aside = next_aside(path, _WORD)
    path.rename(aside)
    _move_parts(path, aside)
    sync_folder(path.parent)
    return aside


def save_open(connection: sqlite3.Connection, path: Path) -> Path:
    """Write what is open, but has lost its name, as a file that was moved aside; return where it lies."""
    aside, whole = next_aside(path, _WORD), path.with_name(path.name + ".saved")
    whole.unlink(missing_ok=True)
    with closing(sqlite3.connect(whole)) as copy:
        connection.backup(copy)
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    if path.exists():
        # Somebody put another in its place: that is not what was written last, and its rows are not to be mixed in.
        path.rename(path.with_name(path.name + ".replaced"))
    for part in _PARTS:
        # All that the log of the lost file held is in the copy; on another file it would be damage.
        path.with_name(path.name + part).unlink(missing_ok=True)
    whole.rename(aside)
    sync_folder(path.parent)
    return aside


def finish_set_aside(path: Path) -> None:
    """Complete a `set_aside` that a cut interrupted: a WAL without its database follows it."""
    if not path.exists() and (asides := asides_of(path, _WORD)):
        _move_parts(path, asides[-1])


def _move_parts(path: Path, aside: Path) -> None:
    for part in _PARTS:
        source, target = path.with_name(path.name + part), aside.with_name(aside.name + part)
        if source.exists() and not target.exists():
            source.rename(target)


def carry_over(database: Database, now_s: int) -> None:
    """Take the sound rows of every file that was moved aside and not carried over yet; one transaction a file.

    The newest comes first: what it says of a row is what was true last. A file that was carried over is marked in the
    transaction, and by a file of its own beside it, which the next damage does not take along: its rows, of which many
    have gone up since, must not come back.
    """
    for aside in reversed(asides_of(database.path, _WORD)):
        mark, done = _MARK + aside.name, aside.with_name(aside.name + _DONE)
        if done.exists():
            continue
        if not _is_marked(database, mark):
            with database.atomic():
                counts = {table: _carry_table(database, aside, table) for table in database.schema.salvaged}
                database.insert("settings", {"name": mark, "value": b"\x01"}, conflict="REPLACE")
                incidents.record(database, "store.salvaged", {"aside": aside.name, **counts}, now_s)
        publish(done, b"")
    _prune(database.path, database.share_bytes)


def _prune(path: Path, bytes_max: int) -> None:
    """Delete the oldest of what was moved aside and carried over, beyond a few and beyond `bytes_max` together."""
    gone = prune_asides(
        path,
        _WORD,
        bytes_max=bytes_max,
        parts=(*_PARTS, _DONE),
        may_go=lambda aside: aside.with_name(aside.name + _DONE).exists(),
    )
    if gone:
        sync_folder(path.parent)


def _is_marked(database: Database, mark: str) -> bool:
    return database.row("SELECT 1 FROM settings WHERE name = :mark", {"mark": mark}) is not None


def _carry_table(database: Database, aside: Path, table: str) -> int:
    """Carry one table over; return how many rows were taken (rows that are there already do not count)."""
    taken = 0
    columns = database.columns(table)
    for values in _sound_rows(aside, table, columns):
        if table == "settings" and database.row("SELECT 1 FROM settings WHERE name = :name", values):
            continue
        if table == "trusted" and not _is_higher(database, values):
            continue
        # A page cap that is reached would undo the whole transaction.
        if taken % _ROWS_A_LOOK == 0 and database.used_bytes() > _FULL_SHARE * database.capacity_bytes():
            break
        conflict = "REPLACE" if table == "trusted" else "IGNORE"
        before = database.value("SELECT total_changes()")
        database.insert(table, values, conflict=conflict)
        taken += database.value("SELECT total_changes()") > before
    return taken


def _is_higher(database: Database, values: dict[str, Any]) -> bool:
    sql = "SELECT version FROM trusted WHERE kind = :kind AND name = :name"
    held = database.value(sql, {"kind": values["kind"], "name": values["name"]})
    return held is None or values["version"] > held


def _sound_rows(aside: Path, table: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    hashed = rowhash.expression(table, columns)
    seen = -1
    for order, bound in (("ASC", ""), ("DESC", " AND rowid > :seen")):
        sql = (
            f"SELECT rowid, {', '.join(columns)} FROM {table} NOT INDEXED "
            f"WHERE {rowhash.COLUMN} IS {hashed}{bound} ORDER BY rowid {order}"
        )
        try:
            with closing(sqlite3.connect(aside, isolation_level=None)) as connection:
                rowhash.register(connection)
                for rowid, *values in connection.execute(sql, {"seen": seen} if bound else {}):
                    if order == "ASC":
                        seen = rowid
                    yield dict(zip(columns, values, strict=True))
                return
        except ERRORS:
            continue  # SQLite stumbled over damage: come from the other end, or leave the table
