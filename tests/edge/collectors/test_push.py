from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from edge.collectors.push import BODY_BYTES_MAX, CONNECTIONS_MAX, PushChannel, PushCollector, PushSettings
from tests.edge.collectors.peers import PATIENCE_S, Watched, failure, watched

CHANNELS = (
    PushChannel(name="door", words={"open": 1, "closed": 0}),
    PushChannel(name="room_t", at="/room/t", unit="Cel", decimals=1, minimum=-40, maximum=80),
)


def collector(**values: object) -> PushCollector:
    given = {"listen": "127.0.0.1:0", "channels": CHANNELS, "period_s": 0.02, **values}
    return PushCollector(PushSettings(kind="http-push", name="lan", **given))


class Pushing:
    """A collector that listens, and a program that tells it things."""

    def __init__(self, source: PushCollector, watch: Watched, session: aiohttp.ClientSession) -> None:
        self.source = source
        self.watch = watch
        self.session = session

    async def post(self, data: bytes, **headers: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.source.port}/"
        async with self.session.post(url, data=data, headers=headers) as response:
            return response.status, await response.text()


@asynccontextmanager
async def pushing(source: PushCollector, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pushing]:
    async with watched(source, monkeypatch) as watch, aiohttp.ClientSession() as session:
        await watch.until(lambda: source.port is not None)
        yield Pushing(source, watch, session)


@pytest.mark.usefixtures("eager")
async def test_what_is_told_becomes_a_row(monkeypatch):
    async with pushing(collector(), monkeypatch) as push:
        assert await push.post(b'{"door": "open", "room": {"t": 24.56}, "else": 1}') == (204, "")
        await push.watch.until(lambda: push.watch.rows[-1:] == [(1, 246)])
        assert (await push.post(b'{"door": 0}'))[0] == 204
        await push.watch.until(lambda: push.watch.rows[-1] == (0, 246))


@pytest.mark.usefixtures("eager")
async def test_what_cannot_be_is_refused_with_a_reason(monkeypatch):
    async with pushing(collector(), monkeypatch) as push:
        for data, status, says in (
            (b"door=1", 400, "not JSON"),
            (b"", 400, "not JSON"),
            (b"[" * 50_000, 400, "not JSON"),
            (b"\xff\xfe", 400, "not JSON"),
            (b"[1]", 400, "not a JSON object"),
            (b'{"dor": 1}', 422, "/door, /room/t"),
            (b'{"door": "ajar", "room": {"t": 900}}', 422, "in its range"),
            (b'{"door": 1e999}', 400, "not JSON"),
            (b" " * (BODY_BYTES_MAX + 1), 413, "at most"),
        ):
            answer = await push.post(data)
            assert (answer[0], says in answer[1]) == (status, True), answer
        async with push.session.get(f"http://127.0.0.1:{push.source.port}/") as response:
            assert response.status == 405
        assert push.watch.rows == []


@pytest.mark.usefixtures("eager")
async def test_a_body_without_length_is_cut_off_too(monkeypatch):
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 8192

    async with pushing(collector(), monkeypatch) as push:
        url = f"http://127.0.0.1:{push.source.port}/"
        with suppress(aiohttp.ClientError):  # the door is shut while it still speaks
            async with push.session.post(url, data=endless()) as response:
                assert response.status == 413
        assert (await push.post(b'{"door": 1}'))[0] == 204


@pytest.mark.usefixtures("eager")
async def test_whoever_is_slow_gets_no_more_than_its_time(monkeypatch):
    monkeypatch.setattr("edge.collectors.push._READ_S_MAX", 0.1)
    async with pushing(collector(), monkeypatch) as push:
        reader, writer = await asyncio.open_connection("127.0.0.1", push.source.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        async with asyncio.timeout(PATIENCE_S):
            assert b" 408 " in await reader.readline()
        writer.close()


@pytest.mark.usefixtures("eager")
async def test_connections_that_say_nothing_keep_nobody_out(monkeypatch):
    async with pushing(collector(), monkeypatch) as push:
        silent = [await asyncio.open_connection("127.0.0.1", push.source.port) for _ in range(CONNECTIONS_MAX + 9)]
        try:
            silent[-1][1].write(b"\x16\x03\x01 not http\r\n\r\n")
            assert (await push.post(b'{"door": 1}'))[0] == 204
            async with asyncio.timeout(PATIENCE_S):
                assert await silent[0][0].read() == b""  # the oldest had to go
        finally:
            for _, writer in silent:
                writer.close()


@pytest.mark.usefixtures("eager")
async def test_a_token_is_asked_for_and_checked(tmp_path: Path, monkeypatch):
    secret = tmp_path / "token"
    secret.write_text("correct horse battery\n")
    async with pushing(collector(token_file=str(secret)), monkeypatch) as push:
        for shown in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é€"}):
            assert (await push.post(b'{"door": 1}', **shown))[0] == 401
        assert (await push.post(b'{"door": 1}', Authorization="Bearer correct horse battery"))[0] == 204


async def test_what_cannot_be_opened_says_why(tmp_path: Path):
    short = tmp_path / "short"
    short.write_text("abc")
    assert "at least 16 characters" in await failure(collector(token_file=str(short)))
    assert "cannot read token_file" in await failure(collector(token_file=str(tmp_path / "gone")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot listen on {listen}" in await failure(collector(listen=listen))


async def test_the_port_is_free_again_afterwards(monkeypatch):
    source = collector()
    async with pushing(source, monkeypatch) as push:
        port = push.source.port
    until_s = time.monotonic() + PATIENCE_S
    while source.port is not None and time.monotonic() < until_s:
        await asyncio.sleep(0.01)
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"listen": "0.0.0.0:8090"}, "token_file"),
        ({"listen": "[::]:8090"}, "token_file"),
        ({"listen": "999.1.1.1:80"}, "listen"),
        ({"listen": "127.0.0.1:99999"}, "listen"),
        ({"channels": (PushChannel(name="a", at="b"),)}, r"channels\[0\].at"),
        ({"channels": (PushChannel(name="a", unit="foot"),)}, r"channels\[0\].unit"),
    ],
)
def test_settings_that_do_not_hold_name_the_key(values, key: str):
    with pytest.raises(ValueError, match=f"^{key}: "):
        collector(**values).settings.check()
