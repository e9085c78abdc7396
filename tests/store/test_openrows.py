"""Rows of open batches: durable one by one, gone with their batch, whole after damage or a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.database import Database, open_database
from store.openrows import OpenRow, OpenRows
from store.schema import STATE

ROWS = (
    OpenRow(1, None, 1_795_000_000, (2600, None, -7)),
    OpenRow(1, 2**62, 12_345, (2**63 - 1, -(2**63), 0)),
    OpenRow(2, None, -5, ()),
)


def opened(path: Path) -> Database:
    return open_database(path / "state.db", schema=STATE, share_bytes=4 << 20)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = opened(tmp_path)
    yield database
    database.close()


@pytest.fixture
def rows(database: Database) -> OpenRows:
    found = OpenRows(database)
    for row in ROWS:
        found.add(row)
    return found


def test_rows_come_back_as_they_were_in_their_order(rows: OpenRows) -> None:
    assert rows.of(1) == ROWS[:2]
    assert rows.of(2) == ROWS[2:]
    assert rows.of(3) == ()


def test_the_schemas_with_open_rows_are_known(rows: OpenRows) -> None:
    assert rows.schemas() == (1, 2)
    assert (rows.count(1), rows.count(2), rows.count(3)) == (2, 1, 0)


def test_clearing_a_schema_leaves_the_others(rows: OpenRows) -> None:
    rows.clear(1)
    assert rows.schemas() == (2,)


def test_a_row_of_an_unknown_commit_is_added_once(rows: OpenRows) -> None:
    rows.add_once(ROWS[0], 2)
    assert rows.count(1) == 2
    rows.add_once(ROWS[0], 3)
    rows.add_once(ROWS[0], 3)
    assert rows.of(1) == (*ROWS[:2], ROWS[0])


def test_a_transaction_that_fails_leaves_the_rows(database: Database, rows: OpenRows) -> None:
    def change() -> None:
        with database.atomic():
            rows.clear(1)
            rows.add(OpenRow(1, None, 1, (1,)))
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        change()
    assert rows.of(1) == ROWS[:2]


def test_rows_outlive_a_crash(tmp_path: Path) -> None:
    database = opened(tmp_path)
    OpenRows(database).add(ROWS[0])
    database.crash()
    again = opened(tmp_path)
    assert OpenRows(again).of(1) == ROWS[:1]
    again.close()


def test_rows_are_saved_from_a_damaged_database(tmp_path: Path) -> None:
    database = opened(tmp_path)
    kept = OpenRows(database)
    for row in ROWS:
        kept.add(row)
    # A flipped bit in one row: its hash tells, the others are carried over.
    database.sql.execute("UPDATE open_rows SET time = time + 1 WHERE id = 2")
    database.close()
    again = opened(tmp_path)
    assert again.recreated
    assert (OpenRows(again).of(1), OpenRows(again).of(2)) == (ROWS[:1], ROWS[2:])
    again.close()
