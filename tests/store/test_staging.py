"""Staging: pieces in any order, a journal that never runs ahead of the disk, wrong files discarded, quotas."""

import hashlib
import os
import random
from pathlib import Path

import pytest

from protocol.errors import MalformedError
from store.blobs import BlobStore
from store.errors import DigestMismatchError, QuotaExceededError, StoreError
from store.staging import SYNC_BYTES, Staging, clean, staged

DATA = random.Random(5).randbytes(200 * 1024 + 77)
DIGEST = hashlib.sha256(DATA).digest()


def piece(index: int, piece_bytes: int = 1024) -> bytes:
    return DATA[index * piece_bytes : (index + 1) * piece_bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def staging(database, folder) -> Staging:
    return Staging(database, folder, DIGEST, len(DATA))


def test_pieces_come_in_any_order_and_the_file_becomes_a_blob(staging, database, tmp_path: Path) -> None:
    order = list(range(staging.pieces))
    random.Random(1).shuffle(order)
    for index in order:
        assert staging.put(index, piece(index))
    assert list(staging.missing()) == []
    blobs = BlobStore(tmp_path / "blobs")
    assert blobs.adopt(DIGEST, staging.complete()).read_bytes() == DATA
    staging.forget()
    assert staged(database) == ()


def test_a_piece_held_already_is_not_written_again(staging) -> None:
    assert staging.put(3, piece(3))
    assert not staging.put(3, bytes(1024))
    assert staging.held == 1
    assert 3 not in list(staging.missing())


@pytest.mark.parametrize(("index", "length"), [(-1, 1024), (201, 77), (0, 1023), (0, 1025), (200, 1024), (0, 0)])
def test_a_piece_that_does_not_fit_is_refused(staging, index: int, length: int) -> None:
    with pytest.raises(MalformedError):
        staging.put(index, bytes(length))
    assert staging.held == 0


def test_after_a_crash_only_synced_pieces_are_believed(opened, folder) -> None:
    first = opened()
    staging = Staging(first, folder, DIGEST, len(DATA))
    for index in range(100):
        staging.put(index, piece(index))
    first.crash()
    second = opened()
    again = Staging(second, folder, DIGEST, len(DATA))
    assert again.held == 100 // 64 * 64
    assert SYNC_BYTES == 64 * 1024
    for index in again.missing():
        again.put(index, piece(index))
    assert again.complete().read_bytes() == DATA


def test_the_file_is_synced_before_the_journal_is_written(staging, database, monkeypatch) -> None:
    steps: list[str] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (steps.append("sync"), real(file)))
    with database.sql.tracer(lambda sql, _parameters: steps.append("journal") if "staging_bits" in sql else None):
        for index in range(64):
            staging.put(index, piece(index))
    assert steps[0] == "sync"
    assert "journal" in steps


def test_when_the_sync_fails_the_pieces_are_missing_again(staging, monkeypatch) -> None:
    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    staging.put(0, piece(0))
    staging.sync()
    staging.put(1, piece(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError):
            staging.sync()
    assert next(iter(staging.missing())) == 1
    assert staging.held == 1
    staging.put(1, piece(1))
    staging.sync()
    assert staging.held == 2


def test_a_journal_whose_transaction_is_undone_is_behind_never_ahead(opened, folder) -> None:
    first = opened()
    staging = Staging(first, folder, DIGEST, len(DATA))
    first.sql.begin()
    for index in range(64):
        staging.put(index, piece(index))
    first.sql.rollback()
    first.crash()
    assert Staging(opened(), folder, DIGEST, len(DATA)).held == 0


def test_a_wrong_file_is_discarded_and_starts_over(database, folder) -> None:
    staging = Staging(database, folder, DIGEST, len(DATA))
    for index in range(staging.pieces):
        staging.put(index, piece(index) if index != 7 else bytes(1024))
    with pytest.raises(DigestMismatchError):
        staging.complete()
    assert not staging.path.exists()
    assert staged(database) == ()
    assert Staging(database, folder, DIGEST, len(DATA)).held == 0


def test_it_is_complete_only_with_every_piece(staging) -> None:
    staging.put(0, piece(0))
    with pytest.raises(StoreError, match="200 pieces"):
        staging.complete()


def test_a_file_that_is_gone_or_of_another_shape_starts_over(opened, folder) -> None:
    database = opened()
    staging = Staging(database, folder, DIGEST, len(DATA))
    staging.put(5, piece(5))
    staging.close()
    staging.path.unlink()
    again = Staging(database, folder, DIGEST, len(DATA))
    assert again.held == 0
    again.put(5, piece(5))
    again.close()
    assert Staging(database, folder, DIGEST, len(DATA), 512).held == 0


def test_a_full_download_waits_for_completion_over_a_restart(opened, folder) -> None:
    database = opened()
    staging = Staging(database, folder, DIGEST, len(DATA))
    for index in range(staging.pieces):
        staging.put(index, piece(index))
    database.crash()
    again = Staging(opened(), folder, DIGEST, len(DATA))
    assert again.is_full
    assert again.complete().read_bytes() == DATA


def test_a_download_larger_than_its_share_is_refused_before_a_byte_is_paid(database, folder) -> None:
    with pytest.raises(QuotaExceededError):
        Staging(database, folder, DIGEST, len(DATA), bytes_max=len(DATA) - 1)
    assert staged(database) == ()


def test_the_whole_size_is_taken_from_the_disk_at_once(staging) -> None:
    stat = staging.path.stat()
    assert stat.st_size == len(DATA)
    assert stat.st_blocks * 512 >= len(DATA)


def test_orphans_of_a_damaged_database_are_cleaned(database, staging, folder) -> None:
    orphan = folder / ("ab" * 32 + ".part")
    orphan.write_bytes(b"x")
    assert clean(database, folder) == (orphan.name,)
    assert staging.path.exists()


def test_a_journal_of_many_chunks_resumes_exactly(opened, folder) -> None:
    database = opened()
    size = 20_000 * 16
    staging = Staging(database, folder, bytes(32), size, 16)
    chosen = set(random.Random(3).sample(range(20_000), 9_000))
    with database.atomic():
        for index in chosen:
            staging.put(index, bytes(16))
        staging.close()
    database.crash()
    again = Staging(opened(), folder, bytes(32), size, 16)
    assert set(again.missing()) == set(range(20_000)) - chosen
