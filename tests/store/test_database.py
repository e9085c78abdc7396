"""Opening a database: what is set on every open, and what happens to a damaged, restored, copied or newer one."""

import collections
import os
import shutil
import sqlite3
import subprocess
import sys
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


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\x00" + bytes(5_000), os.urandom(9_000)])
def test_a_file_that_is_no_database_is_set_aside_and_never_deleted(opened, tmp_path: Path, content: bytes) -> None:
    first = opened()
    epoch = first.epoch
    first.close()
    (tmp_path / "state.db").write_bytes(content)
    second = opened(now_s=77)
    assert second.epoch != epoch
    if content:
        assert (tmp_path / "state.db.corrupt-1").read_bytes() == content
        assert "store.damaged" in names(second)
    assert second.recreated or second.restored
    assert "store.epoch" in names(second)
    assert {each.at_s for each in incidents.unreported(second)} == {77}


def test_a_flipped_bit_in_a_row_is_found_and_the_sound_rows_are_carried_over(opened, tmp_path: Path, flip) -> None:
    first = opened()
    settings = Settings(first)
    for number in range(50):
        settings.put(f"name-{number}", b"value-%d-" % number * 20)
    epoch = first.epoch
    first.close()
    flip(tmp_path / "state.db", b"value-17-" * 20)
    second = opened()
    assert [each for each in names(second) if each == "store.damaged"]
    kept = {name for (name,) in second.rows("SELECT name FROM settings WHERE name LIKE 'name-%'")}
    assert kept == {f"name-{number}" for number in range(50) if number != 17}
    assert second.epoch != epoch
    assert next(row[0] for row in second.rows("SELECT epoch FROM epochs ORDER BY id")) == epoch.to_bytes(8, "big")
    second.close()
    third = opened()
    assert third.epoch == second_epoch(third)
    assert not third.recreated
    assert len([each for each in names(third) if each == "store.salvaged"]) == 1


def second_epoch(database: Database) -> int:
    return int.from_bytes(database.rows("SELECT epoch FROM epochs ORDER BY id")[-1][0], "big")


def test_a_torn_page_loses_only_the_rows_on_it(opened, tmp_path: Path) -> None:
    first = opened()
    for number in range(400):
        Settings(first).put(f"name-{number:04}", b"v" * 900)
    first.close()
    data = bytearray((tmp_path / "state.db").read_bytes())
    at = data.index(b"name-0200") // 4096 * 4096
    data[at : at + 4096] = bytes(4096)
    (tmp_path / "state.db").write_bytes(data)
    second = opened()
    kept = second.value("SELECT count(*) FROM settings WHERE name LIKE 'name-%'")
    assert 380 <= kept < 400


def test_a_cut_while_moving_aside_still_carries_over(opened, tmp_path: Path) -> None:
    first = opened()
    Settings(first).put("kept", b"1")
    first.sql.conn.execute("PRAGMA wal_autocheckpoint = 0")
    Settings(first).put("only-in-wal", b"2")
    shutil.copytree(tmp_path, tmp_path / "copy")
    first.crash()
    folder = tmp_path / "copy"
    (folder / "state.db").rename(folder / "state.db.corrupt-1")
    database = open_database(folder / "state.db", schema=STATE, share_bytes=8 << 20)
    assert Settings(database).get("kept") == b"1"
    assert Settings(database).get("only-in-wal") == b"2"
    database.close()


def test_a_database_restored_from_an_older_copy_starts_a_new_epoch(opened, tmp_path: Path) -> None:
    first = opened()
    first.close()
    backup = (tmp_path / "state.db").read_bytes()
    second = opened()
    epoch = second.epoch
    second.close()
    (tmp_path / "state.db").write_bytes(backup)
    third = opened()
    assert third.restored
    assert third.epoch != epoch
    assert "store.restored" in names(third)


def test_a_copied_folder_starts_a_new_epoch(opened, tmp_path: Path) -> None:
    first = opened()
    epoch = first.epoch
    first.close()
    shutil.copytree(tmp_path, tmp_path / "copy")
    copy = open_database(tmp_path / "copy" / "state.db", schema=STATE, share_bytes=8 << 20)
    assert copy.restored
    assert copy.epoch != epoch
    copy.close()


def test_a_disk_moved_to_other_hardware_starts_a_new_epoch(opened) -> None:
    first = opened(host=b"serial-1")
    first.close()
    same = opened(host=b"serial-1")
    assert not same.restored
    same.close()
    assert opened(host=b"serial-2").restored


def test_a_deleted_database_is_a_new_epoch_and_said_so(opened, tmp_path: Path) -> None:
    first = opened()
    epoch = first.epoch
    first.close()
    (tmp_path / "state.db").unlink()
    second = opened()
    assert second.recreated
    assert not second.restored
    assert second.epoch != epoch
    assert "store.recreated" in names(second)


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
    assert newest == "s002_open_rows"
    first.sql.execute("DROP TABLE open_rows")
    first.sql.execute("DELETE FROM _sqlite_migrations WHERE name = 's002_open_rows'")
    first.close()
    second = opened()
    assert "open_rows" in second.tables()
    assert (second.epoch, second.recreated, second.restored) == (epoch, False, False)


def test_committed_rows_survive_a_process_that_dies_without_closing(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from store.database import open_database; "
        "from store.schema import STATE; from store.settings import Settings; "
        "db = open_database(Path(sys.argv[1]), schema=STATE, share_bytes=8 << 20); "
        "Settings(db).put('before', b'1'); db.sql.begin(); Settings(db).put('open', b'2'); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "state.db"], check=False)
    assert done.returncode == 9
    database = open_database(tmp_path / "state.db", schema=STATE, share_bytes=8 << 20)
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
