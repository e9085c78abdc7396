"""Migrations make what the tables say, and a store of another release is refused."""

import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from store.fleet.database import Database
from store.fleet.errors import SchemaVersionError
from store.fleet.fleet import FleetStore, migrate
from store.fleet.tables import metadata


async def test_migrations_make_exactly_the_tables_of_the_metadata(fleet_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        return list(compare_metadata(context, metadata))

    database = Database(fleet_url)
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_migrating_again_changes_nothing(empty_url: str) -> None:
    await migrate(empty_url)
    await migrate(empty_url)
    store = await FleetStore.open(empty_url)
    await store.ping()
    await store.close()


async def test_an_empty_database_is_refused_with_what_to_do(empty_url: str) -> None:
    with pytest.raises(SchemaVersionError, match="run digitruck-gateway migrate"):
        await FleetStore.open(empty_url)


async def test_a_newer_database_is_refused_by_open_and_by_migrate(own_url: str) -> None:
    database = Database(own_url)
    async with database.write() as transaction:
        await transaction.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(SchemaVersionError, match="newer release"):
        await FleetStore.open(own_url)
    with pytest.raises(SchemaVersionError, match="newer release"):
        await migrate(own_url)


async def test_a_failed_migration_leaves_nothing_behind(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic.operations import Operations

    create = Operations.create_table

    def fail_midway(self: Operations, name: str, *columns: object, **options: object) -> object:
        if name == "parcels":
            raise OSError("the power went")
        return create(self, name, *columns, **options)

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_table", lambda *a, **k: fail_midway(_proxy(), *a, **k))
        with pytest.raises(OSError, match="the power went"):
            await migrate(empty_url)
    await migrate(empty_url)


def _proxy() -> object:
    import alembic.op

    return alembic.op._proxy


async def test_opening_a_missing_file_makes_none(tmp_path: Path) -> None:
    with pytest.raises(SchemaVersionError, match="no database at"):
        await FleetStore.open(f"sqlite:///{tmp_path}/missing.db")
    assert list(tmp_path.iterdir()) == []


async def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    await migrate(f"sqlite:///{tmp_path}/fleet.db")
    assert stat.S_IMODE((tmp_path / "fleet.db").stat().st_mode) == 0o600


async def test_rollups_of_before_units_are_made_anew(empty_url: str) -> None:
    from alembic import command

    from store.fleet import migration

    database = Database(empty_url)
    migration._create_file(database)
    async with database.write() as transaction:
        await transaction.run(lambda connection: command.upgrade(migration._config(connection), "0001"))
        for statement in (
            "INSERT INTO trucks (name, group_name, signing_key, credential, kid_cred, enrolled_ms)"
            " VALUES ('ke-arrow', 'kenya', 'a', 'b', 'c', 1)",
            "INSERT INTO epochs VALUES ('ke-arrow', 7, 1, 2, '', 0, 1, 1)",
            "INSERT INTO parcels VALUES (1, 'ke-arrow', 7, 1, 1, 2, 1, 'sat', 'd', 'e')",
            "INSERT INTO batches (id, truck, state, schema_number) VALUES (1, 'ke-arrow', 3, 1)",
            "INSERT INTO rollups VALUES ('ke-arrow', 'pv', 3600000, 0, 1, 1, 1, 1, 1, 1)",
        ):
            await transaction.execute(text(statement))
    await database.close()
    await migrate(empty_url)
    store = await FleetStore.open(empty_url)
    assert [batch.id for batch in await store.pending_rollups()] == [1]
    assert await store.rollups("ke-arrow", None, 0, 1) == []
    await store.close()
