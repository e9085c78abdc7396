"""Any recording is a trace. The default one needs the bench group (pvlib); `make bench` runs on it."""

from pathlib import Path

from tests.bench.traces import load_trace


def test_any_recording_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("t,a\n1,10\n60,5\n")
    assert load_trace(path).rows == ((60, (5,)),)
