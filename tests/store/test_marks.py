"""Marks: two slots that a torn write cannot both take, and a generation that tells an older database."""

from pathlib import Path

import pytest

from store.marks import SLOT_BYTES, LinkMark, Marks


def raise_to(marks: Marks, other: int) -> None:
    with marks.durable():
        marks.links["sat"] = LinkMark(202611, 0, other)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "links.db.marks"


def test_marks_outlive_a_crash_and_take_turns_in_two_slots(opened, path) -> None:
    database = opened("links.db")
    marks = Marks(database)
    assert (marks.found, marks.ahead) == (False, False)
    for other in (100, 200, 300):
        raise_to(marks, other)
    assert path.stat().st_size == 2 * SLOT_BYTES
    database.crash()
    again = Marks(opened("links.db"))
    assert (again.found, again.ahead, again.generation) == (True, False, 3)
    assert again.links == {"sat": LinkMark(202611, 0, 300)}


@pytest.mark.parametrize("torn", [0, 1, 40, 4_000])
def test_a_torn_write_leaves_the_mark_before_it(opened, path, torn: int) -> None:
    database = opened("links.db")
    marks = Marks(database)
    for other in (100, 200, 300):
        raise_to(marks, other)
    data = bytearray(path.read_bytes())
    newest = 0 if b"\x19\x01\x2c" in data[:SLOT_BYTES] else SLOT_BYTES  # 300 in CBOR
    data[newest : newest + torn + 1] = bytes(torn + 1)
    path.write_bytes(data)
    again = Marks(database)
    assert again.links == {"sat": LinkMark(202611, 0, 300 if torn == 0 else 200)}


@pytest.mark.parametrize("content", [b"", b"\xff" * 8_192, bytes(100)])
def test_marks_that_are_no_marks_count_as_none(opened, path, content: bytes) -> None:
    path.write_bytes(content)
    marks = Marks(opened("links.db"))
    assert (marks.found, marks.links) == (False, {})
    raise_to(marks, 100)
    assert Marks(marks._database).found


def test_a_database_behind_its_marks_is_an_older_one(opened) -> None:
    database = opened("links.db")
    marks = Marks(database)
    raise_to(marks, 100)
    database.sql.execute("DELETE FROM settings WHERE name = 'generation'")
    again = Marks(database)
    assert again.ahead
    raise_to(again, 200)
    assert not Marks(database).ahead


def test_a_transaction_that_is_undone_writes_no_marks(opened, path) -> None:
    marks = Marks(opened("links.db"))
    raise_to(marks, 100)
    before = path.read_bytes()

    def fail() -> None:
        with marks.durable():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == before
    assert marks.generation == 1
