from __future__ import annotations

import gzip
from contextlib import aclosing
from pathlib import Path

import pytest

from edge.collectors.base import Row, SourceError
from edge.collectors.replay import ReplayCollector, ReplaySettings

TRACE = "t,bat_v,soc\n1,100,10\n1000,5023,600\n1060,5025,\n1120,5027,601\n1420,5030,602\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "truck.csv"
    path.write_text(TRACE)
    return path


def collector(path: Path, **values: object) -> ReplayCollector:
    return ReplayCollector(ReplaySettings(kind="replay", name="trace", file=str(path), **values))


async def play(replay: ReplayCollector, clock, count: int = 100) -> list[Row]:
    rows = []
    async with aclosing(replay.rows(clock)) as stream:
        async for row in stream:
            rows.append(row)
            if len(rows) == count:
                break
    return rows


def test_channels_come_from_the_trace_with_fitted_figures(trace):
    replay = collector(trace, units={"bat_v": "V"})
    battery, charge = replay.channels
    assert (battery.name, battery.unit, battery.scale, battery.nominal, battery.typical_change) == (
        "bat_v", "V", 100, 5025, 2,
    )  # fmt: skip
    assert (charge.name, charge.unit, charge.scale, charge.nominal) == ("soc", "", 10, 601)
    assert replay.period_s == 60


async def test_rows_come_when_due_stamped_from_now_and_then_it_ends(trace, instant_clock):
    rows = await play(collector(trace), instant_clock)
    assert [row.values for row in rows] == [(5023, 600), (5025, None), (5027, 601), (5030, 602)]
    assert [row.monotonic_s for row in rows] == [0, 60, 120, 420]
    assert instant_clock.passed_s == 420


async def test_speed_shortens_period_and_stamps_alike(trace, instant_clock):
    replay = collector(trace, speed=60)
    rows = await play(replay, instant_clock)
    assert replay.period_s == 1
    assert [row.monotonic_s for row in rows] == [0, 1, 2, 7]
    assert instant_clock.passed_s == 7


async def test_a_loop_goes_on_one_step_after_the_last_row(trace, instant_clock):
    rows = await play(collector(trace, loop=True, skip_rows=3), instant_clock, 6)
    assert [row.values[0] for row in rows] == [5030, 5023, 5025, 5027, 5030, 5023]
    assert [row.monotonic_s for row in rows] == [0, 60, 120, 180, 480, 540]


async def test_a_loop_that_skips_beyond_the_end_starts_at_the_beginning(trace, instant_clock):
    rows = await play(collector(trace, loop=True, skip_rows=99), instant_clock, 1)
    assert rows[0].values == (5023, 600)


async def test_a_compressed_trace_reads_the_same(trace, tmp_path, instant_clock):
    packed = tmp_path / "truck.csv.gz"
    packed.write_bytes(gzip.compress(TRACE.encode()))
    assert [row.values for row in await play(collector(packed), instant_clock)] == [
        row.values for row in await play(collector(trace), instant_clock)
    ]


async def test_lines_that_do_not_read_are_skipped(trace, instant_clock):
    bad = [
        "1180,1",
        "1180,1,2,3",
        "x,1,2",
        "1180,1.5,2",
        "1120,1,1",
        "1180,0x1,2",
        "\x00\xff",
        "",
        "1180,1_0,2",
        "1180,١,2",
    ]
    trace.write_text(TRACE.replace("1420,", "\n".join(bad) + "\n1420,"))
    assert [row.values[0] for row in await play(collector(trace), instant_clock)] == [5023, 5025, 5027, 5030]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begin with t"),
        ("time,a\n1,1\n1,1\n", "begin with t"),
        ("t,a\n1\n1,1\n", "decimal scale"),
        ("t,a\n1,3\n1,1\n", "decimal scale"),
        ("t,a\n10,1\n1,1\n", "scale of t"),
        ("t,a,a\n1,1,1\n1,1,1\n", "twice"),
        ("t,a b\n1,1\n1,1\n", "SenML name"),
        ("t,a\n1,1\n", "no rows"),
        ("t,a\n1,1\n" + "junk\n" * 2000, "do not read"),
        ("t," + ",".join(f"c{n}" for n in range(65)) + "\n", "at most 64"),
        ("t,a\n1,1\n" + "9" * 100_000, "no rows"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_with_the_reason(tmp_path, text: str, says: str):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=says):
        collector(path)


def test_an_absent_file_and_a_unit_for_no_channel_are_refused(trace, tmp_path):
    with pytest.raises(SourceError, match="is not a file"):
        collector(tmp_path / "gone.csv")
    with pytest.raises(SourceError, match="no such channel"):
        collector(trace, units={"nope": "V"})


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
async def test_a_damaged_archive_is_a_source_error(tmp_path, instant_clock, damage: str):
    packed = tmp_path / "truck.csv.gz"
    rows = "".join(f"{1000 + 60 * n},{n * 7919 % 1000},{n}\n" for n in range(4000))
    whole = gzip.compress(("t,a,b\n1,1,1\n" + rows).encode())
    packed.write_bytes(whole)
    replay = collector(packed)
    middle = len(whole) // 2
    broken = {
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes(64) + whole[middle + 64 :],
        "plain": b"t,a,b\n1,1,1\n",
    }
    packed.write_bytes(broken[damage])
    with pytest.raises(SourceError):
        await play(replay, instant_clock, 5000)


async def test_a_file_that_vanishes_or_changes_its_channels_is_a_source_error(trace, instant_clock):
    replay = collector(trace)
    trace.write_text(TRACE.replace("soc", "charge"))
    with pytest.raises(SourceError, match="other channels"):
        await play(replay, instant_clock)
    trace.unlink()
    with pytest.raises(SourceError, match="is not a file"):
        await play(replay, instant_clock)
