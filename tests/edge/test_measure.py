"""A measurement counts what really travels: whole batches, each in one datagram."""

import random

from edge.measure import BODY_BYTES_MAX, encode_batches, fit, measure, month_bytes
from edge.recording import Recording
from protocol.batch import decode
from protocol.rows import Row


def recording(count: int, step: float = 3.0) -> Recording:
    source = random.Random(5)
    level = 5000
    rows: list[Row] = []
    for at in range(count):
        level += round(source.gauss(0, step))
        rows.append((1_780_272_000 + 60 * at, (level, -2 * level if at % 50 else None, at // 9)))
    return Recording(("level", "twice", "count"), (100, 100, 1), 1, tuple(rows))


def test_every_row_comes_back_and_every_byte_is_counted() -> None:
    trace = recording(130)
    schema = fit(trace)
    result = measure(schema, trace.rows, rows_max=60, alone=True)
    bodies = encode_batches(schema, trace.rows, rows_max=60)
    assert result.round_trip
    assert (result.rows, result.batches) == (130, 3)
    assert result.body_bytes == sum(map(len, bodies))
    assert result.wire_bytes == result.body_bytes + 3 * (64 + 15 + 53 + 45)
    assert month_bytes(schema, result) == round(result.wire_bytes / 130 * 43_200)


def test_a_full_datagram_closes_its_batch() -> None:
    trace = recording(400, step=1e9)
    schema = fit(trace)
    bodies = encode_batches(schema, trace.rows, rows_max=4096)
    assert len(bodies) > 1
    assert max(map(len, bodies)) <= BODY_BYTES_MAX
    assert [row for body in bodies for row in decode(schema, body)] == list(trace.rows)


def test_a_schema_fitted_to_the_past_serves_the_future() -> None:
    trace = recording(600)
    fitted = measure(fit(trace, trace.rows[:300]), trace.rows[300:], rows_max=60)
    plain = measure(fit(trace, trace.rows[:2]), trace.rows[300:], rows_max=60)
    assert fitted.round_trip
    assert fitted.body_bytes < 0.75 * plain.body_bytes
