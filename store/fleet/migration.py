"""Bring a fleet's database to this release's schema, and refuse to work on another.

The revisions are in `store/fleet/migrations/versions`. A migration is one transaction on both databases: it happens
or it does not. Deliberately absent: a way down, since a backup is the way back.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from store.fleet.database import Database
from store.fleet.errors import SchemaVersionError


async def migrate(url: str) -> None:
    """Bring the database to this release's schema, creating it if it is empty; raise `SchemaVersionError` if newer."""
    database = Database(url)
    _create_file(database)
    try:
        async with database.write() as transaction:
            await database.lock(transaction, "migration")
            await transaction.run(_upgrade)
    finally:
        await database.close()


async def check_version(database: Database) -> None:
    """Check that the database's schema is this release's; raise `SchemaVersionError` saying what to do."""
    path = database.path
    if path is not None and not path.exists():
        raise SchemaVersionError(f"there is no database at {path}: run digitruck-gateway migrate")
    async with database.read() as connection:
        await connection.run_sync(_check)


def _create_file(database: Database) -> None:
    """Create a SQLite file that only its owner can read: it holds the keys of transport contexts."""
    if database.path is not None and not database.path.exists():
        database.path.touch(mode=0o600)


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    # A percent sign in a path would be taken for configparser's interpolation.
    folder = str(files("store.fleet") / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    return config


@cache
def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(revision: str | None) -> None:
    known = {each.revision for each in _script().walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaVersionError(f"the database is of a newer release (schema {revision}): upgrade this software")


def _upgrade(connection: Connection) -> None:
    _refuse_newer(_current(connection))
    command.upgrade(_config(connection), "head")


def _check(connection: Connection) -> None:
    revision = _current(connection)
    _refuse_newer(revision)
    head = _script().get_current_head()
    if revision != head:
        found = f"of schema {revision}" if revision else "empty"
        raise SchemaVersionError(f"the database is {found}, {head} is needed: run digitruck-gateway migrate")
