from __future__ import annotations

import socket
from contextlib import aclosing
from itertools import pairwise

import psutil
import pytest

from edge.collectors import host
from edge.collectors.base import SourceError
from edge.collectors.host import HostCollector, HostSettings, hottest_cel, moved


def settings(**values: object) -> HostSettings:
    return HostSettings(kind="host", name="box", **values)


async def take(collector: HostCollector, clock, count: int) -> list[dict[str, int | None]]:
    names = [channel.name for channel in collector.channels]
    rows = []
    async with aclosing(collector.rows(clock)) as stream:
        async for row in stream:
            rows.append(dict(zip(names, row.values, strict=True)))
            if len(rows) == count:
                break
    return rows


async def test_this_computer_gives_plausible_figures(instant_clock):
    first, second = await take(HostCollector(settings(period_s=30)), instant_clock, 2)
    assert first["box.cpu"] is None
    assert first["box.net_received"] is None
    assert 0 < second["box.memory_used"] <= 100
    assert second["box.disk_used_size"] == pytest.approx(psutil.disk_usage("/").used / 1e6, abs=1000)
    assert second["box.net_sent"] >= 0
    assert second["box.uptime"] >= 0
    assert instant_clock.passed_s == 30


async def test_processor_use_is_a_share_of_the_time_that_passed(instant_clock):
    rows = await take(HostCollector(settings(channels=("cpu",))), instant_clock, 400)
    shares = [row["box.cpu"] for row in rows if row["box.cpu"] is not None]  # None while no tick has passed
    assert shares
    assert all(0 <= share <= 100 for share in shares)


async def test_bytes_sent_over_loopback_are_counted_and_rests_add_up(instant_clock):
    collector = HostCollector(settings(interfaces=("lo",), channels=("net_sent",)))
    before = psutil.net_io_counters(pernic=True)["lo"].bytes_sent
    rows = []
    async with aclosing(collector.rows(instant_clock)) as stream:
        async for row in stream:
            rows.append(row.values[0])
            if len(rows) == 6:
                break
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x" * 900, ("127.0.0.1", 9))
    sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - before
    assert rows[0] is None
    # Five datagrams of 900 bytes are each less than a KiB: rounding each row down would show 0.
    assert 4 <= sum(rows[1:]) <= sent // 1024


async def test_only_the_channels_asked_for_are_there(instant_clock):
    collector = HostCollector(settings(channels=("uptime", "cpu"), prefix=""))
    assert [channel.name for channel in collector.channels] == ["cpu", "uptime"]
    rows = await take(collector, instant_clock, 2)
    assert all(set(row) == {"cpu", "uptime"} for row in rows)


async def test_a_disk_that_is_gone_is_a_source_error(instant_clock, tmp_path):
    with pytest.raises(SourceError, match="the host does not answer"):
        await take(HostCollector(settings(disk=str(tmp_path / "gone"))), instant_clock, 1)


def test_a_counter_that_began_again_counts_from_zero():
    assert moved((("eth0", 1000), ("wwan0", 5)), (("eth0", 300), ("wwan0", 25), ("usb0", 7))) == 300 + 20 + 7
    assert moved((("eth0", 1000),), ()) == 0


def test_only_plausible_temperatures_count(monkeypatch):
    class Sensor:
        def __init__(self, current: float | None) -> None:
            self.current = current

    groups = {"cpu": [Sensor(61.0), Sensor(None), Sensor(-273.0)], "board": [Sensor(48.5), Sensor(65261.0)]}
    monkeypatch.setattr(host.psutil, "sensors_temperatures", lambda: groups, raising=False)
    assert hottest_cel() == 61.0
    assert "box.temperature" in [channel.name for channel in HostCollector(settings()).channels]
    groups.clear()
    assert hottest_cel() is None
    assert "box.temperature" not in [channel.name for channel in HostCollector(settings()).channels]


async def test_uptime_never_falls_while_the_computer_is_up(instant_clock):
    rows = await take(HostCollector(settings(channels=("uptime",))), instant_clock, 5)
    assert all(after["box.uptime"] >= before["box.uptime"] for before, after in pairwise(rows))
