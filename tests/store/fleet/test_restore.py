"""A restore replaces the database whole or not at all, and forgets no revocation that it can read."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from store.fleet import restore as module
from store.fleet.restore import BackupUnusableError, restore


def count(path: Path, table: str) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def backup(migrated_file: Path, tmp_path: Path) -> Path:
    shutil.copy(migrated_file, tmp_path / "backup.db")
    return tmp_path / "backup.db"


@pytest.fixture
def place(migrated_file: Path, tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    shutil.copy(migrated_file, tmp_path / "data" / "fleet.db")
    return tmp_path / "data" / "fleet.db"


def names(place: Path) -> set[str]:
    return {path.name for path in place.parent.iterdir()}


def test_a_restore_into_an_empty_folder(backup: Path, tmp_path: Path) -> None:
    restored = restore(backup, tmp_path / "fleet.db")
    assert (restored.kept_as, restored.revocations) == (None, None)
    assert count(tmp_path / "fleet.db", "trucks") == 0
    assert (tmp_path / "fleet.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300, None])
def test_what_is_no_backup_changes_nothing(place: Path, tmp_path: Path, content: bytes | None) -> None:
    before = place.read_bytes()
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BackupUnusableError):
        restore(file, place)
    assert place.read_bytes() == before
    assert not names(place) & {"fleet.db.restoring", "fleet.db.before-1"}


def test_the_file_of_a_database_in_use_is_no_backup(backup: Path, place: Path) -> None:
    """Its newest rows are in the log beside it."""
    with contextlib.closing(sqlite3.connect(backup, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO tokens VALUES (x'aa', 'ada', 'admin', 1, NULL, NULL)")
        with pytest.raises(BackupUnusableError, match="in use"):
            restore(backup, place)


def test_a_damaged_backup_changes_nothing(backup: Path, place: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[4096 : 40 * 4096] = b"\x55" * (39 * 4096)
    backup.write_bytes(data)
    with pytest.raises(BackupUnusableError):
        restore(backup, place)
    assert not names(place) & {"fleet.db.restoring", "fleet.db.before-1"}


def test_each_replaced_database_is_kept_with_what_its_log_held(backup: Path, place: Path) -> None:
    writer = sqlite3.connect(place, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("INSERT INTO tokens VALUES (x'aa', 'ada', 'admin', 1, NULL, 2)")
    # As after a kill: the log is there, its writer is not.
    for suffix in ("", "-wal"):
        shutil.copy(f"{place}{suffix}", f"{place}.copy{suffix}")
    writer.close()
    for suffix in ("", "-wal"):
        Path(f"{place}.copy{suffix}").rename(f"{place}{suffix}")
    kept = restore(backup, place).kept_as
    assert kept is not None
    assert count(kept, "tokens") == 1
    assert count(place, "tokens") == 0
    assert restore(backup, place).kept_as == place.with_name("fleet.db.before-2")


def test_a_database_that_cannot_be_read_is_kept_and_its_revocations_are_said_to_be_unknown(
    backup: Path, place: Path
) -> None:
    place.write_bytes(b"rubble" * 1000)
    restored = restore(backup, place)
    assert restored.revocations is None
    assert restored.kept_as is not None
    assert restored.kept_as.read_bytes() == b"rubble" * 1000
    assert count(place, "trucks") == 0


def test_tokens_revoked_since_stay_revoked(backup: Path, place: Path) -> None:
    for path, revoked in ((backup, "NULL"), (place, "7")):
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"INSERT INTO tokens VALUES (x'aa', 'ada', 'admin', 1, NULL, {revoked})")
    assert restore(backup, place).revocations == 1
    with sqlite3.connect(place) as connection:
        assert connection.execute("SELECT revoked_ms FROM tokens").fetchone() == (7,)


def test_a_failure_before_the_last_step_leaves_the_old_database(
    backup: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.read_bytes()

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_sync", full)
    with pytest.raises(OSError, match="No space"):
        restore(backup, place)
    assert place.read_bytes() == before
    assert not names(place) & {"fleet.db.restoring", "fleet.db.before-1"}
