"""A damaged file is set aside, never deleted, and its sound rows are carried over."""

import os
import shutil
from pathlib import Path

import pytest

from store import incidents
from store.database import Database, open_database
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
