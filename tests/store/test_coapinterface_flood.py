"""What is turned away costs no turn of the event loop, is counted, and does not hide what waits behind it."""

import asyncio
import socket

from aiocoap import Message
from aiocoap.numbers import codes

from store.coapcontext import server_context
from store.coapmeter import Address, Datagram, Direction
from tests.store.coaprig import ChargingSite

FLOOD = 150
REFUSED_BYTES = 28 + 5


async def test_a_request_behind_a_flood_is_answered() -> None:
    arrived: list[Datagram] = []

    def admit(data: bytes, bytes_ip: int, remote: Address, is_behind: bool) -> bool:
        return bytes_ip != REFUSED_BYTES

    server = await server_context(ChargingSite(), bind=("127.0.0.1", 0), on_datagram=arrived.append, admit=admit)
    request = Message(code=codes.GET, uri_path=["x"])
    request.mtype, request.mid, request.token = 1, 7, b"t"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.connect(server.address)
        for _ in range(FLOOD):
            stranger.send(b"junk!")
        stranger.send(request.encode())
        async with asyncio.timeout(60):
            answer = await asyncio.get_running_loop().sock_recv(stranger, 2048)
    assert answer[4:5] == b"t"
    refused = [each for each in arrived if each.direction is Direction.RECEIVED and each.bytes_ip == REFUSED_BYTES]
    assert len(refused) == FLOOD
    assert server.interface.faults == server.meter.malformed == 0
    await server.shutdown()


async def test_a_flood_longer_than_one_turn_leaves_the_loop_its_turns() -> None:
    server = await server_context(
        ChargingSite(), bind=("127.0.0.1", 0), on_datagram=lambda _: None, admit=lambda *_: False
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(server.address)
        for _ in range(450):
            stranger.send(b"junk!")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert server.meter.received.datagrams < 450
        async with asyncio.timeout(60):
            while server.meter.received.datagrams < 450:
                await asyncio.sleep(0)
    await server.shutdown()


async def test_the_gate_hears_whether_much_waits_behind_a_datagram() -> None:
    behind: list[bool] = []

    def admit(data: bytes, bytes_ip: int, remote: Address, is_behind: bool) -> bool:
        behind.append(is_behind)
        return False

    server = await server_context(ChargingSite(), bind=("127.0.0.1", 0), on_datagram=lambda _: None, admit=admit)
    room = server.interface.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    sent = room // 2_900
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(server.address)
        for _ in range(sent):
            stranger.send(bytes(1_200))
        async with asyncio.timeout(60):
            while len(behind) < sent:
                await asyncio.sleep(0)
    assert behind[0]
    assert not behind[-1]
    await server.shutdown()
