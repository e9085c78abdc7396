"""A restored database takes the other's place in one step; what must not be undone comes along if it can be read."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from store.fleet.restore import BackupUnusableError, carry, check_copy, heard_ms, swap

_TRUCK = "INSERT INTO trucks (name, group_name, signing_key, credential, kid_cred, enrolled_ms, last_heard_ms) "
_DOCUMENT = (
    "INSERT INTO documents "
    "(digest, kind, version, name, issued_s, expires_s, size, received_ms, put_by, signed, stream)"
)


def execute(path: Path, sql: str, *params: object) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql, params)


def count(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def put_document(path: Path, kind: int, version: int, signed: bytes, digest: bytes | None = None) -> None:
    digest = hashlib.sha256(signed).digest() if digest is None else digest
    values = (digest, kind, version, "n", 0, 0, len(signed), 0, "ada", signed, b"stream%d" % kind)
    execute(path, f"{_DOCUMENT} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *values)


@pytest.fixture
def part(migrated_file: Path, tmp_path: Path) -> Path:
    """A copy from a backup."""
    shutil.copy(migrated_file, tmp_path / "part.db")
    return tmp_path / "part.db"


@pytest.fixture
def place(migrated_file: Path, tmp_path: Path) -> Path:
    """The database that is there."""
    (tmp_path / "data").mkdir()
    shutil.copy(migrated_file, tmp_path / "data" / "fleet.db")
    return tmp_path / "data" / "fleet.db"


def test_a_copy_into_an_empty_folder(part: Path, tmp_path: Path) -> None:
    assert swap(part, tmp_path / "fleet.db") is None
    assert count(tmp_path / "fleet.db", "trucks") == 0
    assert not part.exists()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300])
def test_what_is_no_database_of_a_fleet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BackupUnusableError, match="no database of a fleet"):
        check_copy(tmp_path / "file")


def test_a_damaged_copy_is_refused(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[4096 : 40 * 4096] = b"\x55" * (39 * 4096)
    part.write_bytes(data)
    with pytest.raises(BackupUnusableError):
        check_copy(part)


def test_sessions_of_a_plain_copy_are_wiped(part: Path) -> None:
    execute(part, f"{_TRUCK} VALUES ('ke-arrow', 'kenya', x'01', x'02', x'03', 1, NULL)")
    execute(part, "INSERT INTO contexts VALUES (x'aa', x'00', 'ke-arrow', 'sat', 'a very secret secret', x'00', 0, 1)")
    check_copy(part)
    assert count(part, "contexts") == 0
    assert b"a very secret secret" not in part.read_bytes()


def test_each_replaced_database_is_kept_with_what_its_log_held(part: Path, place: Path, tmp_path: Path) -> None:
    shutil.copy(part, tmp_path / "second.db")
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
    kept = swap(part, place)
    assert kept is not None
    assert count(kept, "tokens") == 1
    assert count(place, "tokens") == 0
    assert swap(tmp_path / "second.db", place) == place.with_name("fleet.db.before-2")


def test_a_database_that_cannot_be_read_is_kept_and_nothing_is_carried(part: Path, place: Path) -> None:
    place.write_bytes(b"rubble" * 1000)
    assert carry(place, part) is None
    assert heard_ms(place) is None
    kept = swap(part, place)
    assert kept is not None
    assert kept.read_bytes() == b"rubble" * 1000
    assert count(place, "trucks") == 0


def test_it_is_told_when_a_truck_was_last_heard(place: Path) -> None:
    assert heard_ms(place) == 0
    execute(place, f"{_TRUCK} VALUES ('ke-arrow', 'kenya', x'01', x'02', x'03', 1, 77)")
    assert heard_ms(place) == 77


def test_tokens_revoked_since_stay_revoked(part: Path, place: Path) -> None:
    for path, revoked in ((part, "NULL"), (place, "7")):
        execute(path, f"INSERT INTO tokens VALUES (x'aa', 'ada', 'admin', 1, NULL, {revoked})")
    carried = carry(place, part)
    assert carried is not None
    assert carried.revocations == 1
    with contextlib.closing(sqlite3.connect(part)) as connection:
        assert connection.execute("SELECT revoked_ms FROM tokens").fetchone() == (7,)


def test_only_newer_sound_documents_that_trucks_trust_already_are_carried(part: Path, place: Path) -> None:
    put_document(part, 1, 1, b"root 1")
    for version, signed in ((1, b"another root 1"), (2, b"root 2")):
        put_document(place, 1, version, signed)
    put_document(place, 3, 5, b"rotten", digest=b"x" * 32)
    put_document(place, 4, 5, b"a manifest, whose bundle is not here")
    carried = carry(place, part)
    assert carried is not None
    assert carried.documents == 1
    with contextlib.closing(sqlite3.connect(part)) as connection:
        assert [row[0] for row in connection.execute("SELECT signed FROM documents ORDER BY version")] == [
            b"root 1",
            b"root 2",
        ]


def test_what_does_not_fit_together_leaves_the_copy_as_it_was(part: Path, place: Path) -> None:
    """A signing key that another truck has by now."""
    execute(part, f"{_TRUCK} VALUES ('tz-arrow', 'kenya', x'01', x'04', x'05', 1, NULL)")
    execute(place, "INSERT INTO tokens VALUES (x'aa', 'ada', 'admin', 1, NULL, 7)")
    execute(place, f"{_TRUCK} VALUES ('ke-arrow', 'kenya', x'01', x'02', x'03', 1, NULL)")
    before = count(part, "trucks")
    assert carry(place, part) is None
    assert count(part, "trucks") == before


def test_a_stick_that_was_lost_since_stays_revoked(part: Path, place: Path) -> None:
    execute(part, "INSERT INTO sticks VALUES (x'aa', 1, 'ada', 9, NULL, x'00', NULL, NULL)")
    execute(place, "INSERT INTO sticks VALUES (x'aa', 1, 'ada', 9, NULL, x'00', 7, 6)")
    execute(place, "INSERT INTO sticks VALUES (x'bb', 2, 'ada', 9, NULL, x'00', 8, NULL)")
    carry(place, part)
    with contextlib.closing(sqlite3.connect(part)) as connection:
        found = connection.execute("SELECT stick, revoked_ms FROM sticks ORDER BY stick").fetchall()
    assert found == [(b"\xaa", 7), (b"\xbb", 8)]
