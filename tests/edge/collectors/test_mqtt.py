"""Against Debian's mosquitto, fed by its own mosquitto_pub."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.collectors.mqtt import MqttCollector, MqttSettings, read_payload
from edge.collectors.mqtt_client import PAYLOAD_BYTES_MAX
from edge.collectors.registry import CollectorConfigError, plan_collectors
from tests.edge.collectors.peers import Peer, failure, free_port, listens, program, sample, watched

CHANNELS = (
    {"name": "tank", "topic": "water/tank", "unit": "l", "minimum": 0, "maximum": 1000},
    {"name": "room_t", "topic": "zigbee/room", "at": "/temperature", "unit": "Cel", "decimals": 1},
    {"name": "door", "topic": "zigbee/door", "at": "/state", "words": {"open": 1, "closed": 0}},
)


class Broker:
    """A mosquitto of one's own; `more` are lines of its configuration."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port = free_port()
        self.publisher = program("mosquitto_pub", "mosquitto-clients")
        config = folder / "mosquitto.conf"
        config.write_text("\n".join([f"listener {self.port} 127.0.0.1", "allow_anonymous true", "user root", *more]))
        self.peer = Peer([program("mosquitto", "mosquitto"), "-c", config], folder)

    def start(self) -> None:
        self.peer.start(listens(self.port))

    def publish(self, topic: str, payload: str | bytes, *options: str) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        command = [self.publisher, "-h", "127.0.0.1", "-p", str(self.port), "-t", topic, "-s", *options]
        subprocess.run(command, input=data, check=True, timeout=60)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    one = Broker(tmp_path)
    try:
        one.start()
        yield one
    finally:
        one.peer.stop()


def collector(port: int, **values: object) -> MqttCollector:
    table = {"kind": "mqtt", "name": "iot", "host": "127.0.0.1", "port": port, "channels": list(CHANNELS), **values}
    (plan,) = plan_collectors([table])
    assert isinstance(plan.settings, MqttSettings)
    return MqttCollector(plan.settings)


async def test_topics_become_channels(broker: Broker):
    broker.publish("water/tank", "412.4", "-r")
    broker.publish("zigbee/room", '{"temperature": 24.56, "linkquality": 80}', "-r")
    broker.publish("zigbee/door", '{"state": "open"}', "-r")
    assert await sample(collector(broker.port)) == {"iot.tank": "412", "iot.room_t": "24.6", "iot.door": "1"}


@pytest.mark.usefixtures("eager")
async def test_a_source_that_lies_floods_and_vanishes_is_survived(broker: Broker, monkeypatch):
    async with watched(collector(broker.port, period_s=0.02), monkeypatch) as watch:
        for payload in (
            b"NaN",
            b"1e400",
            b"\xff\xfe\x00",
            b"[" * 60_000,
            b'{"a":' * 5000,
            b"x" * (PAYLOAD_BYTES_MAX + 9),
        ):
            await asyncio.to_thread(broker.publish, "water/tank", payload, "-r")
        await asyncio.to_thread(broker.publish, "zigbee/door", '{"state": "closed"}', "-r")
        await watch.until(lambda: (None, None, 0) in watch.rows)
        # 3,000 messages as fast as they go; the last one counts.
        lines = "\n".join(str(number % 1001) for number in range(3000)).encode()
        flood = [broker.publisher, "-p", str(broker.port), "-t", "water/tank", "-l"]
        await asyncio.to_thread(subprocess.run, flood, input=lines, check=True, timeout=60)
        await watch.until(lambda: watch.rows[-1][0] == 2999 % 1001)
        broker.peer.stop()
        assert "broke off" in await watch.failed() or "broker running" in await watch.failed()
        broker.start()
        await asyncio.to_thread(broker.publish, "water/tank", "7", "-r")
        await watch.until(lambda: watch.rows[-1] == (7, None, None))


@pytest.mark.usefixtures("eager")
async def test_a_password_is_asked_for_and_given(tmp_path: Path):
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    secret.write_text("opensesame\n")
    maker = program("mosquitto_passwd", "mosquitto")
    subprocess.run([maker, "-b", "-c", passwords, "truck", "opensesame"], check=True, timeout=60)
    # The last of two contradicting lines holds.
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    try:
        broker.start()
        assert "set username and password_file" in await failure(collector(broker.port))
        broker.publish("water/tank", "5", "-r", "-u", "truck", "-P", "opensesame")
        allowed = collector(broker.port, username="truck", password_file=str(secret))
        assert (await sample(allowed))["iot.tank"] == "5"
    finally:
        broker.peer.stop()


@pytest.mark.usefixtures("eager")
async def test_an_encrypted_broker_is_checked_against_its_authority(tmp_path: Path):
    openssl = program("openssl", "openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request.split(), *names], check=True, capture_output=True, timeout=60)
    broker = Broker(tmp_path, f"certfile {certificate}", f"keyfile {key}")
    try:
        broker.start()
        broker.publish("water/tank", "5", "-r", "--cafile", str(certificate))
        assert (await sample(collector(broker.port, ca_file=str(certificate))))["iot.tank"] == "5"
        assert "TLS failed" in await failure(collector(broker.port, tls=True))
        assert "ca_file" in await failure(collector(broker.port, ca_file=str(tmp_path / "gone.pem")))
    finally:
        broker.peer.stop()


async def test_what_is_not_there_says_what_to_look_at(tmp_path: Path):
    assert "is the broker running" in await failure(collector(free_port()))
    unreadable = collector(1, username="a", password_file=str(tmp_path / "gone"))
    assert "cannot read password_file" in await failure(unreadable)


@pytest.mark.parametrize(
    ("payload", "document"),
    [(b"12", 12), (b'{"a": 1}', {"a": 1}), (b"", None), (b"online", "online"), (b"\xff" * 999, "\ufffd" * 256)],
)
def test_a_payload_is_json_or_text(payload: bytes, document: object):
    assert read_payload(payload) == document


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"channels": []}, "collector[0].channels"),
        ({"channels": [{"name": "a"}]}, "collector[0].channels[0]"),
        ({"channels": [{"name": "a", "topic": "a/#"}]}, "collector[0].channels[0].topic"),
        ({"channels": [{"name": "a", "topic": "b", "unit": "foot"}]}, "collector[0].channels[0].unit"),
        ({"channels": [{"name": "a", "topic": "b", "at": "c"}]}, "collector[0].channels[0].at"),
        ({"channels": [{"name": "a", "topic": "b", "unti": "V"}]}, "collector[0].channels[0]"),
        ({"password_file": "x"}, "collector[0].password_file"),
        ({"port": 0}, "collector[0].port"),
    ],
)
def test_a_wrong_table_names_its_key(change, key: str):
    with pytest.raises(CollectorConfigError) as caught:
        collector(**{"port": 1, **change})
    assert caught.value.key == key
