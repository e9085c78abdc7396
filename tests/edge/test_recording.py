"""Recordings are read as written, and each bad file is refused in one line with the next step."""

import gzip
from pathlib import Path

import pytest

from edge.recording import RecordingError, read_recording


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return read_recording(path)


def test_a_scale_row_makes_scaled_integers(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(b"t,volt,soc\n1,100,1\n60,5120,-3\n120,,7\n"))
    recording = read_recording(path)
    assert recording.names == ("volt", "soc")
    assert recording.scales == (100, 1)
    assert recording.ticks_per_s == 1
    assert recording.rows == ((60, (5120, -3)), (120, (None, 7)))


def test_plain_decimals_find_their_scale(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("t,volt,soc\n60.5,51.20,nan\n120.5,51.25,7\n")
    recording = read_recording(path)
    assert recording.scales == (100, 1)
    assert recording.ticks_per_s == 1000
    assert recording.rows == ((60_500, (5120, None)), (120_500, (5125, 7)))


def test_odd_names_become_senml_names(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("t,GHI (W/m2),GHI (W/m2),é\n0,1,2,3\n")
    assert read_recording(path).names == ("GHI_W/m2", "GHI_W/m2_2", "c3")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: the first row names the columns"),
        ("t,a\n1,-10\n1700000000,5\n", "line 2: '-10' is no scale"),
        ("t,a,b\n1,10,7\n1700000000,5,5\n", "line 2: '7' is no scale"),
        ("a,b\n1,2\n", "line 1: the first row names the columns"),
        ("t\n1\n", "line 1: the first row names the columns"),
        ("t,a\n", "no rows of values"),
        ("t,a\n1,10\n", "no rows of values"),
        ("t,a\n1,10\n60,5,6\n", "line 3: 3 cells under 2 names"),
        ("t,a\n1,10\n60,5.5\n", "line 3: '5.5' is no number"),
        ("t,a\n60,warm\n", "line 2: 'warm' is no number"),
        ("t,a\n60,1e400\n", "line 2: '1e400' is no number"),
        ("t,a\n60," + "9" * 5000 + "\n", "is no number"),
        ("t,a\n,5\n", "line 2: the time is missing"),
        ("t,a\n1,1\n60," + str(1 << 63) + "\n", "is no number that fits"),
        ("t," + ",".join(f"c{at}" for at in range(65)) + "\n", "65 channels; keep at most 64"),
    ],
)
def test_bad_files_say_where_and_what_next(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(RecordingError) as error:
        read(tmp_path, text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="does not exist"):
        read_recording(tmp_path / "none.csv")
    (tmp_path / "fake.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(RecordingError, match="cannot be read"):
        read_recording(tmp_path / "fake.csv.gz")
    (tmp_path / "binary.csv").write_bytes(b"t,a\n\xff\xfe\x00,1\n")
    with pytest.raises(RecordingError, match="cannot be read"):
        read_recording(tmp_path / "binary.csv")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"t,a\n1,1\n60,5\n" * 50)[:-12])
    with pytest.raises(RecordingError, match="cannot be read"):
        read_recording(tmp_path / "cut.csv.gz")
