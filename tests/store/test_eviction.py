"""Eviction's arithmetic: ranges that name exactly what went, and who may be dropped for whom."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import QueueFullError
from protocol.numbers import Precedence
from store.eviction import Dropped, as_ranges, make_room


@given(st.sets(st.integers(1, 500)))
def test_ranges_name_exactly_the_sequences(sequences: set[int]) -> None:
    ranges = as_ranges(tuple(sequences))
    assert {n for first, last in ranges for n in range(first, last + 1)} == sequences
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(ranges))


def test_a_tombstone_says_epoch_ranges_rows_and_why() -> None:
    tombstone = Dropped(7, (1, 2, 5), 30).tombstone()
    assert (tombstone.epoch, tombstone.ranges, tombstone.rows, tombstone.reason) == (
        7,
        ((1, 2), (5, 5)),
        30,
        "disk share",
    )


def test_an_empty_queue_on_a_share_filled_by_others_refuses_and_buries_nothing(database) -> None:
    database.sql.execute("CREATE TABLE ballast (data BLOB)")
    database.sql.execute("INSERT INTO ballast VALUES (zeroblob(6500000))")
    with pytest.raises(QueueFullError):
        make_room(database, Precedence.PRIORITY, 100, lambda dropped: pytest.fail("nothing to bury"))
