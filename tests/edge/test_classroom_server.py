from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from edge import classroom_server
from edge.classroom_server import ClassroomServer


@pytest.fixture
def app() -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    return app


async def ask(server: ClassroomServer, request: bytes) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(request)
    try:
        async with asyncio.timeout(60):
            return await reader.read(100), reader, writer
    except ConnectionResetError:
        return b"", reader, writer


HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_connections_are_capped_and_freed_again(app, monkeypatch):
    monkeypatch.setattr(classroom_server, "CONNECTIONS_MAX", 3)
    server = ClassroomServer(app, "127.0.0.1:0")
    await server.start()
    try:
        held = [await ask(server, HELLO) for _ in range(3)]
        assert all(answer.startswith(b"HTTP/1.1 200") for answer, _, _ in held)
        refused, _, _ = await ask(server, HELLO)
        assert refused == b""
        for _, _, writer in held:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        answer, _, writer = await ask(server, HELLO)
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()
    finally:
        await server.stop()


async def test_a_head_that_never_ends_is_cut_off(app, monkeypatch):
    monkeypatch.setattr(classroom_server, "IDLE_S_MAX", 0.05)
    server = ClassroomServer(app, "127.0.0.1:0")
    await server.start()
    try:
        answer, _, writer = await ask(server, b"GET / HTTP/1.1\r\nHost:")
        assert answer == b""
        writer.close()
    finally:
        await server.stop()


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00" + bytes(300),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(500)) + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_refused_and_does_not_reach_the_log(app, caplog, junk: bytes):
    server = ClassroomServer(app, "127.0.0.1:0")
    await server.start()
    try:
        answer, _, writer = await ask(server, junk)
        assert answer == b"" or answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        writer.close()
        answer, _, writer = await ask(server, HELLO)
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()
    finally:
        await server.stop()
    assert caplog.records == []


async def test_an_address_that_is_taken_is_an_error_at_start(app):
    first = ClassroomServer(app, "127.0.0.1:0")
    with pytest.raises(RuntimeError, match="not started"):
        first.address  # noqa: B018
    await first.start()
    try:
        second = ClassroomServer(web.Application(), f"127.0.0.1:{first.address[1]}")
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.stop()
    finally:
        await first.stop()
