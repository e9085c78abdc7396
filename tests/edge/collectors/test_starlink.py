"""Against a server of the vendor's own messages (fake_dish.py), and against peers that are no terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.collectors.starlink import StarlinkCollector, StarlinkSettings, read_figure
from tests.edge.collectors.peers import Peer, failure, free_port, liar, listens, sample, watched

STATUS = {
    "deviceInfo": {"id": "ut01", "softwareVersion": "2026.1"},
    "deviceState": {"uptimeS": "7300"},
    "popPingLatencyMs": 38.6,
    "popPingDropRate": 0.02,
    "downlinkThroughputBps": 1.26e6,
    "uplinkThroughputBps": "NaN",
    "obstructionStats": {"fractionObstructed": 0.0314},
    "alerts": {"thermalThrottle": True},
    "boresightElevationDeg": "Infinity",
    "gpsStats": {"gpsSats": 14, "gpsValid": True},
}


class Dish(Peer):
    """A terminal in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.status = folder / "status.json"
        self.say(STATUS)
        program = Path(__file__).with_name("fake_dish.py")
        super().__init__([sys.executable, program, str(self.port), self.status], folder)

    def say(self, status: dict[str, object]) -> None:
        fresh = self.status.with_suffix(".new")
        fresh.write_text(json.dumps(status))
        fresh.rename(self.status)

    def up(self) -> None:
        self.start(listens(self.port))


@pytest.fixture
def dish(tmp_path: Path) -> Iterator[Dish]:
    one = Dish(tmp_path)
    try:
        one.up()
        yield one
    finally:
        one.stop()


def collector(port: int, **values: object) -> StarlinkCollector:
    return StarlinkCollector(StarlinkSettings(kind="starlink", name="sat", address=f"127.0.0.1:{port}", **values))


async def test_a_terminal_is_read_followed_and_found_again(dish: Dish, monkeypatch):
    picked = (
        "state",
        "latency",
        "ping_drop",
        "down",
        "up",
        "obstructed",
        "alerts",
        "satellites",
        "elevation",
        "uptime",
    )
    assert await sample(collector(dish.port, channels=picked)) == {
        "sat.state": "1",
        "sat.latency": "39",
        "sat.ping_drop": "2",
        "sat.down": "1.3",
        "sat.up": "",
        "sat.obstructed": "3.1",
        "sat.alerts": "4",
        "sat.satellites": "14",
        "sat.elevation": "",
        "sat.uptime": "2",
    }
    async with watched(collector(dish.port, channels=("state", "latency"), period_s=0.05), monkeypatch) as watch:
        await watch.more()
        dish.say(STATUS | {"outage": {"cause": "OBSTRUCTED"}})
        await watch.until(lambda: watch.rows[-1] == (7, 39))
        dish.stop()
        assert "does not answer" in await watch.failed()
        dish.say({"popPingLatencyMs": 1e30})
        dish.up()
        await watch.until(lambda: watch.rows[-1] == (1, None))


async def test_what_is_no_terminal_is_a_source_error(monkeypatch):
    for nonsense in (b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\x00\x00\x04" * 2000):
        async with liar(nonsense) as port:
            assert "does not answer" in await failure(collector(port))


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("state", "OBSTRUCTED", 7),
        ("state", "SOMETHING_NEW", None),
        ("alerts", 2**62, None),
        ("latency", -1.0, None),
        ("latency", None, None),
        ("latency", [1], None),
        ("down", float("inf"), None),
    ],
)
def test_figures_are_read_and_what_cannot_be_is_missing(name: str, said: object, value: int | None):
    field = {"latency": "pop_ping_latency_ms", "down": "downlink_throughput_bps"}.get(name, name)
    assert read_figure(name, {field: said}) == value
    assert read_figure(name, {}) is None


@pytest.mark.parametrize(
    ("values", "says"), [({"channels": ("state", "state")}, "twice"), ({"channels": ("snr",)}, "no 'snr'")]
)
def test_channels_that_are_not_there_are_refused(values, says: str):
    with pytest.raises(ValueError, match=says):
        StarlinkSettings(kind="starlink", name="sat", **values).check()
