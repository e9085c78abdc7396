"""What was moved aside is kept for a person to look at, but not for ever."""

from __future__ import annotations

from pathlib import Path

from store.asides import KEPT_MAX, asides_of, next_aside, prune_asides
from store.database import open_database
from store.schema import STATE


def _make(folder: Path, number: int, size: int) -> Path:
    path = folder / f"state.db.corrupt-{number}"
    path.write_bytes(bytes(size))
    return path


def _left(folder: Path) -> list[str]:
    return [each.name for each in asides_of(folder / "state.db", "corrupt")]


def test_the_newest_few_stay(tmp_path: Path) -> None:
    for number in (2, 9, 10, 11, 12):
        _make(tmp_path, number, 10)
    prune_asides(tmp_path / "state.db", "corrupt", bytes_max=1_000)
    assert _left(tmp_path) == [f"state.db.corrupt-{number}" for number in (10, 11, 12)]


def test_together_they_take_a_share_at_most_but_the_newest_stays(tmp_path: Path) -> None:
    _make(tmp_path, 1, 10)
    _make(tmp_path, 2, 900)
    _make(tmp_path, 3, 5_000)
    prune_asides(tmp_path / "state.db", "corrupt", bytes_max=1_000)
    assert _left(tmp_path) == ["state.db.corrupt-3"]


def test_a_number_is_not_given_again(tmp_path: Path) -> None:
    _make(tmp_path, 7, 1)
    (tmp_path / "state.db.corrupt-8.salvaged").touch()
    assert next_aside(tmp_path / "state.db", "corrupt").name == "state.db.corrupt-8"
    assert next_aside(tmp_path / "links.db", "corrupt").name == "links.db.corrupt-1"


def test_folders_go_whole(tmp_path: Path) -> None:
    for number in range(1, 6):
        folder = tmp_path / f"keys.before-{number}"
        folder.mkdir()
        (folder / "edhoc.key").write_bytes(b"x")
    gone = prune_asides(tmp_path / "keys", "before", bytes_max=1_000)
    assert [each.name for each in gone] == ["keys.before-2", "keys.before-1"]
    assert len(asides_of(tmp_path / "keys", "before")) == KEPT_MAX


def test_a_truck_whose_disk_rots_again_and_again_keeps_a_few_files_and_its_sound_rows(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = open_database(path, schema=STATE, share_bytes=4_000_000)
    database.insert("settings", {"name": "sound", "value": b"kept"})
    for _ in range(KEPT_MAX + 3):
        database.insert("settings", {"name": "rots", "value": b"here it rots"}, conflict="REPLACE")
        database.close()
        data = path.read_bytes()
        assert b"here it rots" in data
        path.write_bytes(data.replace(b"here it rots", b"here it rotted"[:12]))
        database = open_database(path, schema=STATE, share_bytes=4_000_000)
    assert database.value("SELECT value FROM settings WHERE name = 'sound'") == b"kept"
    database.close()
    assert len(_left(tmp_path)) == KEPT_MAX
    assert len(list(tmp_path.glob("*.salvaged"))) == KEPT_MAX
