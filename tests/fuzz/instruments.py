"""Fuzz targets that are an instrument's side of a conversation: a broker, a GX, gpsd, upsd, a log, the kernel.

The bytes come through the same stream that a connection has, without one. A conversation that just ends is no fault and
no refusal; every value that comes of it must be one that a batch can hold.
"""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.collectors.base import Collector, SourceError
from edge.collectors.csv_tail import CsvTailCollector, Tail
from edge.collectors.latest import Latest
from edge.collectors.modbus import ModbusReader
from edge.collectors.mqtt_client import MqttClient
from edge.collectors.neighbours import take_answer
from edge.collectors.nut import read_channel
from edge.collectors.registry import plan_collectors
from edge.collectors.run import is_cell
from edge.collectors.stream import LINE_BYTES_MAX, Stream
from edge.collectors.victron_modbus import REGISTERS, read_register
from protocol.errors import MalformedError
from tests.fuzz.engine import Running, Target

Talk = Callable[[Stream, Latest], Awaitable[None]]


class _Still:
    """A clock that stands, and a sleep that is over at once."""

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class _Mute:
    """The writing half of a connection that nobody listens to."""

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass


class Conversation:
    """One loop for all inputs; each is a conversation that ends after its bytes."""

    def __init__(self, talk: Talk, width: int) -> None:
        self._talk = talk
        self._width = width
        self._loop = asyncio.new_event_loop()

    def feed(self, data: bytes) -> None:
        """Have the conversation; raise `MalformedError` if its end is a refusal."""
        try:
            self._loop.run_until_complete(self._converse(data))
        except SourceError as error:
            if not str(error).endswith("broke off"):
                raise MalformedError(str(error)) from error

    async def _converse(self, data: bytes) -> None:
        reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        reader.feed_data(data)
        reader.feed_eof()
        latest = Latest(self._width, fresh_s=1.0, clock=_Still())
        try:
            await self._talk(Stream(reader, _Mute(), "it", _Still()), latest)  # type: ignore[arg-type]
        finally:
            row = latest.row()
            assert row is None or all(is_cell(value) for value in row.values)

    def settle(self) -> list[str]:
        """Close the loop."""
        self._loop.close()
        return []


def _collector(**table: Any) -> Any:
    (plan,) = plan_collectors([{"name": "x", **table}])
    found: Collector[Any] = plan.collector_type(plan.settings)
    return found


def _conversation(name: str, seeds: Sequence[bytes], talk: Talk, width: int) -> Target:
    @contextmanager
    def open_target() -> Iterator[tuple[Running, Sequence[bytes]]]:
        yield Conversation(talk, width), seeds

    return Target(name, open_target)


def _mqtt() -> Target:
    pointers = [{"name": "a", "topic": "a", "at": "/v/0"}, {"name": "b", "topic": "a", "words": {"on": 1}}]
    source = _collector(kind="mqtt", channels=pointers)

    async def talk(stream: Stream, latest: Latest) -> None:
        client = MqttClient(stream)
        await client.hello("me", "user", b"password")
        async for message in client.messages():
            if message is not None:
                source.take(message, latest)

    hello, granted = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00"
    seeds = [
        hello + granted + b'\x30\x0e\x00\x01a{"v":[1.25]}' + b"\xd0\x00" + b"\x30\x05\x00\x01aon",
        hello + b"\x32\x08\x00\x01a\x00\x07123" + b"\x31\x06\x00\x01a1e9",
    ]
    return _conversation("mqtt", seeds, talk, 2)


def _gpsd() -> Target:
    source = _collector(kind="gpsd", channels=["lat", "lon", "altitude", "speed", "fix", "satellites"])

    async def talk(stream: Stream, latest: Latest) -> None:
        while True:
            source.take(await stream.line(), latest)

    tpv = b'{"class":"TPV","device":"/dev/ttyS0","mode":3,"lat":-1.28,"lon":36.8,"altMSL":1661.1,"speed":0.2}\r\n'
    sky = b'{"class":"SKY","uSat":7,"satellites":[{"PRN":3,"used":true},{"PRN":4,"used":false}]}\r\n'
    return _conversation("gpsd", [tpv + sky, tpv * 3, b'{"class":"VERSION","release":"3.22"}\r\n' + tpv], talk, 6)


def _nut() -> Target:
    source = _collector(kind="nut")

    async def talk(stream: Stream, latest: Latest) -> None:
        said = await source.ask(stream)
        for index, name in enumerate(source.settings.channels):
            latest.put(index, read_channel(name, said))

    lines = b'BEGIN LIST VAR ups\nVAR ups battery.charge "87"\nVAR ups ups.status "OB LB"\nVAR ups ups.load "1\\"2"\n'
    return _conversation("nut", [lines + b"END LIST VAR ups\n", b"ERR DATA-STALE\n"], talk, len(source.channels))


def _modbus() -> Target:
    async def talk(stream: Stream, latest: Latest) -> None:
        reader = ModbusReader(stream, 100)
        for index, register in enumerate(REGISTERS.values()):
            words = await reader.read(register.address)
            latest.put(index, read_register(words[0], register) if words else None)

    answers = [struct.pack(">HHHBBBH", number, 0, 5, 100, 3, 2, 264 * number) for number in range(1, 20)]
    absent = struct.pack(">HHHBBB", 1, 0, 3, 100, 0x83, 2)
    return _conversation("modbus", [b"".join(answers), absent + b"".join(answers[1:])], talk, len(REGISTERS))


def _csv() -> Target:
    channels = [{"name": "a", "decimals": 1}, {"name": "b", "column": 3}]
    source: CsvTailCollector = _collector(kind="csv-tail", file="log.csv", channels=channels)

    @contextmanager
    def open_target() -> Iterator[tuple[Running, Sequence[bytes]]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.csv"

            async def talk(stream: Stream, latest: Latest) -> None:
                path.write_bytes(b"")
                tail = Tail(str(path), header=True)
                tail.open()
                try:
                    while True:
                        with path.open("ab") as log:
                            log.write(await stream.line() + b"\n")
                        if (line := tail.last_line()) is not None:
                            source.take(line, tail.head, latest)
                finally:
                    tail.close()

            yield Conversation(talk, 2), [b'a,x,c\n1.5,"2",3\n', b"a;b\n\na,b,c\n1,2,3\n"]

    return Target("csv-tail", open_target)


def _neighbours() -> Target:
    def message(kind: int, body: bytes) -> bytes:
        return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body

    entry = struct.pack("=BBHiHBB", 2, 0, 0, 1, 2, 0, 1) + struct.pack("=HH", 8, 1) + bytes([10, 0, 0, 7])

    async def talk(stream: Stream, latest: Latest) -> None:
        data = b""
        try:
            while True:
                data += await stream.exactly(1)
        except SourceError:
            pass
        try:
            take_answer(data, {})
        except OSError as error:
            raise SourceError(str(error)) from error

    return _conversation("neighbours", [message(28, entry) + message(3, bytes(4)), message(28, entry * 2)], talk, 1)


def instrument_targets() -> list[Target]:
    """Return every target of this module."""
    return [_mqtt(), _gpsd(), _nut(), _modbus(), _csv(), _neighbours()]
