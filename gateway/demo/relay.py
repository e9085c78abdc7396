"""A UDP relay that behaves as one link: a truck talks to the relay's address as if it were the gateway.

Each client address has its own upstream socket, as behind a NAT, so the gateway sees each of a truck's links as
another source address. What happens to a datagram on the way is decided by `linkmodel` alone; all clients of a relay
share the one link. The relay hides port-unreachable errors in both directions: a gateway that is down is silence, as
it is behind a satellite.

Deliberately absent: fragments (a datagram over the MTU is dropped) and anything that needs root.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gateway.demo.linkmodel import IPV4_UDP_HEADER_BYTES, IPV6_UDP_HEADER_BYTES, DirectionCounts, Link, LinkProfile

Address = tuple[str, int]

CLIENTS_MAX = 64
IDLE_EXPIRY_S = 180.0
DATAGRAM_BYTES_MAX = 65_535
# One socket may not keep the others from their turn; the rest is read at the next turn of the loop.
DATAGRAMS_A_TURN = 64
SOCKET_BUFFER_BYTES = 4 << 20


@dataclass(slots=True)
class _Client:
    """A truck's socket as the relay knows it: where it is, and the socket that stands for it at the gateway."""

    address: Address
    upstream: socket.socket
    heard_at: float


class Relay:
    """One emulated link between any number of client sockets and one gateway; made by `start_relay`."""

    def __init__(
        self,
        *,
        listener: socket.socket,
        gateway_address: Address,
        link: Link,
        clients_max: int,
        idle_expiry_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._gateway_address = gateway_address
        self._family = _family_of(gateway_address)
        self._header_bytes = _header_bytes_of(gateway_address)
        self._client_header_bytes = _header_bytes_of(listener.getsockname())
        self._link = link
        self._clients: OrderedDict[Address, _Client] = OrderedDict()
        self._clients_max = clients_max
        self._idle_expiry_s = idle_expiry_s
        self._source_host: str | None = None
        self._on_air: set[asyncio.TimerHandle] = set()
        self._closed = False
        self._loop.add_reader(listener, self._read_clients)
        self._sweep = self._loop.call_later(idle_expiry_s / 2, self._forget_idle)

    @property
    def address(self) -> Address:
        """The (host, port) that a truck is given as its gateway."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def up(self) -> DirectionCounts:
        """What happened on the way to the gateway, in IP bytes."""
        return self._link.up.counts

    @property
    def down(self) -> DirectionCounts:
        """What happened on the way to the truck, in IP bytes."""
        return self._link.down.counts

    @property
    def upstream_addresses(self) -> tuple[Address, ...]:
        """The source addresses under which the gateway knows the present clients."""
        return tuple(client.upstream.getsockname()[:2] for client in self._clients.values())

    def set_outage(self, on: bool) -> None:
        """Cut both directions, or let them carry again; datagrams on the air still arrive."""
        self._link.set_outage(on)

    def rebind(self, *, source_host: str | None = None) -> None:
        """Give every client another source port (and host) at the gateway, as a NAT does that lost its table."""
        self._source_host = source_host or self._source_host
        for client in self._clients.values():
            old = client.upstream
            # The new socket is bound while the old one still is: so it cannot get the same port.
            client.upstream = self._open_upstream(client)
            self._close_socket(old)

    async def close(self) -> None:
        """Close every socket and forget what is on the air. Harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._sweep.cancel()
        for handle in self._on_air:
            handle.cancel()
        self._on_air.clear()
        for client in self._clients.values():
            self._close_socket(client.upstream)
        self._clients.clear()
        self._close_socket(self._listener)
        # A reader that was already due runs (and finds nothing) before the caller goes on.
        await asyncio.sleep(0)

    def _read_clients(self) -> None:
        for data, address in _received(self._listener):
            client = self._client_at(address)
            size = len(data) + self._client_header_bytes
            for instant in self._link.up.offer(size, self._loop.time()):
                self._deliver_at(instant, partial(self._send_up, client, data))

    def _read_gateway(self, client: _Client) -> None:
        for data, _ in _received(client.upstream):
            size = len(data) + self._header_bytes
            for instant in self._link.down.offer(size, self._loop.time()):
                self._deliver_at(instant, partial(self._send_down, client, data))

    def _deliver_at(self, instant: float, send: Callable[[], None]) -> None:
        def arrive() -> None:
            self._on_air.discard(handle)
            send()

        handle = self._loop.call_at(instant, arrive)
        self._on_air.add(handle)

    def _send_up(self, client: _Client, data: bytes) -> None:
        if client.upstream.fileno() >= 0:
            send_once(partial(client.upstream.send, data))

    def _send_down(self, client: _Client, data: bytes) -> None:
        send_once(partial(self._listener.sendto, data, client.address))

    def _client_at(self, address: Address) -> _Client:
        now = self._loop.time()
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= self._clients_max:
                self._close_socket(self._clients.popitem(last=False)[1].upstream)
            client = _Client(address=address, upstream=self._listener, heard_at=now)
            client.upstream = self._open_upstream(client)
            self._clients[address] = client
        client.heard_at = now
        self._clients.move_to_end(address)
        return client

    def _open_upstream(self, client: _Client) -> socket.socket:
        upstream = _open_socket(self._family)
        if self._source_host is not None:
            upstream.bind((self._source_host, 0))
        # Connected: only the gateway itself can answer through it.
        upstream.connect(self._gateway_address)
        self._loop.add_reader(upstream, self._read_gateway, client)
        return upstream

    def _forget_idle(self) -> None:
        oldest = self._loop.time() - self._idle_expiry_s
        while self._clients:
            address, client = next(iter(self._clients.items()))
            if client.heard_at > oldest:
                break
            del self._clients[address]
            self._close_socket(client.upstream)
        self._sweep = self._loop.call_later(self._idle_expiry_s / 2, self._forget_idle)

    def _close_socket(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        sock.close()


async def start_relay(
    gateway_address: Address,
    profile: LinkProfile,
    *,
    seed: int,
    listen: Address = ("127.0.0.1", 0),
    clients_max: int = CLIENTS_MAX,
    idle_expiry_s: float = IDLE_EXPIRY_S,
) -> Relay:
    """Listen at `listen` and carry datagrams to and from `gateway_address` over a link of this profile.

    Addresses are (IP literal, port). `seed` decides every random fate. A client that was silent for `idle_expiry_s`
    loses its upstream socket; beyond `clients_max` the longest silent one does. Raises OSError if it cannot listen.
    """
    loop = asyncio.get_running_loop()
    listener = _open_socket(_family_of(listen))
    try:
        listener.bind(listen)
    except OSError:
        listener.close()
        raise
    return Relay(
        listener=listener,
        gateway_address=gateway_address,
        link=Link(profile, seed=seed, start=loop.time()),
        clients_max=clients_max,
        idle_expiry_s=idle_expiry_s,
    )


def _family_of(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _header_bytes_of(address: Address) -> int:
    return IPV6_UDP_HEADER_BYTES if _family_of(address) == socket.AF_INET6 else IPV4_UDP_HEADER_BYTES


def _open_socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    # Loss belongs to the model: the kernel's own buffer should not add to it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    return sock


def _received(sock: socket.socket) -> list[tuple[bytes, Address]]:
    """Read what has arrived, at most `DATAGRAMS_A_TURN`."""
    datagrams: list[tuple[bytes, Address]] = []
    for _ in range(DATAGRAMS_A_TURN):
        try:
            data, address = sock.recvfrom(DATAGRAM_BYTES_MAX)
        except BlockingIOError:
            break
        except OSError:
            # A port-unreachable error of an earlier datagram, or a socket that was closed within this turn.
            if sock.fileno() < 0:
                break
            continue
        datagrams.append((data, address))
    return datagrams


def send_once(send: Callable[[], object]) -> None:
    """Call `send`, so that the datagram leaves unless this very datagram cannot; what cannot leave is lost."""
    try:
        send()
    except BlockingIOError:
        return
    except OSError:
        # An unreachable error that was pending from before is reported instead of sending: send once more.
        try:
            send()
        except OSError:
            return
