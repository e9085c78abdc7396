from __future__ import annotations

import asyncio
import os
import sys
import time
import tty
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from edge.collectors.base import RealClock, Row, SourceError
from edge.collectors.vedirect import VeDirectCollector, VeDirectSettings, read_value
from edge.collectors.vedirect_fields import FIELDS
from tests.edge.collectors.peers import Peer, program, watched


def collector(**values: object) -> VeDirectCollector:
    return VeDirectCollector(VeDirectSettings(kind="vedirect", name="solar", **values))


async def take(source: VeDirectCollector, clock, count: int = 10_000) -> list[Row]:
    rows = []
    async with aclosing(source.rows(clock)) as stream:
        async for row in stream:
            rows.append(row)
            if len(rows) == count:
                break
    return rows


async def drain(stream) -> None:
    async for _ in stream:
        pass


@pytest.fixture
def capture(tmp_path: Path, wire_frame) -> Path:
    path = tmp_path / "charger.bin"
    path.write_bytes(b"".join(wire_frame(("V", str(12000 + 10 * n)), ("PPV", str(n))) for n in range(120)))
    return path


async def test_a_recording_gives_a_row_each_period_at_its_pace(capture, instant_clock):
    source = collector(file=str(capture), fields=("V", "PPV"), period_s=10, loop=False)
    rows = await take(source, instant_clock)
    assert [row.values for row in rows] == [(1200 + n, n) for n in range(0, 120, 10)]
    assert instant_clock.passed_s == 119
    assert [(channel.name, channel.unit, channel.scale) for channel in source.channels] == [
        ("solar.battery_v", "V", 100),
        ("solar.panel_w", "W", 1),
    ]


async def test_a_recording_loops(capture, instant_clock):
    rows = await take(collector(file=str(capture), fields=("PPV",), period_s=60), instant_clock, 5)
    assert [row.values for row in rows] == [(0,), (60,), (0,), (60,), (0,)]


async def test_a_field_that_stopped_coming_is_missing_and_one_that_never_came_does_not_hold_rows_up(
    tmp_path, wire_frame, instant_clock
):
    path = tmp_path / "charger.bin"
    frames = [wire_frame(("V", "12000"), ("I", "100"))] * 5 + [wire_frame(("V", "12000"))] * 30
    path.write_bytes(b"".join(frames))
    source = collector(file=str(path), fields=("V", "I", "SOC"), period_s=5, loop=False)
    rows = await take(source, instant_clock)
    assert [row.values for row in rows] == [(1200, 1, None)] * 3 + [(1200, None, None)] * 4


async def test_a_battery_monitor_spreads_a_row_over_two_frames(recordings, instant_clock):
    source = collector(
        file=str(recordings["bmv702"]), product="bmv", text_dump=True, loop=False, period_s=60, frames_per_s=2
    )
    rows = await take(source, instant_clock)
    assert len(rows) == 8
    assert all(None not in row.values for row in rows)
    first = dict(zip((channel.name for channel in source.channels), rows[0].values, strict=True))
    assert (first["solar.battery_v"], first["solar.battery_a"], first["solar.soc"]) == (1207, -76, 839)


@pytest.mark.parametrize(("name", "battery_v"), [("bluesolar_1.23", 12.53), ("smartsolar_1.39", 12.81)])
async def test_recorded_chargers_give_whole_rows(recordings, instant_clock, name: str, battery_v: float):
    source = collector(file=str(recordings[name]), text_dump=True, loop=False)
    rows = await take(source, instant_clock)
    assert len(rows) in (5, 9)  # one a minute
    assert rows[0].values[0] == round(battery_v * 100)
    assert all(None not in row.values for row in rows)


async def test_a_live_port_is_read_and_its_loss_is_a_source_error(wire_frame):
    pytest.importorskip("serial", reason="serial ports need pyserial")
    host, port = os.openpty()
    tty.setraw(port)
    source = collector(port=os.ttyname(port), fields=("V",), period_s=0.001)
    stream = source.rows(RealClock(time.monotonic))

    async def talk() -> None:
        for number in range(20):
            os.write(host, wire_frame(("V", str(10_000 + 100 * number)))[: None if number else 9])
            await asyncio.sleep(0.005)

    try:
        talking = asyncio.ensure_future(talk())
        async with asyncio.timeout(60):
            first, second = (await anext(stream)).values, (await anext(stream)).values
        await talking
        # The port was joined midway: what was cut off is not among them.
        assert all(values[0] in range(1010, 1200, 10) for values in (first, second))
        assert second > first
        os.close(host)
        async with asyncio.timeout(60):
            with pytest.raises(SourceError, match="broke off"):
                await drain(stream)
    finally:
        await stream.aclose()
        os.close(port)


async def test_a_port_that_floods_is_throttled():
    pytest.importorskip("serial", reason="serial ports need pyserial")
    host, port = os.openpty()
    tty.setraw(port)
    tty.setraw(host)
    os.set_blocking(host, False)
    naps: list[float] = []
    flooded = asyncio.Event()
    sent = 0

    class Clock:
        def monotonic(self) -> float:
            return 0.0  # all of this happens in one second

        async def sleep(self, seconds: float) -> None:
            naps.append(seconds)
            flooded.set()
            await asyncio.sleep(3600)

    async def flood() -> None:
        nonlocal sent
        while True:
            with suppress(BlockingIOError):
                sent += os.write(host, b"\r\nV\t12000" * 100)
            await asyncio.sleep(0)

    reading = asyncio.ensure_future(anext(collector(port=os.ttyname(port), fields=("V",)).rows(Clock())))
    flooding = asyncio.ensure_future(flood())
    try:
        async with asyncio.timeout(60):
            await flooded.wait()
        assert naps == [1.0]
        assert 16_000 < sent < 200_000
    finally:
        for task in (reading, flooding):
            task.cancel()
        await asyncio.wait({reading, flooding})
        os.close(host)
        os.close(port)


async def test_sources_that_cannot_be_read_say_why(tmp_path, instant_clock):
    junk = tmp_path / "junk.bin"
    junk.write_bytes(bytes(range(256)) * 40)
    for values, says in (
        ({"file": str(junk)}, "no VE.Direct frame"),
        ({"file": str(tmp_path)}, "not a file"),
        ({"port": str(tmp_path / "ttyGONE")}, "cannot open"),
        ({"port": str(junk)}, "cannot open"),
    ):
        with pytest.raises(SourceError, match=says):
            await take(collector(**values), instant_clock, 1)


@pytest.mark.parametrize(
    ("label", "text", "value"),
    [
        ("V", "12530", 1253),
        ("V", "-1", None),
        ("V", "99999999", None),
        ("I", "-7625", -76),
        ("SOC", "839", 839),
        ("SOC", "1001", None),
        ("TTG", "-1", None),
        ("T", "---", None),
        ("OR", "0x00000001", 1),
        ("LOAD", "ON", 1),
        ("Relay", "OFF", 0),
        ("V", "1_0", None),
        ("V", "١٢", None),
        ("V", " 1", None),
        ("V", "", None),
        ("V", "9" * 48, None),
        ("CS", "NaN", None),
    ],
)
def test_values_are_scaled_and_what_cannot_be_is_missing(label: str, text: str, value: int | None):
    assert read_value(text, FIELDS[label]) == value


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({}, "port"),
        ({"port": "/dev/x", "file": "y"}, "port"),
        ({"port": "spy:///dev/x?file=/etc/passwd"}, "port"),
        ({"port": "/dev/x", "text_dump": True}, "text_dump"),
        ({"port": "/dev/x", "fields": ("V", "nope")}, r"fields\[1\]"),
        ({"port": "/dev/x", "fields": ("V", "V")}, "fields"),
    ],
)
def test_settings_that_do_not_hold_name_the_key(values, key: str):
    with pytest.raises(ValueError, match=f"^{key}: "):
        VeDirectSettings(kind="vedirect", name="solar", **values).check()


async def test_the_emulator_is_read_over_a_line_and_found_again(tmp_path: Path, monkeypatch):
    pytest.importorskip("serial", reason="serial ports need pyserial")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    pty = "PTY,raw,echo=0,link="
    line = Peer([program("socat", "socat"), f"{pty}{ours}", f"{pty}{theirs}"], tmp_path)
    talk = [sys.executable, "-m", "vedirect.vedirect_device_emulator", "--port", theirs, "--model", "MPPT"]
    emulator = Peer([*talk, "--n", "1000000", "--sph", "360000"], tmp_path)
    source = collector(port=str(ours), fields=("V", "VPV", "PPV", "I", "CS", "H19", "LOAD"), period_s=0.05)
    async with watched(source, monkeypatch) as watch:
        try:
            assert "cannot open" in await watch.failed()
            for _ in range(2):
                line.start(theirs.exists)
                emulator.start(lambda: True)
                await watch.more(2)
                assert watch.rows[-1] == (1280, 34, 130, 150, 5, 456, 1)
                line.stop()
                emulator.stop()
                assert await watch.failed()
        finally:
            emulator.stop()
            line.stop()
