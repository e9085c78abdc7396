"""Against mosquitto as the GX's broker; what it publishes is laid out as Venus OS does it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.collectors.venus import VenusCollector, VenusSettings
from tests.edge.collectors.peers import liar, sample, watched
from tests.edge.collectors.test_mqtt import Broker

PORTAL = "c0619ab4a585"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    try:
        one.start()
        yield one
    finally:
        one.peer.stop()


def collector(port: int, **values: object) -> VenusCollector:
    return VenusCollector(VenusSettings(kind="venus", name="gx", host="127.0.0.1", port=port, **values))


def say(broker: Broker, path: str, value: str, *options: str) -> None:
    broker.publish(f"N/{PORTAL}/system/0/{path}", f'{{"value": {value}}}', *options)


@pytest.mark.usefixtures("eager")
async def test_a_gx_is_found_by_its_serial_and_read_in_its_units(broker: Broker):
    say(broker, "Serial", f'"{PORTAL}"', "-r")
    say(broker, "Dc/Battery/Voltage", "26.409999847412109", "-r")
    say(broker, "Dc/Battery/Current", "-1.04", "-r")
    say(broker, "Dc/Battery/Soc", "null", "-r")
    say(broker, "Dc/Pv/Power", "1e99", "-r")
    say(broker, "Dc/Battery/TimeToGo", "5430", "-r")
    broker.publish(f"N/{PORTAL}/system/0/Ac/Consumption/L1/Power", "[1]", "-r")
    picked = ("battery_v", "battery_a", "soc", "pv_w", "ac_load_l1_w", "battery_t", "time_to_go")
    wanted = {
        "gx.battery_v": "26.41",
        "gx.battery_a": "-1",
        "gx.soc": "",
        "gx.pv_w": "",
        "gx.ac_load_l1_w": "",
        "gx.battery_t": "",
        "gx.time_to_go": "90",
    }
    assert await sample(collector(broker.port, channels=picked, period_s=0.02), wanted) == wanted


@pytest.mark.usefixtures("eager")
async def test_a_gx_is_kept_awake_and_followed(broker: Broker, monkeypatch):
    monkeypatch.setattr("edge.collectors.mqtt_client.BEAT_S", 0.05)
    asked = await asyncio.create_subprocess_exec(
        broker.publisher.replace("_pub", "_sub"),
        *("-p", str(broker.port), "-t", "R/#", "-F", "%t", "-C", "3"),
        stdout=asyncio.subprocess.PIPE,
    )
    source = collector(broker.port, portal=PORTAL, channels=("soc",), period_s=0.02)
    async with watched(source, monkeypatch) as watch:
        told, _ = await asyncio.wait_for(asked.communicate(), 60)
        assert told.split() == [f"R/{PORTAL}/keepalive".encode()] * 3
        await asyncio.to_thread(say, broker, "Dc/Battery/Soc", "87.4")
        await watch.until(lambda: watch.rows[-1:] == [(874,)])
        await asyncio.to_thread(say, broker, "Dc/Battery/Soc", "87.2")
        await watch.until(lambda: watch.rows[-1] == (872,))


async def test_a_serial_that_is_none_is_not_followed(monkeypatch):
    topic = b"N/#+/system/0/Serial"
    lie = b"\x30" + bytes([len(topic) + 2]) + len(topic).to_bytes(2) + topic
    async with liar(b"\x20\x02\x00\x00", lie) as port, watched(collector(port), monkeypatch) as watch:
        assert await watch.failed()
        assert watch.rows == []


def test_a_channel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"^channels\[0\]: there is no 'volts'"):
        VenusSettings(kind="venus", name="gx", channels=("volts",)).check()
