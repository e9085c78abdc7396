"""The socket: bytes that are not HTTP, too many connections, headers that never end."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from gateway.api.limits import ApiLimits
from tests.gateway.api.conftest import Gateway, Opener


async def send(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 9_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ],
)
async def test_bytes_that_are_not_a_request_get_a_plain_problem(gateway: Gateway, data: bytes) -> None:
    answer = await send(gateway.server.port, data)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in answer
    assert b"aiohttp" not in answer
    assert (await gateway.get("/healthz")).status == 200


async def test_connections_over_the_cap_are_told_so_and_the_rest_are_served(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(connections_max=4)) as gateway:
        held = [await asyncio.open_connection("127.0.0.1", gateway.server.port) for _ in range(4)]
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
        async with asyncio.timeout(60):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        writer.close()
        held[0][1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(60):
            assert (await held[0][0].read()).startswith(b"HTTP/1.1 200 ")
        for _, each in held:
            each.close()


async def test_one_address_cannot_take_all_connections_and_gets_its_places_back(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(connections_per_address_max=2)) as gateway:
        held = [await asyncio.open_connection("127.0.0.1", gateway.server.port) for _ in range(2)]
        assert (await send(gateway.server.port, b"")).startswith(b"HTTP/1.1 503 ")
        for _, each in held:
            each.close()
            await each.wait_closed()
        for _ in range(100):
            await asyncio.sleep(0.01)
            answer = await send(gateway.server.port, b"GET /healthz HTTP/1.0\r\n\r\n")
            if b" 200 " in answer[:20]:
                return
        pytest.fail("the places of closed connections were not given back")


async def test_headers_that_never_end_end_the_connection(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(idle_s=0.1)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
        for piece in (b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"A: b\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.02)
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()


async def test_headers_that_drip_on_a_connection_in_use_end_it_too(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(idle_s=0.3)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b'"ok"}')
        async with asyncio.timeout(60):
            writer.write(b"GET / HTTP/1.1\r\n")
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b"A: b\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.02)
        writer.close()


async def test_a_client_that_does_not_read_its_answers_is_cut_off(open_gateway: Opener) -> None:
    limits = ApiLimits(body_deadline_s=0.2, body_rate_bps_min=100_000_000, idle_s=30.0)
    async with open_gateway(limits) as gateway:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", gateway.server.port))
            # Many large answers at once: more than the kernel's buffers hold.
            client.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            inner = gateway.server._runner.server
            assert inner is not None
            async with asyncio.timeout(60):
                await asyncio.sleep(0.1)
                assert len(inner.connections) == 1
                while inner.connections:
                    await asyncio.sleep(0.05)


async def test_the_bound_port_is_told(gateway: Gateway) -> None:
    assert gateway.server.port > 0
    assert gateway.server.address == "127.0.0.1"
