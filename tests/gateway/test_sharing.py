"""A pool is shared out whole, in whole units, and nobody gets less than what it spent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.sharing import shared_evenly, shared_out

AMOUNTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 10**9), min_size=1, max_size=8)


def test_what_does_not_divide_goes_to_the_first() -> None:
    assert shared_evenly(10, ["c", "a", "b"]) == {"a": 4, "b": 3, "c": 3}


def test_the_rest_goes_where_it_will_be_used() -> None:
    assert shared_out(100, {"a": 10, "b": 10}, {"a": 40, "b": 20}) == {"a": 70, "b": 30}
    assert shared_out(100, {"a": 10, "b": 10}, {}) == {"a": 50, "b": 50}
    assert shared_out(10, {"a": 30, "b": 10}, {}) == {"a": 7, "b": 2}


@given(st.integers(0, 10**9), AMOUNTS, AMOUNTS)
def test_parts_never_come_to_more_than_the_whole(whole: int, used: dict[str, int], wish: dict[str, int]) -> None:
    parts = shared_out(whole, used, wish)
    assert sum(parts.values()) <= whole
    assert parts.keys() == used.keys()
    if sum(used.values()) < whole:
        assert all(parts[truck] >= used[truck] for truck in used)
        assert whole - sum(parts.values()) < len(used)
