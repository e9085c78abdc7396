"""How the benchmark cuts a trace and counts the wire; its figures need the bench group and are no test."""

from __future__ import annotations

import pytest

from edge.measure import BODY_BYTES_MAX
from tests.bench.codec import _ENVELOPE, _wire, batches
from tests.bench.traces import row_json

ROWS = [(60 * at, (at,)) for at in range(100)]


@pytest.mark.parametrize(("size", "rows_max", "number"), [(1, 10, 10), (7, 1_000, 14), (60, 10, 1), (100, 100, 1)])
def test_batches_are_whole_apart_and_spread_over_the_trace(size: int, rows_max: int, number: int) -> None:
    found = batches(ROWS, size, rows_max)
    assert [len(batch) for batch in found] == [size] * number
    rows = [row for batch in found for row in batch]
    assert len(set(rows)) == len(rows)
    assert rows == sorted(rows)


def test_a_batch_longer_than_the_trace_is_the_trace() -> None:
    assert [len(batch) for batch in batches(ROWS, 1_440, 4_000)] == [100]


def test_each_datagram_of_a_body_pays_its_envelope() -> None:
    assert _wire(1) == 1 + _ENVELOPE
    assert _wire(BODY_BYTES_MAX) == BODY_BYTES_MAX + _ENVELOPE
    assert _wire(BODY_BYTES_MAX + 1) == BODY_BYTES_MAX + 1 + 2 * _ENVELOPE


def test_a_row_as_json_has_decimals_and_no_holes() -> None:
    from edge.recording import Recording

    recording = Recording(("a", "b", "c"), (10, 1, 1), 1000, ())
    assert row_json(recording, (5_000, (26, None, 7))) == b'{"t":5,"a":2.6,"c":7}'
