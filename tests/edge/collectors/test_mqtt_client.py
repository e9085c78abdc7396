"""The bytes of MQTT 3.1.1 and what a broker may do wrong; mosquitto itself is met in test_mqtt.py."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest

from edge.collectors.base import RealClock, SourceError
from edge.collectors.mqtt_client import PAYLOAD_BYTES_MAX, Message, MqttClient
from edge.collectors.stream import connect
from tests.edge.collectors.peers import liar

CONNACK = b"\x20\x02\x00\x00"
SUBACK = b"\x90\x03\x00\x01\x00"


@asynccontextmanager
async def client(port: int):
    async with connect("127.0.0.1", port, clock=RealClock(time.monotonic)) as stream:
        yield MqttClient(stream)


def publish(topic: bytes, payload: bytes, *, kind: int = 0x30, length: int | None = None) -> bytes:
    body = len(topic).to_bytes(2) + topic + (b"\x00\x07" if kind & 6 else b"") + payload
    rest, head = len(body) if length is None else length, bytearray()
    while True:
        head.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))
        rest >>= 7
        if not rest:
            return bytes([kind]) + head + body


async def until_failure(broker: MqttClient) -> tuple[list[Message | None], str]:
    """Return what came, and what ended it."""
    found: list[Message | None] = []
    try:
        async for message in broker.messages():
            found.append(message)  # noqa: PERF401  # what came before the end is kept
    except SourceError as error:
        return found, str(error)
    raise AssertionError("messages ended by themselves")


async def heard(*sends: bytes) -> list[Message | None]:
    async with liar(CONNACK, *sends) as port, client(port) as broker:
        await broker.hello("me")
        found, end = await until_failure(broker)
    assert "broke off" in end
    return found


async def test_messages_come_whatever_their_size_and_quality():
    long = b"9" * 300
    assert await heard(SUBACK, publish(b"a/b", b"1"), publish(b"c", b""), publish(b"d", long, kind=0x32)) == [
        Message("a/b", b"1"),
        Message("c", b""),
        Message("d", long),
    ]


async def test_a_payload_that_is_no_measurement_is_read_past():
    huge = publish(b"big", b"x" * (PAYLOAD_BYTES_MAX + 1))
    assert await heard(huge, publish(b"x" * 2000, b"1"), publish(b"a", b"2")) == [
        Message("big", b""),
        Message("a", b"2"),
    ]


async def test_a_packet_of_256_mb_is_not_waited_for_in_memory():
    assert await heard(publish(b"big", b"x" * 1000, length=268_435_455)) == []


async def test_packets_nobody_asked_for_are_read_past():
    assert await heard(b"\xd0\x00", b"\x40\x02\x00\x01", b"\xf0\x03abc", publish(b"a", b"1")) == [Message("a", b"1")]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"\x20\x02\x00\x04", "password is wrong"),
        (b"\x20\x02\x00\x05", "set username"),
        (b"\x20\x02\x00\x63", "code 99"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not an MQTT broker"),
        (b"\x20\xff\xff\xff\xff\xff", "not an MQTT broker"),
        (b"\x20", "broke off"),
        (b"", "broke off"),
    ],
)
async def test_a_broker_that_does_not_let_us_in_says_why(said: bytes, says: str):
    async with liar(said) as port, client(port) as broker:
        with pytest.raises(SourceError, match=says):
            await broker.hello("me")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b"\x90\x03\x00\x01\x80", "does not let this user read"),
        (b"\x30\x01\x00", "too short"),
        (b"\x30\x04\x00\xffab", "does not fit"),
        (b"\x30\xff\xff\xff\xff\x01", "not an MQTT broker"),
    ],
)
async def test_a_broken_packet_is_a_source_error(said: bytes, says: str):
    async with liar(CONNACK, said) as port, client(port) as broker:
        await broker.hello("me")
        assert says in (await until_failure(broker))[1]


async def test_a_broker_that_answers_no_ping_is_gone(monkeypatch):
    monkeypatch.setattr("edge.collectors.mqtt_client.BEAT_S", 0.02)
    async with liar(CONNACK, hold=True) as port, client(port) as broker:
        await broker.hello("me")
        beats, end = await until_failure(broker)
    assert beats == [None]
    assert "no longer answers pings" in end


async def test_a_broker_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("edge.collectors.mqtt_client.ANSWER_S_MAX", 0.05)
    async with liar(hold=True) as port, client(port) as broker:
        with pytest.raises(SourceError, match="did not answer"):
            await broker.hello("me")
