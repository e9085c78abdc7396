from __future__ import annotations

import asyncio
import time

import pytest

from edge.collectors import registry
from edge.collectors.base import ChannelSpec, Collector, CollectorSettings, RealClock, Row
from edge.collectors.check import check_collectors, format_value, render_checks


class Silent(Collector[CollectorSettings]):
    """A source that never says anything."""

    settings_type = CollectorSettings
    channels = ()

    async def rows(self, clock):
        await asyncio.get_running_loop().create_future()
        yield Row(())


class Wrong(Silent):
    """A source whose row does not fit its channels."""

    async def rows(self, clock):
        yield Row((1,))


class Over(Silent):
    """A source with nothing in it."""

    async def rows(self, clock):
        return
        yield


@pytest.fixture
def kinds(monkeypatch):
    found = {"silent": Silent, "wrong": Wrong, "over": Over}
    real = registry.find_collector
    monkeypatch.setattr(registry, "find_collector", lambda kind: found.get(kind) or real(kind))


async def test_each_collector_gives_a_sample_or_a_reason(tmp_path, kinds, wire_frame):
    capture = tmp_path / "charger.bin"
    capture.write_bytes(wire_frame(("V", "12530"), ("CS", "3")) * 3)
    checks = await check_collectors(
        [
            {
                "kind": "vedirect",
                "name": "solar",
                "file": str(capture),
                "fields": ["V", "CS", "T"],
                "frames_per_s": 1000,
            },
            {"kind": "host", "name": "box", "channels": ["uptime", "cpu"]},
            {"kind": "vedirect", "name": "gone", "port": str(tmp_path / "ttyGONE")},
            {"kind": "silent", "name": "silent"},
            {"kind": "wrong", "name": "wrong"},
            {"kind": "over", "name": "over"},
            {"kind": "replay", "name": "trace", "file": str(tmp_path / "gone.csv")},
        ],
        clock=RealClock(time.monotonic),
        timeout_s=0.5,
    )
    by_name = {check.name: check for check in checks}
    assert len(by_name) == 7
    assert [sample.unit for sample in by_name["box"].samples] == ["%", "h"]
    assert "cannot open" in by_name["gone"].error
    assert by_name["silent"].error == "no row within 0.5 s"
    assert "does not fit" in by_name["wrong"].error
    assert "ended before" in by_name["over"].error
    assert "is not a file" in by_name["trace"].error


async def test_a_source_that_is_silent_says_what_to_look_at(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("a\n")
    tables = [
        {"kind": "csv-tail", "name": "log", "file": str(log), "channels": [{"name": "a"}]},
        {"kind": "http-push", "name": "push", "listen": "127.0.0.1:0", "channels": [{"name": "a"}]},
    ]
    log_check, push_check = await check_collectors(tables, clock=RealClock(time.monotonic), timeout_s=0.2)
    assert log_check.error.startswith("no row within 0.2 s: no whole line was added")
    assert "curl -d JSON http://127.0.0.1:0/" in push_check.error


async def test_a_sample_reads_like_the_instrument(tmp_path, wire_frame):
    capture = tmp_path / "charger.bin"
    capture.write_bytes(wire_frame(("V", "12530"), ("CS", "3"), ("T", "---")))
    table = {"kind": "vedirect", "name": "solar", "file": str(capture), "fields": ["V", "CS", "T"]}
    text = render_checks(await check_collectors([table], clock=RealClock(time.monotonic)))
    assert text.splitlines() == [
        "solar: ok",
        "  solar.battery_v     12.53 V",
        "  solar.charge_state  3",
        "  solar.battery_t     -",
    ]


async def test_a_wrong_table_is_a_result_that_names_the_key():
    (check,) = await check_collectors([{"kind": "host", "name": "x", "perod_s": 5}], clock=RealClock(time.monotonic))
    assert check.name == "collector[0].perod_s"
    assert render_checks([check]).startswith("collector[0].perod_s: is no key of 'host'")


def test_values_are_written_without_exponents_or_rounding():
    assert format_value(-5, ChannelSpec("a", scale=10**9)) == "-0.000000005"
    assert format_value(1 << 62, ChannelSpec("a", scale=10)) == "461168601842738790.4"
    assert format_value(None, ChannelSpec("a")) == ""
    assert render_checks([]) == "no collectors are configured"
