"""A rotted frame in the middle of a WAL undoes no later commit; what a power cut tore stays torn."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from store import incidents
from store.database import PAGE_BYTES, Database
from store.settings import Settings
from store.walchain import Mended, mend

HEADER, FRAME = 32, 24 + PAGE_BYTES
COMMITS = 60


class Bench:
    """A database with many commits in its WAL, as a power cut leaves it; `reopen` opens what the disk has then."""

    def __init__(self, opened: Callable[..., Database], folder: Path) -> None:
        self._opened = opened
        self._folder = folder
        database = opened()
        database.sql.conn.execute("PRAGMA wal_autocheckpoint = 0")
        self.epoch = database.epoch
        self.wal = folder / "state.db-wal"
        self.ends = [self.frames()]
        for number in range(COMMITS):
            Settings(database).put(f"name-{number:03}", b"value-%03d-" % number * 60)
            self.ends.append(self.frames())
        self._kept = folder / "kept"
        self._kept.mkdir()
        for part in ("state.db", "state.db-wal", "state.db.identity"):
            shutil.copy2(folder / part, self._kept / part)
        database.crash()
        self.whole = (self._kept / "state.db-wal").read_bytes()
        self._identity = folder / "state.db.identity"

    def frames(self) -> int:
        return (self.wal.stat().st_size - HEADER) // FRAME

    def reopen(self, log: bytes) -> Database:
        for part in ("state.db", "state.db-wal", "state.db-shm"):
            (self._folder / part).unlink(missing_ok=True)
        shutil.copy2(self._kept / "state.db", self._folder / "state.db")
        self.wal.write_bytes(log)
        return self._opened()


@pytest.fixture
def bench(opened: Callable[..., Database], tmp_path: Path) -> Bench:
    return Bench(opened, tmp_path)


def told(database: Database) -> list[str]:
    return [each.name for each in incidents.unreported(database, 100)]


def names(database: Database) -> set[str]:
    return {name for (name,) in database.rows("SELECT name FROM settings WHERE name LIKE 'name-%'")}


ALL = {f"name-{number:03}" for number in range(COMMITS)}


def flipped(data: bytes, *bits: int) -> bytes:
    found = bytearray(data)
    for bit in bits:
        found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def test_sqlite_itself_forgets_every_commit_behind_a_rotted_frame(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.walchain.mend", lambda *_: None)
    rotted = flipped(bench.whole, (HEADER + bench.ends[20] * FRAME + 24 + 100) * 8)
    assert len(names(bench.reopen(rotted))) <= 20


@pytest.mark.parametrize("place", ["page", "number", "commit", "salt", "checksum"])
@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_one_flipped_bit_is_flipped_back_wherever_it_is(bench: Bench, place: str, which: str) -> None:
    frame = {"first": 0, "middle": bench.ends[30], "last": bench.ends[-1] - 1}[which]
    # Of a page any bit but a word's ten highest; of the numbers in the header also those, which make them absurd.
    at = {"number": 0, "commit": 4, "salt": 9, "checksum": 18, "page": 24 + 1_232}[place]
    database = bench.reopen(flipped(bench.whole, (HEADER + frame * FRAME + at) * 8 + 2))
    assert names(database) == ALL
    assert database.epoch == bench.epoch
    assert told(database)[-1] == "store.log-mended"
    assert not database.damage()


def test_every_bit_of_the_header_is_flipped_back(bench: Bench, tmp_path: Path) -> None:
    wal = tmp_path / "log"
    for bit in range(HEADER * 8):
        wal.write_bytes(flipped(bench.whole, bit))
        assert mend(wal, PAGE_BYTES) == Mended(repaired=1, rotted=0), bit
        assert wal.read_bytes() == bench.whole


def test_a_header_that_is_lost_is_made_anew_from_its_frames(bench: Bench) -> None:
    database = bench.reopen(bytes(HEADER) + bench.whole[HEADER:])
    assert names(database) == ALL
    # Whether the first frame is whole cannot be told without it.
    assert database.epoch != bench.epoch


def test_a_bit_that_the_checksum_leaves_open_costs_at_most_the_rows_of_its_page(bench: Bench) -> None:
    database = bench.reopen(flipped(bench.whole, (HEADER + bench.ends[30] * FRAME + 24 + 1_235) * 8 + 7))
    assert len(names(database)) >= COMMITS - 4
    assert "store.damaged" in told(database)


def test_behind_a_page_that_cannot_be_repaired_later_commits_count(bench: Bench) -> None:
    at = HEADER + bench.ends[20] * FRAME + 24
    rotted = bytearray(bench.whole)
    rotted[at + 2_000 : at + 2_400] = random.Random(1).randbytes(400)
    database = bench.reopen(bytes(rotted))
    # That page was written again by later commits, or one or two rows on it are lost: nothing else.
    assert len(names(database)) >= COMMITS - 4
    assert f"name-{COMMITS - 1:03}" in names(database)
    # A page may now be there as it was before, so numbers go on in another epoch.
    assert database.epoch != bench.epoch
    assert "store.damaged" in told(database)


def test_a_frame_whose_page_number_is_lost_ends_nothing(bench: Bench) -> None:
    at = HEADER + bench.ends[20] * FRAME
    rotted = bytearray(bench.whole)
    rotted[at : at + 4] = bytes(4)
    rotted[at + 500 : at + 600] = bytes(range(100))
    assert f"name-{COMMITS - 1:03}" in names(bench.reopen(bytes(rotted)))


@pytest.mark.parametrize("seed", range(4))
def test_much_rot_loses_rows_but_never_all_that_came_later(bench: Bench, seed: int) -> None:
    bits = random.Random(seed).sample(range(HEADER * 8, len(bench.whole) * 8), 20)
    database = bench.reopen(flipped(bench.whole, *bits))
    assert len(names(database)) >= COMMITS - 10
    assert not database.damage()


@pytest.mark.parametrize("sectors", [1, 3, 6])
def test_a_torn_commit_stays_undone_however_much_of_it_is_there(bench: Bench, sectors: int) -> None:
    begin, end = HEADER + bench.ends[-2] * FRAME, len(bench.whole)
    log = bytearray(bench.whole)
    for at in random.Random(sectors).sample(range(begin // 512 * 512 + 512, end, 512), sectors):
        log[at : at + 512] = b"\xa5" * len(log[at : at + 512])
    database = bench.reopen(bytes(log))
    assert names(database) == ALL - {f"name-{COMMITS - 1:03}"}
    assert "store.log-mended" not in told(database)
    assert database.epoch == bench.epoch


def test_frames_of_an_earlier_log_behind_the_end_stay_there(opened, tmp_path: Path) -> None:
    database = opened()
    for number in range(20):
        Settings(database).put(f"old-{number}", bytes(900))
    database.sql.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    Settings(database).put("new", b"1")
    wal = tmp_path / "log"
    shutil.copy(tmp_path / "state.db-wal", wal)
    assert wal.stat().st_size > 20 * FRAME
    assert mend(wal, PAGE_BYTES) is None


@pytest.mark.parametrize("log", [b"", bytes(10), bytes(HEADER), bytes(9_000), random.Random(2).randbytes(90_000)])
def test_what_is_no_log_is_left_alone(tmp_path: Path, log: bytes) -> None:
    wal = tmp_path / "log"
    wal.write_bytes(log)
    assert mend(wal, PAGE_BYTES) is None
    assert mend(tmp_path / "missing", PAGE_BYTES) is None
    assert wal.read_bytes() == log


def test_a_sound_log_is_not_touched(bench: Bench, tmp_path: Path) -> None:
    wal = tmp_path / "log"
    wal.write_bytes(bench.whole)
    before = wal.stat()
    assert mend(wal, PAGE_BYTES) is None
    assert (wal.stat().st_ino, wal.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
