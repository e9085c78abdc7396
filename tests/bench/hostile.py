"""A flood of hostile datagrams at a real gateway, while a real truck keeps posting to it.

The flood is junk, generated CoAP, and real messages of a truck (handshakes, protected requests) bent bit by bit, from
many addresses in many networks, at a steady rate. Measured: what the truck waits, what memory and logs grow by, what
nothing caught, and what goes out to the flood's addresses for each byte that came from there. Whole IP packets.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path

from aiocoap.message import Message
from aiocoap.numbers import codes
from aiocoap.numbers.types import CON, NON

from edge.config import ClassroomSettings, EdgeConfig, LinkSettings
from edge.joining import join
from edge.link import Link
from edge.link_errors import LinkDownError
from protocol import edhoc
from protocol.joincode import read_join_code
from protocol.messages import Upload
from protocol.numbers import PATH_EDHOC, PATH_EXCHANGE, PATH_UPLOAD, Precedence
from protocol.oscore import LinkContext
from tests.bench.gatewayprocess import GatewayFigures, GatewayProcess
from tests.bench.session import _link, replace_addresses
from tests.fuzz.mutation import generate_coap, mutate

NAME = "hostile"
DATAGRAMS, RATE_PER_S = 200_000, 10_000
HEADERS = 28
_POOL = 20_000
_TRUCK_EVERY_S = 0.02
_ANSWER_S = 2.0
_SOURCES = 240


@dataclass
class Flood:
    """Sockets at many addresses, each with what went out and what came back (IP bytes)."""

    target: tuple[str, int]
    sockets: list[socket.socket] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    unsent: int = 0
    datagrams: int = 0

    def open(self, dice: random.Random) -> None:
        """Bind each socket in a network (a /24) of its own."""
        for number in range(_SOURCES):
            each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            each.setblocking(False)
            each.bind((f"127.{1 + number}.{dice.randrange(256)}.{dice.randrange(1, 255)}", 0))
            each.connect(self.target)
            self.sockets.append(each)
        self.sent, self.received = [0] * _SOURCES, [0] * _SOURCES

    def send(self, at: int, data: bytes) -> None:
        """Send one datagram from one of the addresses."""
        try:
            self.sockets[at].send(data)
        except OSError:
            self.unsent += 1
        else:
            self.sent[at] += HEADERS + len(data)
            self.datagrams += 1

    def drain(self) -> None:
        """Count what came back."""
        for at, each in enumerate(self.sockets):
            while True:
                try:
                    self.received[at] += HEADERS + len(each.recv(65_535))
                except OSError:
                    break

    @property
    def factor(self) -> float:
        """Bytes out a byte in, over all addresses."""
        return sum(self.received) / max(1, sum(self.sent))

    @property
    def worst_factor(self) -> float:
        """The same for the address that got the most for what it sent."""
        return max(back / max(1, there) for back, there in zip(self.received, self.sent, strict=True))

    def close(self) -> None:
        """Close every socket."""
        for each in self.sockets:
            each.close()


@dataclass(frozen=True, slots=True)
class HostileFigures:
    """What one run showed."""

    flood: Flood
    seconds: float
    before: GatewayFigures
    after: GatewayFigures
    quiet_ms: list[float]
    flooded_ms: list[float]
    lost: int


def run(args: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit)."""
    parser = argparse.ArgumentParser(prog="bench hostile")
    parser.add_argument("--datagrams", type=int, default=DATAGRAMS)
    parser.add_argument("--rate", type=int, default=RATE_PER_S, help="datagrams a second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as folder:
        found = asyncio.run(measure(Path(folder), options.datagrams, options.rate, options.seed))
    flood, before, after = found.flood, found.before, found.after
    arrived = after.received_bytes - before.received_bytes
    # A request that was never answered waited for as long as the truck waits.
    waited_ms = found.flooded_ms + [_ANSWER_S * 1000] * found.lost
    return [
        (
            "hostile datagrams",
            f"{flood.datagrams:,} at {flood.datagrams / found.seconds:,.0f}/s; {after.turned_away:,} turned away",
            "",
            "",
        ),
        (
            "share of the flood's bytes that reached the process",
            f"{100 * min(1.0, arrived / max(1, sum(flood.sent))):.0f} %",
            "",
            "",
        ),
        (
            "processor of the gateway during the flood",
            f"{100 * (after.processor_s - before.processor_s) / found.seconds:.0f} % of a core",
            "",
            "",
        ),
        ("uncaught exceptions", f"{after.uncaught}", "", "0"),
        (
            "memory",
            f"{(after.memory_bytes - before.memory_bytes) / 2**20:+.1f} MiB",
            "",
            "64 MiB",
        ),
        (
            "logs",
            f"{after.log_bytes - before.log_bytes:,} B",
            "stock aiocoap 16.8 MB for 100,000 junk datagrams",
            "1 MB",
        ),
        ("bytes out a byte in, all sources", f"{flood.factor:.3f}", "RFC 9175: 3", "3"),
        (
            "bytes out a byte in, worst source",
            f"{flood.worst_factor:.3f}",
            "RFC 9175: 3; stock aiocoap 26,368",
            "3",
        ),
        ("a truck's p99, quiet", f"{_p99(found.quiet_ms):.0f} ms", "", ""),
        (
            "a truck's p99 during the flood",
            f"{_p99(waited_ms):.0f} ms (median {statistics.median(waited_ms):.0f} ms)",
            "",
            "250 ms",
        ),
        (
            "a truck's requests without an answer during the flood",
            f"{found.lost} of {len(found.flooded_ms) + found.lost}",
            "",
            "",
        ),
    ]


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


async def measure(folder: Path, datagrams: int, rate: int, seed: int) -> HostileFigures:
    """Run the flood and return what was seen."""
    dice = random.Random(seed)
    with GatewayProcess(folder / "gateway", ["bench-truck"]) as gateway:
        link = await joined(folder / "truck", gateway)
        host, _, port = gateway.address.rpartition(":")
        flood = Flood((host, int(port)))
        flood.open(dice)
        pool = list(islice(hostile_datagrams(dice, await captured(link, gateway)), min(_POOL, datagrams)))
        quiet_ms, _ = await _post(link, asyncio.create_task(asyncio.sleep(2.0)))
        before = gateway.figures()
        started = time.monotonic()
        flooding = asyncio.create_task(asyncio.to_thread(_flood, flood, pool, datagrams, rate, seed))
        flooded_ms, lost = await _post(link, flooding)
        seconds = time.monotonic() - started
        await asyncio.sleep(1.0)
        flood.drain()
        after = gateway.figures()
        flood.close()
        await link.close()
    return HostileFigures(flood, seconds, before, after, quiet_ms, flooded_ms, lost)


async def joined(truck: Path, gateway: GatewayProcess) -> Link:
    """Return a link of a truck that has just joined."""
    truck.mkdir()
    config = EdgeConfig(
        data=str(truck),
        classroom=ClassroomSettings(listen="127.0.0.1:0"),
        link=(LinkSettings(name="lte"),),
        collector=(),
    )
    await join(read_join_code(replace_addresses(gateway.codes["bench-truck"], gateway.address)), config, truck)
    return _link(truck, gateway.address)


async def captured(link: Link, gateway: GatewayProcess) -> list[bytes]:
    """Return datagrams as a truck sends them: both kinds of first message, a combined and a plain protected request."""
    hello = Upload(ask_time=True).encode()
    await _ask(link, hello)
    session = link._session
    assert session is not None
    found = []
    key = edhoc.generate_key()
    for path in ((PATH_EXCHANGE,), PATH_EDHOC):
        initiator = edhoc.Initiator(key, link._gateway_keys()[0].key, link="lte", joining=True)
        found.append(encoded(Message(code=codes.POST, uri_path=list(path), payload=initiator.message_1())))
    protected = Message(code=codes.POST, uri_path=[PATH_UPLOAD], payload=hello)
    found.append(encoded(LinkContext.protect(session, protected)[0]))
    found.append(found[-1])
    combined = found[-1].replace(b"\xff", b"\xff\x58\x1e" + bytes(30), 1)
    plain = Message(code=codes.GET, uri_path=[".well-known", "core"])
    observe = Message(code=codes.GET, uri_path=["d"], observe=0)
    return [*found, combined, encoded(plain), encoded(observe), encoded(protected), b"\x40\x00\x12\x34"]


def encoded(message: Message) -> bytes:
    """Return a message as a datagram, non-confirmable unless it says otherwise."""
    message.mtype = NON if message.mtype is None else message.mtype
    message.mid, message.token = 1, message.token or b"\x07"
    return bytes(message.encode())


def hostile_datagrams(dice: random.Random, seeds: Sequence[bytes]) -> Iterator[bytes]:
    """Yield datagrams for ever: a quarter as captured (replays, handshakes), the rest bent or made up."""
    while True:
        kind = dice.random()
        if kind < 0.25:
            data = bytearray(dice.choice(seeds))
        elif kind < 0.75:
            data = bytearray(mutate(dice, seeds)[:1_400])
        else:
            data = bytearray(generate_coap(dice)[:1_400])
        if len(data) >= 4 and dice.random() < 0.9:
            data[2:4] = dice.randbytes(2)  # no two are the same exchange
            if dice.random() < 0.5:
                data[0] = data[0] & 0xCF | (CON if dice.random() < 0.5 else NON) << 4
        yield bytes(data)


def _flood(flood: Flood, pool: Sequence[bytes], datagrams: int, rate: int, seed: int) -> None:
    """Have a process of its own send the flood, so that the truck waits for the gateway alone, and take its counts."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_send_all, args=(flood, pool, datagrams, rate, seed, theirs))
    child.start()
    flood.sent, flood.received, flood.unsent, flood.datagrams = ours.recv()
    child.join()


def _send_all(flood: Flood, pool: Sequence[bytes], datagrams: int, rate: int, seed: int, report: Connection) -> None:
    """Send at a steady rate, from one address after the other."""
    dice = random.Random(seed)
    started = time.monotonic()
    slice_size = max(1, rate // 200)
    for number, data in enumerate(islice(cycle(pool), datagrams)):
        flood.send(dice.randrange(_SOURCES), data)
        if number % slice_size == 0:
            ahead_s = number / rate - (time.monotonic() - started)
            if ahead_s > 0:
                time.sleep(ahead_s)
        if number % 10_000 == 0:
            flood.drain()
    report.send((flood.sent, flood.received, flood.unsent, flood.datagrams))


async def _post(link: Link, until: asyncio.Task[None]) -> tuple[list[float], int]:
    """Post until a task is done; return how long each took (ms) and how many were never answered."""
    hello = Upload(ask_time=True).encode()
    took, lost = [], 0
    while not until.done():
        started = time.perf_counter()
        try:
            await _ask(link, hello)
            took.append((time.perf_counter() - started) * 1000)
        except LinkDownError:
            lost += 1
        await asyncio.sleep(_TRUCK_EVERY_S)
    await until
    return took, lost


async def _ask(link: Link, payload: bytes) -> None:
    await link.request(
        codes.POST, PATH_UPLOAD, payload, precedence=Precedence.PRIORITY, cause="bench", timeout_s=_ANSWER_S
    )


def main() -> None:
    """Print the figures."""
    for figure, measured, anchor, limit in run(sys.argv[1:]):
        print(f"{figure:60} {measured:50} anchor {anchor or '-'}; limit {limit or '-'}")


if __name__ == "__main__":
    main()
