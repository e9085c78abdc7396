"""Virtual links: datagrams between the trucks' sockets and the gateway's, lost, doubled, late, and counted to the byte.

A `VirtualSocket` is what `store.coapcontext` gets in place of a socket; everything above it, aiocoap included, is the
product's. What the links carried is counted here as a provider would count it, for the ledgers to be compared with.
"""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.sim.loop import VirtualLoop

IP_AND_UDP_BYTES = 28
GATEWAY_ADDRESS = ("10.0.0.1", 5683)
_PKTINFO = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, bytes(20))]
# A provider's buffer: what would wait longer is thrown away.
_QUEUE_S_MAX = 30.0


@dataclass
class LinkState:
    """How a link is now, both ways; `alive` False is an outage. A bad burst begins with `burst_chance` a datagram."""

    alive: bool = True
    loss: float = 0.0
    burst_chance: float = 0.0
    burst_loss: float = 0.9
    burst_s: float = 5.0
    double: float = 0.0
    delay_s: float = 0.04
    jitter_s: float = 0.01
    bytes_a_s: float = 100_000.0


@dataclass
class LinkCount:
    """What a link has carried, in IP bytes and datagrams, as its truck's end sees it."""

    sent_bytes: int = 0
    sent_datagrams: int = 0
    received_bytes: int = 0
    received_datagrams: int = 0
    unheard_bytes: int = 0  # arrived when no socket was open

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.sent_bytes + self.received_bytes


@dataclass
class VirtualLink:
    """One link of one truck."""

    truck: str
    name: str
    random: random.Random
    state: LinkState = field(default_factory=LinkState)
    count: LinkCount = field(default_factory=LinkCount)
    public: tuple[str, int] = ("", 0)
    socket: VirtualSocket | None = None
    burst_until_s: float = 0.0
    free_at_s: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})


class VirtualSocket(socket.socket):
    """A UDP socket of the virtual network; only what aiocoap and the metered interface call."""

    def __init__(self, network: Network, number: int, link: VirtualLink | None) -> None:
        # Not the real one's: no descriptor is opened.
        self._network = network
        self._number = number
        self.link = link
        self.waiting: deque[tuple[bytes, tuple[str, int]]] = deque()

    def fileno(self) -> int:
        return self._number

    def setblocking(self, flag: bool) -> None:
        """Never block."""

    def setsockopt(self, *_: Any) -> None:
        """Take any option."""

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        """Return a large buffer's size; for what is asked as bytes (SO_MEMINFO), that nothing of it is taken."""
        return (1 << 54).to_bytes(size, "little") if size else 1 << 21

    def getsockname(self) -> Any:
        host, port = GATEWAY_ADDRESS if self.link is None else ("10.9.9.9", 40_000)
        return f"::ffff:{host}", port, 0, 0

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        if self._number < 0:
            raise OSError("the socket is closed")
        data = b"".join(buffers)
        self._network.send(self, data, (address[0].removeprefix("::ffff:"), address[1]))
        return len(data)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Any:
        if flags & getattr(socket, "MSG_ERRQUEUE", 0x2000) or not self.waiting:
            raise BlockingIOError
        data, (host, port) = self.waiting.popleft()
        return data, list(_PKTINFO), 0, (f"::ffff:{host}", port, 0, 0)

    def close(self) -> None:
        if self._number >= 0:
            self._network.closed(self)
            self._number = -1


class Network:
    """All links and the gateway's socket. `on_carried(link, is_up, size, fate)` hears of each datagram."""

    def __init__(self, loop: VirtualLoop, seed: random.Random) -> None:
        self._loop = loop
        self._random = seed
        self._numbers = 1_000_000
        self._port = 1_024
        self.links: dict[tuple[str, str], VirtualLink] = {}
        self._by_public: dict[tuple[str, int], VirtualLink] = {}
        self.gateway: VirtualSocket | None = None
        self.on_carried: Callable[[VirtualLink, bool, bytes, str], None] = lambda link, is_up, data, fate: None
        self.on_gateway_sent: Callable[[], None] = lambda: None

    def add_link(self, truck: str, name: str) -> VirtualLink:
        """Make a link."""
        link = VirtualLink(truck, name, random.Random(self._random.getrandbits(64)))
        self.links[(truck, name)] = link
        return link

    def open(self, link: VirtualLink | None) -> VirtualSocket:
        """Open a socket on a link, or (None) the gateway's."""
        self._numbers += 1
        made = VirtualSocket(self, self._numbers, link)
        if link is None:
            self.gateway = made
        else:
            link.socket = made
            self.move(link)
        return made

    def move(self, link: VirtualLink) -> None:
        """Give a link another public address and port, as a provider's NAT does whenever it likes."""
        self._by_public.pop(link.public, None)
        self._port = self._port + 1 if self._port < 65_000 else 1_025
        number = self._random.randrange(250)
        link.public = (f"100.64.{number}.{self._random.randrange(1, 250)}", self._port)
        self._by_public[link.public] = link

    def closed(self, gone: VirtualSocket) -> None:
        """Forget a socket."""
        self._loop.remove_reader(gone.fileno())
        if gone is self.gateway:
            self.gateway = None
        elif gone.link is not None and gone.link.socket is gone:
            gone.link.socket = None

    def send(self, source: VirtualSocket, data: bytes, to: tuple[str, int]) -> None:
        """Carry a datagram, or not."""
        if source.link is not None:
            link, is_up = source.link, True
            link.count.sent_bytes += len(data) + IP_AND_UDP_BYTES
            link.count.sent_datagrams += 1
        else:
            found = self._by_public.get(to)
            if found is None:
                self.on_gateway_sent()
                return
            link, is_up = found, False
        copies = self._copies(link, is_up, len(data))
        self.on_carried(link, is_up, data, f"x{len(copies)}")
        for delay_s in copies:
            self._loop.call_later(delay_s, self._arrive, link, is_up, data, link.public)
        if not is_up:
            self.on_gateway_sent()

    def _copies(self, link: VirtualLink, is_up: bool, size: int) -> list[float]:
        """Return after how many seconds each copy arrives."""
        state, now = link.state, self._loop.now_s
        if not state.alive:
            return []
        if link.random.random() < state.burst_chance:
            link.burst_until_s = now + link.random.expovariate(1 / state.burst_s)
        loss = state.burst_loss if now < link.burst_until_s else state.loss
        count = 2 if link.random.random() < state.double else 1
        begins = max(now, link.free_at_s[is_up])
        if begins - now > _QUEUE_S_MAX:
            return []
        link.free_at_s[is_up] = begins + size / state.bytes_a_s
        wait_s = link.free_at_s[is_up] - now + state.delay_s
        return [
            wait_s + link.random.expovariate(1 / state.jitter_s) for _ in range(count) if link.random.random() >= loss
        ]

    def _arrive(self, link: VirtualLink, is_up: bool, data: bytes, public: tuple[str, int]) -> None:
        if not link.state.alive:
            return
        if is_up:
            if self.gateway is not None:
                self._hand(self.gateway, data, public)
            return
        if link.public != public:
            return  # the NAT has forgotten the address that this was sent to
        if link.socket is None:
            link.count.unheard_bytes += len(data) + IP_AND_UDP_BYTES
            return
        link.count.received_bytes += len(data) + IP_AND_UDP_BYTES
        link.count.received_datagrams += 1
        self._hand(link.socket, data, GATEWAY_ADDRESS)

    def _hand(self, to: VirtualSocket, data: bytes, source: tuple[str, int]) -> None:
        to.waiting.append((data, source))
        self._loop.wake_reader(to.fileno())
