"""What a spoofed source gets for its bytes in 120 s, by kind of request, from a real gateway process.

Each kind has a source address of its own, in a network of its own, which sends nothing else: once in a while (so that
nothing is turned away and everything that can be answered is), from ports that change, with new message ids. What comes
back is counted to the end, repetitions by the gateway included, as whole IP packets. The kinds are all that a stranger
can send: plain requests, discovery, blocks, handshakes, and what was captured of a truck on its way.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aiocoap.message import Message
from aiocoap.numbers import codes

from protocol.numbers import PATH_EDHOC, PATH_EXCHANGE
from tests.bench.gatewayprocess import GatewayProcess
from tests.bench.hostile import HEADERS, captured, encoded, joined
from tests.fuzz.mutation import generate_coap

NAME = "amplification"
SECONDS, EVERY_S = 120.0, 0.5
_PORTS = 4


@dataclass
class Source:
    """One spoofed address: what goes out from it and what comes back, in bytes of IP packets."""

    kind: str
    datagrams: Sequence[bytes]
    sockets: Sequence[socket.socket]
    sent: int = 0
    received: int = 0

    def send(self, number: int) -> None:
        """Send the next datagram of this kind as a new exchange."""
        data = bytearray(self.datagrams[number % len(self.datagrams)])
        if len(data) >= 4:
            data[2:4] = number.to_bytes(2, "big")
        self.sockets[number % len(self.sockets)].send(data)
        self.sent += HEADERS + len(data)

    def drain(self) -> None:
        """Count what came back."""
        for each in self.sockets:
            while True:
                try:
                    self.received += HEADERS + len(each.recv(65_535))
                except OSError:
                    break

    @property
    def factor(self) -> float:
        """Bytes out a byte in."""
        return self.received / max(1, self.sent)


def run(args: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit)."""
    parser = argparse.ArgumentParser(prog="bench amplification")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as folder:
        sources = asyncio.run(measure(Path(folder), options.seconds))
    worst = max(sources, key=lambda source: source.factor)
    rows = [
        (
            f"bytes out a byte in over {options.seconds:.0f} s, worst spoofed source ({worst.kind})",
            f"{worst.factor:.2f}",
            "RFC 9175: 3; stock aiocoap 26,368",
            "3",
        )
    ]
    rows += [(f"  {source.kind}", f"{source.factor:.2f}", "", "3") for source in sources]
    return rows


async def measure(folder: Path, seconds: float) -> list[Source]:
    """Send every kind for so long, and return what each source sent and got."""
    with GatewayProcess(folder / "gateway", ["bench-truck"]) as gateway, ExitStack() as stack:
        link = await joined(folder / "truck", gateway)
        kinds = _plain() | await _captured(link, gateway)
        await link.close()
        host, _, port = gateway.address.rpartition(":")
        sources = []
        for number, (kind, datagrams) in enumerate(kinds.items()):
            sockets = []
            for _ in range(_PORTS):
                each = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                each.setblocking(False)
                each.bind((f"127.{number + 1}.7.9", 0))
                each.connect((host, int(port)))
                sockets.append(each)
            sources.append(Source(kind, datagrams, sockets))
        until = time.monotonic() + seconds
        number = 0
        while time.monotonic() < until:
            for source in sources:
                source.send(number)
            await asyncio.sleep(EVERY_S)
            for source in sources:
                source.drain()
            number += 1
        await asyncio.sleep(2.0)
        for source in sources:
            source.drain()
    return sources


def _plain() -> dict[str, list[bytes]]:
    get, post = codes.GET, codes.POST
    core, edhoc = [".well-known", "core"], list(PATH_EDHOC)
    dice = random.Random(1)
    return {
        "GET of the root": [encoded(Message(code=get))],
        "discovery": [encoded(Message(code=get, uri_path=core))],
        "observe": [encoded(Message(code=get, uri_path=["d"], observe=0))],
        "the last block of a block1": [
            encoded(Message(code=post, uri_path=["u"], block1=(9, False, 6), payload=bytes(64)))
        ],
        "the first block of a block2": [encoded(Message(code=get, uri_path=["d"], block2=(0, False, 6)))],
        "a proxy request": [encoded(Message(code=get, proxy_uri="coap://x/"))],
        "ping": [b"\x40\x00\x00\x01"],
        "a message_1 of nothing": [encoded(Message(code=post, uri_path=[PATH_EXCHANGE], payload=b"\xf5\x03"))],
        "a long path to EDHOC": [encoded(Message(code=post, uri_path=edhoc, payload=b"\xf5\x03\x02"))],
        "confirmable GET": [b"\x40\x01\x00\x01", b"\x44\x01\x00\x01abcd"],
        "made up CoAP": [generate_coap(dice)[:1_200] for _ in range(200)],
    }


async def _captured(link: object, gateway: GatewayProcess) -> dict[str, list[bytes]]:
    names = (
        "message_1, short path",
        "message_1, long path",
        "a request of a truck",
        "the same again",
        "with message_3",
    )
    found = await captured(link, gateway)  # type: ignore[arg-type]
    kinds = {name: [data] for name, data in zip(names, found, strict=False)}
    confirmable = {f"{name}, confirmable": [bytes([data[0] & 0xCF]) + data[1:]] for name, (data,) in kinds.items()}
    return kinds | confirmable
