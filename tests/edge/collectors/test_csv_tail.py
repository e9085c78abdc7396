from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.collectors.base import SourceError
from edge.collectors.csv_tail import (
    BLOCK_BYTES,
    LINE_BYTES_MAX,
    CsvChannel,
    CsvTailCollector,
    CsvTailSettings,
    Tail,
)
from tests.edge.collectors.peers import failure, sample, watched

CHANNELS = (CsvChannel(name="rain", unit="mm", decimals=1), CsvChannel(name="wind", column="wind speed", unit="m/s"))
HEAD = "time,rain,wind speed\n"


def collector(file: Path, **values: object) -> CsvTailCollector:
    given = {"file": str(file), "channels": CHANNELS, "period_s": 0.02, **values}
    return CsvTailCollector(CsvTailSettings(kind="csv-tail", name="sky", **given))


def add(file: Path, text: str | bytes) -> None:
    with file.open("ab") as out:
        out.write(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weather.csv"
    path.write_text(HEAD + "10:00,0.1,3\n10:01,0.2,4\n")
    return path


async def test_the_last_line_is_the_first_sample(file: Path):
    assert await sample(collector(file)) == {"sky.rain": "0.2", "sky.wind": "4"}


async def test_a_file_that_grows_is_followed_through_rotation_and_truncation(file: Path, monkeypatch):
    async with watched(collector(file), monkeypatch) as watch:

        async def comes(*row: int | None) -> None:
            await watch.until(lambda: watch.rows[-1:] == [row])

        await comes(2, 4)
        add(file, "10:02,0.3")
        await watch.more(3)
        assert watch.rows[-1] == (2, 4)  # half a line is none
        add(file, "4,5\n")
        await comes(3, 5)
        file.rename(file.with_suffix(".1"))
        await watch.more(2)
        file.write_text("wind speed,rain\n6,0.5\n")  # other columns, another order
        await comes(5, 6)
        file.write_text("rain,wind speed\n")  # shorter than it was
        await watch.more(2)
        add(file, "0.7,8\n")
        await comes(7, 8)
        add(file, b"\xff\xfe\x00,NaN\n")
        add(file, "a,b,c,d,e\n\n" + "x" * 30_000 + "\n")
        await watch.more(2)
        add(file, '"0.9","9"\r\n')
        await comes(9, 9)


async def test_a_file_that_vanishes_is_told_and_read_again(file: Path, monkeypatch):
    async with watched(collector(file, fresh_s=0.1), monkeypatch) as watch:
        monkeypatch.setattr(CsvTailCollector, "silence_s", 0.3)
        await watch.more()
        file.unlink()
        await watch.failed()
        await watch.until(lambda: "not there" in watch.supervisor.health()[0].last_error)
        file.write_text(HEAD + "10:09,0.9,1\n")
        await watch.until(lambda: watch.rows[-1] == (9, 1))


async def test_a_file_that_nobody_writes_any_more_is_no_sample(file: Path, monkeypatch):
    os.utime(file, (1, 1))
    async with watched(collector(file), monkeypatch) as watch:
        await watch.until(lambda: watch.supervisor.health()[0].running)
        add(file, "10:03,0.4,4\n")
        await watch.until(lambda: bool(watch.rows))
    assert set(watch.rows) == {(4, 4)}


async def test_columns_without_a_header_are_numbered(tmp_path: Path):
    path = tmp_path / "log.txt"
    path.write_text("7;a;12.5\n8;b;13.5\n")
    channels = (CsvChannel(name="v", column=3, decimals=1), CsvChannel(name="far", column=9))
    assert await sample(collector(path, header=False, delimiter=";", channels=channels)) == {
        "sky.v": "13.5",
        "sky.far": "",
    }


async def test_what_cannot_be_read_says_why(file: Path, tmp_path: Path):
    wrong = (CsvChannel(name="snow"),)
    assert "has no column 'snow'; it has: time, rain, wind speed" in await failure(collector(file, channels=wrong))
    assert "not a file" in await failure(collector(tmp_path))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "not a file" in await failure(collector(pipe))


def test_a_huge_file_is_read_from_near_its_end(tmp_path: Path):
    path = tmp_path / "huge.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 2_000_000 + b"3,4\n")
    tail = Tail(str(path), header=True)
    tail.open()
    reads = 0
    real = tail._file

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def read(self, count: int) -> bytes:
            nonlocal reads
            reads += 1
            return real.read(count)

    tail._file = Counting()
    assert (tail.last_line(), tail.head) == (b"3,4", b"a,b\n")
    assert reads <= 3
    tail.close()


def test_a_writer_that_is_too_fast_is_sampled(tmp_path: Path):
    path = tmp_path / "fast.csv"
    path.write_bytes(b"a,b\n1,2\n")
    tail = Tail(str(path), header=True)
    tail.open()
    assert tail.last_line() == b"1,2"
    add(path, b"5,6\n" * 5_000_000 + b"7,8\n")
    assert tail.last_line() == b"7,8"
    assert tail.last_line() is None
    tail.close()


def test_a_line_that_never_ends_takes_no_more_than_a_block(tmp_path: Path):
    path = tmp_path / "endless.csv"
    path.write_bytes(b"a,b\n" + b"1" * (10 * BLOCK_BYTES))
    tail = Tail(str(path), header=True)
    tail.open()
    assert tail.last_line() is None
    assert len(tail._rest) <= LINE_BYTES_MAX + 1
    add(path, b"\n1,2\n")
    assert tail.last_line() == b"1,2"
    tail.close()


def test_what_a_rotation_leaves_behind_is_read_first(tmp_path: Path):
    path = tmp_path / "log.csv"
    path.write_text("a\n1\n")
    tail = Tail(str(path), header=True)
    tail.open()
    tail.last_line()
    add(path, "2\n")
    path.rename(tmp_path / "log.csv.1")
    assert tail.last_line() == b"2"  # nothing has its name yet
    path.write_text("a\n3\n")
    assert tail.last_line() == b"3"
    path.unlink()
    path.mkdir()
    with pytest.raises(SourceError, match="not a file"):
        tail.last_line()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"header": False}, r"channels\[0\].column"),
        ({"channels": (CsvChannel(name="a"), CsvChannel(name="a"))}, r"channels\[1\].name"),
    ],
)
def test_settings_that_do_not_hold_name_the_key(tmp_path: Path, values, key: str):
    with pytest.raises(ValueError, match=f"^{key}: "):
        collector(tmp_path / "x", **values).settings.check()
