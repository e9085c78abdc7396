"""The default trace is real, whole, and one that the codec takes."""

from pathlib import Path

import pytest

from protocol.batch import decode, encode
from protocol.schema import Channel, Schema
from tests.bench.traces import load_trace


def test_the_default_trace_has_sixteen_real_channels_for_a_year() -> None:
    pytest.importorskip("pvlib")
    trace = load_trace()
    assert len(trace.names) == len(set(trace.names)) == 16
    assert len(trace.rows) == 8_760
    assert all(len({values[at] for _, values in trace.rows}) > 5 for at in range(16))
    schema = Schema(tuple(Channel(name) for name in trace.names), period_s=3600)
    assert decode(schema, encode(schema, trace.rows[:100])) == list(trace.rows[:100])


def test_any_recording_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("t,a\n1,10\n60,5\n")
    assert load_trace(path).rows == ((60, (5,)),)
