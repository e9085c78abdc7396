"""The set of sequences equals a plain set, whatever is added in whatever order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.numbers import GAPS_MAX
from store.fleet.sequences import SequenceSet, ranges_from_text, ranges_to_text

adds = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1])))


@settings(max_examples=50)
@given(adds)
def test_it_equals_a_plain_set(ranges: list[tuple[int, int]]) -> None:
    sequences, model = SequenceSet(), set()
    for first, last in ranges:
        assert sequences.add(first, last)
        model.update(range(first, last + 1))
        kept = SequenceSet(sequences.cumulative, ranges_from_text(ranges_to_text(sequences.ranges)))
        for each in (sequences, kept):
            assert {n for n in range(1, 80) if each.covers(n)} == model
        assert sequences.highest == max(model)
        missing = {n for low, high in sequences.gaps for n in range(low, high + 1)}
        assert missing == set(range(1, max(model))) - model


@settings(max_examples=50)
@given(adds)
def test_ranges_are_ascending_disjoint_and_not_adjacent(ranges: list[tuple[int, int]]) -> None:
    sequences = SequenceSet()
    for first, last in ranges:
        sequences.add(first, last)
    ends = [sequences.cumulative, *(end for pair in sequences.ranges for end in pair)]
    assert all(first <= last for first, last in sequences.ranges)
    assert all(after - before > 1 for before, after in zip(ends[::2], ends[1::2], strict=False))


def test_gaps_are_bounded_and_a_full_set_still_closes_gaps() -> None:
    sequences = SequenceSet(0, tuple((2 * n, 2 * n) for n in range(1, GAPS_MAX + 1)))
    assert not sequences.add(2 * GAPS_MAX + 2, 2 * GAPS_MAX + 2)
    assert sequences.add(3, 3)
    assert sequences.add(2 * GAPS_MAX + 2, 2 * GAPS_MAX + 2)
    assert len(sequences.ranges) == GAPS_MAX
