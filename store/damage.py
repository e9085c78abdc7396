# ruff: noqa: S608 - table and column names in SQL come from the schema, never from input.
"""What is wrong with a database file: rot that SQLite sees, rot that only row hashes see, and rot in the schema itself.

A text of the schema that has rotted may still be SQL: then a column has another name, every row's hash holds, and the
first query that asks for it fails, in each life anew. So the schema is compared with what the migrations make.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import TYPE_CHECKING, Final

from sqlite_utils import Database as SqliteDatabase

from store import rowhash
from store.schema import Schema

if TYPE_CHECKING:
    from store.database import Database

_CORRUPT, _NOT_A_DATABASE = 11, 26
# A disk that is full, that takes no write or is gone for now, has damaged nothing: SQLITE_BUSY, _LOCKED, _NOMEM,
# _READONLY, _IOERR, _FULL, _CANTOPEN. But of the errors of input and output some say that a page cannot be read, and
# never will: SQLITE_IOERR_READ, _SHORT_READ, _CORRUPTFS, _DATA.
_PASSING = frozenset({5, 6, 7, 8, 10, 13, 14})
_UNREADABLE = frozenset({266, 522, 8_458, 8_202})
# What SQLite raises over rot. Its very message may quote a rotted name, which then does not decode.
ERRORS: Final = (sqlite3.DatabaseError, UnicodeDecodeError)
_SCHEMA: Final = (
    "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema "
    "WHERE name NOT LIKE '%sqlite_%' AND tbl_name NOT LIKE '%sqlite_%' ORDER BY type, name"
)


class DamageError(Exception):
    """The file is not a sound database of ours; opening answers it by moving the file aside."""


def find(database: Database) -> tuple[str, ...]:
    """Return what quick_check and the row-hash scan find wrong, one line each; empty when all is well."""
    found = [line for (line,) in database.rows("PRAGMA quick_check(10)") if line != "ok"]
    if found:
        return tuple(found)
    for table in database.tables():
        held = f"{rowhash.COLUMN} IS NOT {database.hash_of(table)}"
        bad = database.rows(f"SELECT rowid FROM {table} WHERE {held} LIMIT 10")
        found += [f"{table}: the hash of row {rowid} does not hold" for (rowid,) in bad]
    return tuple(found)


def require_schema(database: Database) -> None:
    """Raise `DamageError` if the tables of a migrated database are not those that the migrations make."""
    if {*database.rows(_SCHEMA)} != _made_by(database.schema):
        raise DamageError("the schema is not what its migrations make")


@cache
def _made_by(schema: Schema) -> frozenset[tuple[str, ...]]:
    with sqlite3.connect(":memory:", isolation_level=None) as connection:
        rowhash.register(connection)
        made = SqliteDatabase(connection, execute_plugins=False)
        schema.migrations.apply(made)
        found = frozenset(connection.execute(_SCHEMA))
    connection.close()
    return found


def as_damage(error: Exception) -> Exception:
    """Return an error of opening as `DamageError` if the file is what is wrong; else as it is."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in (_CORRUPT, _NOT_A_DATABASE) or code in _UNREADABLE or isinstance(error, UnicodeDecodeError):
        return DamageError(str(error))
    return DamageError(str(error)) if "malformed" in str(error) or "not a database" in str(error) else error


def is_passing(error: Exception) -> bool:
    """Return whether an error is of a disk that may take everything again later."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _PASSING and code not in _UNREADABLE
