"""Fuzz targets that are servers: a real gateway's datagram path and HTTP API, and a truck's classroom.

The gateway and a truck that has joined it run in this process. Datagrams go straight into the CoAP socket's receiver,
the admission gate left open, so that what is tested is what stands behind it; HTTP goes over TCP. The seeds are what
a real truck sent: its handshake, its enrolment and its uploads, captured on their way.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.daemon import Edge
from gateway.daemon import Gateway
from store.coapinterface import MeteredInterface
from tests.bench.wire import start_pair
from tests.fuzz.engine import Running, Target
from tests.fuzz.mutation import generate_coap

_TURN_EVERY = 16
_CAPTURE_S = 0.8
# A request that is cut short is never answered: this is how long a run waits to see that.
_HTTP_ANSWER_S = 0.05
_TOLD_MAX = 5


class Pair:
    """A gateway and a truck in a loop of their own, which turns only while something is fed."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.troubles: list[str] = []
        self.loop.set_exception_handler(self._uncaught)
        self.captured: list[tuple[bytes, Any]] = []
        self.gateway: Gateway
        self.edge: Edge
        self.loop.run_until_complete(self._start(folder))

    def _uncaught(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if len(self.troubles) < _TOLD_MAX:
            self.troubles.append(f"uncaught in the loop: {context.get('message')}: {context.get('exception')!r}")

    async def _start(self, folder: Path) -> None:
        arrived = MeteredInterface.datagram_msg_received

        def capture(interface: MeteredInterface, data: bytes, ancdata: Any, flags: int, address: Any) -> None:
            self.captured.append((data, ancdata))
            arrived(interface, data, ancdata, flags, address)

        MeteredInterface.datagram_msg_received = capture  # type: ignore[method-assign]
        try:
            self.gateway, self.edge = await start_pair(folder)
            work = asyncio.create_task(self.edge.run())
            await asyncio.sleep(_CAPTURE_S)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        finally:
            MeteredInterface.datagram_msg_received = arrived  # type: ignore[method-assign]

    def turn(self, seconds: float = 0.0) -> None:
        """Let the loop do what is waiting."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def close(self) -> None:
        """Stop both."""
        self.loop.run_until_complete(self.edge.close())
        self.loop.run_until_complete(self.gateway.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Datagrams:
    """Feeds the gateway's CoAP receiver."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._interface = pair.gateway.context.interface
        self._interface.admit = None
        self._interface.meter._before_send = None
        # Without the gate, what aiocoap remembers of each datagram for a minute would be all the growth that is seen.
        type(self._interface._tuning).EXCHANGE_LIFETIME = 1.0
        self._dice = random.Random(0)
        self._count = 0
        # Where a datagram was sent to: without it the receiver refuses everything.
        self._ancdata = next(ancdata for _, ancdata in pair.captured if ancdata)

    def feed(self, data: bytes) -> None:
        """Take one datagram, from one of many addresses of this host."""
        port = 20_000 + self._dice.randrange(40_000)
        address = (f"::ffff:127.{self._dice.randrange(1, 255)}.0.1", port, 0, 0)
        self._count += 1
        self._pair.loop.run_until_complete(self._deliver(data, address, turn=self._count % _TURN_EVERY == 0))

    async def _deliver(self, data: bytes, address: Any, *, turn: bool) -> None:
        self._interface.datagram_msg_received(data, self._ancdata, 0, address)
        if turn:
            await asyncio.sleep(0.001)

    def settle(self) -> list[str]:
        """Let everything end, then say what was uncaught."""
        self._pair.turn(0.5)
        faults = [f"{self._interface.faults} exceptions reached the socket"] if self._interface.faults else []
        return faults + self._pair.troubles


class Http:
    """Feeds an HTTP server one connection after the other."""

    def __init__(self, pair: Pair, address: tuple[str, int]) -> None:
        self._pair = pair
        self._address = address
        self._answers = 0

    def feed(self, data: bytes) -> None:
        """Send one request; whatever is answered must not be a fault of the server's own (5.xx)."""
        answer = self._pair.loop.run_until_complete(self._exchange(data))
        self._answers += bool(answer)
        for line in answer.split(b"HTTP/1.1 ")[1:]:
            if line[:1] == b"5" and line[:3] not in (b"501", b"503", b"505"):
                raise AssertionError(f"the server answered {line[:60]!r}")

    def settle(self) -> list[str]:
        """A server that answered nothing at all was not tested."""
        return self._pair.troubles + ([] if self._answers else ["no request was answered"])

    async def _exchange(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._address)
        answer = b""
        try:
            async with asyncio.timeout(_HTTP_ANSWER_S):
                writer.write(data)
                answer = await reader.read(65_536)
        except (TimeoutError, OSError):
            pass
        finally:
            writer.transport.abort()
        return answer


@contextmanager
def _datagrams() -> Iterator[tuple[Running, Sequence[bytes]]]:
    with tempfile.TemporaryDirectory(prefix="digitruck-fuzz-") as folder:
        pair = Pair(Path(folder))
        try:
            yield Datagrams(pair), list(dict.fromkeys(data for data, _ in pair.captured))
        finally:
            pair.close()


_PATHS = (b"/", b"/api/v1/trucks", b"/api/v1/documents", b"/api/v1/blobs/" + b"0" * 64, b"/api/v1/openapi.json")


def _requests(host: bytes) -> list[bytes]:
    head = b"\r\nHost: " + host + b"\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n"
    bodies = (b'{"name": "ke-arrow", "group": "kenya"}', b"\xd2\x84C\xa1\x01'\xa0@@", b"[" * 2_000)
    gets = [b"GET " + path + b" HTTP/1.1" + head + b"\r\n" for path in _PATHS]
    posts = [
        b"POST " + path + b" HTTP/1.1" + head + b"Content-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        for path in _PATHS
        for body in bodies
    ]
    chunked = [
        b"PUT /api/v1/documents HTTP/1.1" + head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST /api/v1/documents HTTP/1.1" + head + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
        b"GET /content/maths/../../etc/passwd HTTP/1.1" + head + b"Range: bytes=0-,5-9\r\n\r\n",
        b"GET /?" + b"q=%ff&" * 100 + b" HTTP/1.1" + head + b"\r\n",
    ]
    return gets + posts + chunked


@contextmanager
def _api() -> Iterator[tuple[Running, Sequence[bytes]]]:
    with tempfile.TemporaryDirectory(prefix="digitruck-fuzz-") as folder:
        pair = Pair(Path(folder))
        try:
            yield Http(pair, (pair.gateway.api.address, pair.gateway.api.port)), _requests(b"127.0.0.1")
        finally:
            pair.close()


@contextmanager
def _classroom() -> Iterator[tuple[Running, Sequence[bytes]]]:
    with tempfile.TemporaryDirectory(prefix="digitruck-fuzz-") as folder:
        pair = Pair(Path(folder))
        try:
            yield Http(pair, pair.edge.classroom.address), _requests(b"127.0.0.1")
        finally:
            pair.close()


def server_targets() -> list[Target]:
    """Return every target of this module."""
    return [
        Target("datagrams", _datagrams, generate=generate_coap),
        Target("http-api", _api),
        Target("http-classroom", _classroom),
    ]
