"""The relay between real sockets on loopback: addresses, counts, outages, a gateway that goes away."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from gateway.demo.linkmodel import DEPOT, DirectionProfile, LinkProfile
from gateway.demo.relay import Relay, send_once, start_relay

CLEAN_DIRECTION = DirectionProfile(rate_bps=1e9, queue_bytes_max=1 << 30, delay_s=0.0)
CLEAN = LinkProfile("clean", CLEAN_DIRECTION, CLEAN_DIRECTION)
Address = tuple[str, int]
StartRelay = Callable[..., Awaitable[Relay]]


class Peer(asyncio.DatagramProtocol):
    """A UDP socket that keeps what it hears, and answers if it is told how."""

    transport: asyncio.DatagramTransport

    def __init__(self, answer: Callable[[bytes], bytes] | None = None) -> None:
        self.heard: list[tuple[bytes, Address]] = []
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.heard.append((data, addr))
        if self._answer is not None:
            self.transport.sendto(self._answer(data), addr)

    @property
    def address(self) -> Address:
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port


OpenPeer = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def open_peer() -> AsyncIterator[OpenPeer]:
    peers: list[Peer] = []

    async def open_one(answer: Callable[[bytes], bytes] | None = None, address: Address = ("127.0.0.1", 0)) -> Peer:
        _, peer = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Peer(answer), local_addr=address)
        peers.append(peer)
        return peer

    yield open_one
    for peer in peers:
        peer.transport.close()


@pytest.fixture
async def relay_to() -> AsyncIterator[StartRelay]:
    relays: list[Relay] = []

    async def start(gateway: Peer | Address, profile: LinkProfile = CLEAN, **options: object) -> Relay:
        address = gateway.address if isinstance(gateway, Peer) else gateway
        relay = await start_relay(address, profile, **{"seed": 1, **options})  # type: ignore[arg-type]
        relays.append(relay)
        return relay

    yield start
    for relay in relays:
        await relay.close()


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


async def settle() -> None:
    await asyncio.sleep(0.05)


async def test_a_datagram_goes_there_and_its_answer_comes_back(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway = await open_peer(lambda data: data[::-1])
    truck = await open_peer()
    relay = await relay_to(gateway)
    truck.transport.sendto(b"hello", relay.address)
    await until(lambda: bool(truck.heard))
    assert truck.heard == [(b"olleh", relay.address)]
    assert relay.up.delivered.bytes_ip == relay.down.delivered.bytes_ip == 5 + 28


async def test_the_gateway_sees_each_client_at_an_address_of_its_own(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway = await open_peer(lambda data: data)
    trucks = [await open_peer() for _ in range(5)]
    relay = await relay_to(gateway)
    for number, truck in enumerate(trucks):
        truck.transport.sendto(b"%d" % number, relay.address)
    await until(lambda: all(truck.heard for truck in trucks))
    assert len({address for _, address in gateway.heard}) == 5
    assert [truck.heard[0][0] for truck in trucks] == [b"%d" % number for number in range(5)]
    assert set(relay.upstream_addresses) == {address for _, address in gateway.heard}


async def test_two_datagrams_of_one_client_have_one_source(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway, truck = await open_peer(), await open_peer()
    relay = await relay_to(gateway)
    for _ in range(2):
        truck.transport.sendto(b"x", relay.address)
    await until(lambda: len(gateway.heard) == 2)
    assert len({address for _, address in gateway.heard}) == 1


async def test_rebind_changes_the_address_and_keeps_the_path(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway = await open_peer(lambda data: data)
    truck = await open_peer()
    relay = await relay_to(gateway)
    for round_number in range(1, 6):
        truck.transport.sendto(b"x", relay.address)
        await until(lambda n=round_number: len(truck.heard) == n)  # type: ignore[misc]
        relay.rebind()
    assert len({address for _, address in gateway.heard}) == 5


async def test_rebind_may_move_to_another_host(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway = await open_peer(lambda data: data, ("0.0.0.0", 0))
    truck = await open_peer()
    relay = await relay_to(("127.0.0.1", gateway.address[1]))
    truck.transport.sendto(b"x", relay.address)
    await until(lambda: len(truck.heard) == 1)
    relay.rebind(source_host="127.0.0.7")
    truck.transport.sendto(b"x", relay.address)
    await until(lambda: len(truck.heard) == 2)
    assert [address[0] for _, address in gateway.heard] == ["127.0.0.1", "127.0.0.7"]


async def test_an_outage_drops_both_directions_until_it_ends(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway, truck = await open_peer(), await open_peer()
    relay = await relay_to(gateway)
    truck.transport.sendto(b"before", relay.address)
    await until(lambda: len(gateway.heard) == 1)
    relay.set_outage(True)
    truck.transport.sendto(b"during", relay.address)
    gateway.transport.sendto(b"during", gateway.heard[0][1])
    await until(lambda: relay.up.outage.packets == relay.down.outage.packets == 1)
    relay.set_outage(False)
    truck.transport.sendto(b"after", relay.address)
    await until(lambda: len(gateway.heard) == 2)
    assert [data for data, _ in gateway.heard] == [b"before", b"after"]
    assert truck.heard == []


async def test_delay_is_that_of_the_profile(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    loop = asyncio.get_running_loop()
    gateway = await open_peer(lambda data: data)
    truck = await open_peer()
    slow = replace(CLEAN_DIRECTION, delay_s=0.06)
    relay = await relay_to(gateway, LinkProfile("slow", slow, slow))
    begin = loop.time()
    truck.transport.sendto(b"x", relay.address)
    await until(lambda: bool(truck.heard))
    assert 0.12 <= loop.time() - begin < 1.0


async def test_a_gateway_that_restarts_is_silence_and_then_answers(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    gateway = await open_peer(lambda data: data)
    truck = await open_peer()
    relay = await relay_to(gateway)
    address = gateway.address
    gateway.transport.close()
    await settle()
    for _ in range(3):
        truck.transport.sendto(b"lost", relay.address)
        await settle()
    assert truck.heard == []
    await open_peer(lambda data: data, address)
    truck.transport.sendto(b"back", relay.address)
    await until(lambda: bool(truck.heard))
    assert truck.heard[0][0] == b"back"
    assert raised == []


async def test_the_pending_error_of_a_dead_gateway_costs_no_datagram(open_peer: OpenPeer) -> None:
    gateway = await open_peer()
    address = gateway.address
    gateway.transport.close()
    await settle()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.connect(address)
        upstream.send(b"lost")
        back = await open_peer(None, address)
        send_once(partial(upstream.send, b"heard"))
        await until(lambda: bool(back.heard))
    assert [data for data, _ in back.heard] == [b"heard"]


async def test_strangers_cannot_reach_a_truck_through_its_upstream(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway, truck, stranger = await open_peer(), await open_peer(), await open_peer()
    relay = await relay_to(gateway)
    truck.transport.sendto(b"x", relay.address)
    await until(lambda: bool(gateway.heard))
    stranger.transport.sendto(b"boo", gateway.heard[0][1])
    gateway.transport.sendto(b"genuine", gateway.heard[0][1])
    await until(lambda: bool(truck.heard))
    await settle()
    assert [data for data, _ in truck.heard] == [b"genuine"]


async def test_the_table_of_clients_is_bounded(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway = await open_peer(lambda data: data)
    relay = await relay_to(gateway, clients_max=3)
    for _ in range(8):
        truck = await open_peer()
        truck.transport.sendto(b"x", relay.address)
        await until(lambda t=truck: bool(t.heard))  # type: ignore[misc]
        assert len(relay.upstream_addresses) <= 3
    assert len({address for _, address in gateway.heard}) == 8


async def test_an_idle_client_is_forgotten(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway, truck = await open_peer(), await open_peer()
    relay = await relay_to(gateway, idle_expiry_s=0.05)
    truck.transport.sendto(b"x", relay.address)
    await until(lambda: len(gateway.heard) == 1)
    await until(lambda: relay.upstream_addresses == ())
    truck.transport.sendto(b"y", relay.address)
    await until(lambda: len(gateway.heard) == 2)


async def test_counts_equal_what_went_in_and_came_out(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway, truck = await open_peer(), await open_peer()
    lossy = replace(CLEAN_DIRECTION, loss=0.2, duplication=0.1, mtu_bytes=1000)
    relay = await relay_to(gateway, LinkProfile("lossy", lossy, CLEAN_DIRECTION))
    sizes = [1 + (number * 37) % 1100 for number in range(1500)]
    for number, size in enumerate(sizes):
        truck.transport.sendto(bytes(size), relay.address)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await until(lambda: relay.up.offered.packets == 1500)
    up = relay.up
    await until(lambda: len(gateway.heard) == up.delivered.packets + up.duplicated.packets)
    assert up.offered.bytes_ip == sum(sizes) + 1500 * 28
    heard = sum(len(data) + 28 for data, _ in gateway.heard)
    assert heard == up.delivered.bytes_ip + up.duplicated.bytes_ip
    assert up.oversize.packets == sum(1 for size in sizes if size > 972)
    assert relay.down.offered.packets == 0


async def test_empty_datagrams_pass(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway = await open_peer()
    relay = await relay_to(gateway)
    # asyncio's own transports do not send an empty datagram, so a plain socket does.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as truck:
        truck.sendto(b"", relay.address)
    await until(lambda: bool(gateway.heard))
    assert gateway.heard[0][0] == b""
    assert relay.up.delivered.bytes_ip == 28


async def test_ipv6_is_counted_with_its_longer_header(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway = await open_peer(lambda data: data, ("::1", 0))
    truck = await open_peer(None, ("::1", 0))
    relay = await relay_to(gateway, listen=("::1", 0))
    truck.transport.sendto(b"12345", relay.address)
    await until(lambda: bool(truck.heard))
    assert relay.up.delivered.bytes_ip == relay.down.delivered.bytes_ip == 53


async def test_thousands_of_datagrams_pass_in_order(open_peer: OpenPeer, relay_to: StartRelay) -> None:
    gateway, truck = await open_peer(), await open_peer()
    relay = await relay_to(gateway, replace(DEPOT, up=replace(CLEAN_DIRECTION, delay_s=0.05)))
    for number in range(4000):
        truck.transport.sendto(number.to_bytes(4, "big") + bytes(600), relay.address)
        if number % 32 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(gateway.heard) == 4000, within_s=60)
    assert [int.from_bytes(data[:4], "big") for data, _ in gateway.heard] == list(range(4000))


async def test_close_frees_every_socket_and_what_is_on_the_air(open_peer: OpenPeer) -> None:
    gateway, truck = await open_peer(), await open_peer()
    before = len(os.listdir("/proc/self/fd"))
    late = replace(CLEAN_DIRECTION, delay_s=0.05)
    relay = await start_relay(gateway.address, LinkProfile("late", late, late), seed=1)
    truck.transport.sendto(b"x", relay.address)
    await until(lambda: relay.up.delivered.packets == 1)
    assert len(os.listdir("/proc/self/fd")) > before
    await relay.close()
    await relay.close()
    await asyncio.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) == before
    assert gateway.heard == []


async def test_a_taken_port_is_an_error_and_leaves_no_socket(open_peer: OpenPeer) -> None:
    gateway = await open_peer()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        await start_relay(gateway.address, CLEAN, seed=1, listen=gateway.address)
    assert len(os.listdir("/proc/self/fd")) == before
