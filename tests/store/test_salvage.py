"""A damaged file is set aside, never deleted, and its sound rows are carried over."""

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from store import incidents
from store.database import Database, open_database
from store.openrows import OpenRow, OpenRows
from store.schema import STATE
from store.settings import Settings


def names(database: Database) -> list[str]:
    return [each.name for each in incidents.unreported(database, 100)]


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


def test_damage_after_damage_brings_nothing_back_that_was_carried_over_before(opened, tmp_path: Path, flip) -> None:
    first = opened()
    Settings(first).put("floor", b"old")
    OpenRows(first).add(OpenRow(1, None, 5, (1,)))
    for number in range(4):
        Settings(first).put("rotten", b"rotten-%d-" % number * 20)
        first.close()
        flip(tmp_path / "state.db", b"rotten-%d-" % number * 20)
        first = opened()
        Settings(first).put("floor", b"new-%d" % number)
        # What a batch took away stays away.
        assert OpenRows(first).count(1) == (1 if number == 0 else 0)
        OpenRows(first).clear(1)
    assert Settings(first).get("floor") == b"new-3"
    told = [each.name for each in incidents.unreported(first, 1_000)]
    assert (told.count("store.damaged"), told.count("store.salvaged")) == (4, 4)


def test_more_than_fits_is_left_where_it_is_and_the_database_opens(opened, tmp_path: Path, flip) -> None:
    first = opened(share_bytes=8 << 20)
    for number in range(1_400):
        Settings(first).put(f"name-{number:04}", b"%04d" % number * 900)
    first.close()
    flip(tmp_path / "state.db", b"0700" * 900)
    second = opened(share_bytes=2 << 20)
    kept = second.value("SELECT count(*) FROM settings WHERE name LIKE 'name-%'")
    assert 100 < kept < 1_400
    Settings(second).put("after", b"there is room")
    assert second.check().damage == ()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY])
def test_a_disk_that_takes_nothing_now_is_no_damage(
    opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    first = opened()
    Settings(first).put("kept", b"1")
    first.close()
    error = sqlite3.OperationalError("the disk takes nothing")
    error.sqlite_errorcode = code

    def fail(database: Database) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Database, "damage", fail)
        with pytest.raises(sqlite3.OperationalError, match="takes nothing"):
            opened()
    second = opened()
    assert Settings(second).get("kept") == b"1"
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_whatever_byte_of_the_schemas_page_has_rotted_the_database_opens(opened, tmp_path: Path) -> None:
    first = opened()
    Settings(first).put("kept", b"1")
    first.close()
    whole = (tmp_path / "state.db").read_bytes()
    seed = random.Random(1)
    for number, at in enumerate(seed.sample(range(100, 4096), 60)):
        folder = tmp_path / str(number)
        folder.mkdir()
        # No byte of UTF-8 stands beside this one: an error that quotes it does not even decode.
        (folder / "state.db").write_bytes(whole[:at] + b"\xcc" + whole[at + 1 :])
        database = open_database(folder / "state.db", schema=STATE, share_bytes=8 << 20)
        assert not database.damage()
        database.close()
