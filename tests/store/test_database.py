"""Opening a database: what is set on every open, what a share bounds, what an epoch outlives."""

import collections
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from store import incidents
from store.database import Database, Sql, open_database, open_reader, start_epoch
from store.errors import SchemaTooNewError, StoreFailedError, StoreInUseError
from store.schema import STATE
from store.settings import Settings


def names(database: Database) -> list[str]:
    return [each.name for each in incidents.unreported(database, 100)]


def test_every_open_is_full_wal_capped_and_bounded(opened) -> None:
    for share in (8 << 20, 4 << 20):
        database = opened(share_bytes=share)
        check = database.check()
        assert check.synchronous_full
        assert database.value("PRAGMA journal_mode") == "wal"
        assert database.value("PRAGMA foreign_keys") == 1
        assert database.value("PRAGMA journal_size_limit") == share // 8
        assert check.pages_max * 4096 == share - share // 8
        assert check.damage == ()
        assert check.wal_reset_fixed == (sqlite3.sqlite_version_info >= (3, 51, 3))
        database.close()


def test_share_is_never_exceeded_and_delete_still_works_when_it_is_used_up(opened) -> None:
    database = opened(share_bytes=1 << 20)
    fillers = (f"filler-{number}" for number in range(1_000))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        collections.deque((Settings(database).put(name, bytes(4_000)) for name in fillers), maxlen=0)
    files = [each for each in database.path.parent.iterdir() if each.name in ("state.db", "state.db-wal")]
    assert sum(each.stat().st_size for each in files) <= (1 << 20) + (64 << 10)
    assert database.delete("settings", "name LIKE 'filler-%'") > 100
    Settings(database).put("after", b"fits again")


def test_wal_stays_bounded_over_many_commits(opened) -> None:
    database = opened(share_bytes=1 << 20)
    for number in range(300):
        Settings(database).put("same", bytes([number % 256]) * 3_000)
    assert database.check().wal_bytes <= 1 << 17


def test_an_epoch_is_made_with_the_database_and_outlives_closing_and_crashing(opened) -> None:
    first = opened()
    epoch = first.epoch
    assert 0 < epoch < 1 << 64
    assert names(first) == ["store.epoch"]
    first.close()
    second = opened()
    assert second.epoch == epoch
    second.crash()
    third = opened()
    assert (third.epoch, third.restored, third.recreated) == (epoch, False, False)


def test_an_epoch_started_in_an_undone_transaction_never_was(database: Database) -> None:
    epoch = database.epoch
    database.sql.begin()
    assert start_epoch(database, "test", 0) == database.epoch != epoch
    database.sql.rollback()
    assert database.epoch == epoch


def test_a_second_process_is_kept_out_until_the_first_has_gone(opened) -> None:
    first = opened()
    with pytest.raises(StoreInUseError, match=r"state\.db"):
        opened()
    first.close()
    opened()


def test_a_reader_sees_the_state_and_cannot_write(opened) -> None:
    database = opened()
    Settings(database).put("colour", b"blue")
    reader = open_reader(database.path)
    assert reader.execute("SELECT value FROM settings WHERE name = 'colour'").fetchone() == (b"blue",)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM settings")
    reader.close()


def test_update_keeps_hashes_true_with_values_and_expressions(database: Database) -> None:
    database.insert("incidents", {"name": "a", "at_s": 5, "details": "{}", "reported": 0})
    assert database.update("incidents", "name = :old", {"old": "a"}, name="b", at_s=Sql("at_s + 2")) == 1
    assert database.row("SELECT name, at_s FROM incidents ORDER BY id DESC") == ("b", 7)
    assert database.damage() == ()


def test_a_newer_schema_is_refused_and_left_untouched(opened, tmp_path: Path) -> None:
    first = opened()
    table = first.sql["_sqlite_migrations"]
    table.insert({"migration_set": "state", "name": "s999_later", "applied_at": "later"})
    first.close()
    before = (tmp_path / "state.db").read_bytes()
    with pytest.raises(SchemaTooNewError, match="s999_later"):
        opened()
    assert (tmp_path / "state.db").read_bytes() == before
    assert not (tmp_path / "state.db.corrupt-1").exists()


def test_a_rotten_migration_name_is_damage_not_a_newer_version(opened, tmp_path: Path) -> None:
    first = opened()
    first.sql.execute("UPDATE _sqlite_migrations SET name = 's001_statf' WHERE name = 's001_state'")
    first.close()
    assert opened().recreated
    assert (tmp_path / "state.db.corrupt-1").exists()


def test_a_database_of_an_older_version_is_brought_up_to_this_one(opened, tmp_path: Path) -> None:
    first = opened()
    epoch = first.epoch
    newest = first.value("SELECT name FROM _sqlite_migrations WHERE migration_set = 'state' ORDER BY id DESC LIMIT 1")
    assert newest == "s004_bases"
    first.sql.execute("DROP TABLE open_rows")
    first.sql.execute("DELETE FROM _sqlite_migrations WHERE name = 's002_open_rows'")
    first.close()
    second = opened()
    assert "open_rows" in second.tables()
    assert (second.epoch, second.recreated, second.restored) == (epoch, False, False)


def test_committed_rows_survive_a_process_that_dies_without_closing(tmp_path: Path) -> None:
    def open_it() -> Database:
        return open_database(tmp_path / "state.db", schema=STATE, share_bytes=8 << 20)

    child = os.fork()
    if child == 0:
        try:
            database = open_it()
            Settings(database).put("before", b"1")
            database.sql.begin()
            Settings(database).put("open", b"2")
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    database = open_it()
    assert Settings(database).get("before") == b"1"
    assert Settings(database).get("open") is None
    assert not database.restored
    database.close()


def test_reopening_goes_on_where_the_disk_is(database: Database, tmp_path: Path) -> None:
    Settings(database).put("a", b"1")
    database.reopen()
    assert Settings(database).get("a") == b"1"
    assert database.check().synchronous_full
    database.sql.conn.close()
    (tmp_path / "state.db").rename(tmp_path / "away")
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StoreFailedError):
        database.reopen()
