"""What is SQLite's and what is PostgreSQL's own in how the database is opened."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from protocol.errors import LocalError
from store.fleet.columns import Unsigned64, signed64
from store.fleet.database import Database
from store.fleet.fleet import FleetStore


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_sqlite_writes_with_wal_full_sync_and_foreign_keys(fleet: FleetStore) -> None:
    async with fleet._database.write() as transaction:
        found = [
            (await transaction.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_reading_connection_cannot_write(fleet: FleetStore) -> None:
    async with fleet._database.read() as connection:
        with pytest.raises(DBAPIError, match="readonly"):
            await connection.execute(text("DELETE FROM tokens"))


async def test_a_read_sees_one_state_while_others_commit(fleet: FleetStore, other: FleetStore) -> None:
    async with fleet._database.read() as connection:
        before = (await connection.execute(text("SELECT count(*) FROM tokens"))).scalar()
        await other.put_token(b"a" * 32, "laptop", "viewer", 1)
        assert (await connection.execute(text("SELECT count(*) FROM tokens"))).scalar() == before


def test_a_database_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="SQLite or PostgreSQL, not mysql"):
        Database("mysql://localhost/fleet")
    with pytest.raises(LocalError, match="is a file"):
        Database("sqlite://")


@pytest.mark.parametrize("value", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_64_unsigned_bits_survive_a_signed_column(value: int) -> None:
    kept = signed64(value)
    assert -(1 << 63) <= kept < 1 << 63
    assert Unsigned64().process_result_value(kept, None) == value


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_what_is_not_64_unsigned_bits_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        signed64(value)


async def test_a_closed_store_refuses_to_write_and_closes_again(fleet: FleetStore, backend: str) -> None:
    await fleet.close()
    await fleet.close()
    if backend == "sqlite":
        with pytest.raises(LocalError, match="closed"):
            await fleet.put_token(b"a" * 32, "laptop", "viewer", 1)
