"""A connection to a peer that is not trusted, and every collector over one: whatever comes, it is a `SourceError`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from edge.collectors.base import RealClock, Row, SourceError
from edge.collectors.registry import plan_collectors
from edge.collectors.stream import BYTES_PER_S_MAX, LINE_BYTES_MAX, connect
from tests.edge.collectors.peers import free_port, liar, watched

OVER_TCP = (
    {"kind": "victron-modbus", "host": "127.0.0.1"},
    {"kind": "venus", "host": "127.0.0.1"},
    {"kind": "venus", "host": "127.0.0.1", "portal": "c0619ab4a585"},
    {"kind": "mqtt", "host": "127.0.0.1", "channels": [{"name": "a", "topic": "a"}]},
    {"kind": "gpsd"},
    {"kind": "nut"},
)
NOISE = random.Random(5).randbytes(3000)
NONSENSE = (
    b"",
    b"\n" * 5000,
    NOISE,
    bytes(5000),
    b"\xff" * 5000,
    b"\x20\x02\x00\x00" + NOISE,
    b"\x20\x02\x00\x00" + b"\x30\x05\x00\x01a12" * 500,
    b"x" * (2 * LINE_BYTES_MAX),
    b'{"class":"TPV","mode":3,"lat":1e999,"lon":[],"speed":"NaN"}\n' * 50,
    b'{"class":"TPV","mode":' + b"[" * 50_000 + b"\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
)


@pytest.fixture
def clock() -> RealClock:
    return RealClock(time.monotonic)


async def test_lines_and_bytes_are_read(clock):
    async with liar(b"one\r\ntwo\nabcdef") as port, connect("127.0.0.1", port, clock=clock) as stream:
        assert [await stream.line(), await stream.line()] == [b"one", b"two"]
        assert await stream.exactly(2) == b"ab"
        await stream.skip(4)
        with pytest.raises(SourceError, match="broke off"):
            await stream.exactly(1)


async def test_a_line_without_end_is_given_up(clock):
    async with liar(b"x" * (3 * LINE_BYTES_MAX), hold=True) as port, connect("127.0.0.1", port, clock=clock) as stream:
        with pytest.raises(SourceError, match="line of more than"):
            await stream.line()


async def test_a_flood_is_read_at_a_bounded_pace(instant_clock):
    lines = b"flood\n" * (BYTES_PER_S_MAX // 2)
    async with liar(lines) as port, connect("127.0.0.1", port, clock=instant_clock) as stream:
        for _ in range(BYTES_PER_S_MAX // 2):
            await stream.line()
    # Three times a second's worth of bytes at once: each of them waited for a second.
    assert instant_clock.sleeps == [1.0, 1.0]


async def test_what_is_not_there_says_so(clock):
    port = free_port()
    with pytest.raises(SourceError, match=f"cannot connect to 127.0.0.1:{port}: Connection refused; is it on"):
        async with connect("127.0.0.1", port, clock=clock, default="is it on?"):
            pass
    with pytest.raises(SourceError, match=r"cannot connect to no\.such\.host\.invalid"):
        async with connect("no.such.host.invalid", 1, clock=clock):
            pass


@pytest.mark.parametrize("table", OVER_TCP, ids=lambda table: f"{table['kind']}{len(table)}")
async def test_no_nonsense_is_more_than_a_source_error(table, clock, monkeypatch):
    monkeypatch.setattr("edge.collectors.latest.FIRST_ROW_WAIT_S", 0.01)
    for nonsense in NONSENSE:
        async with liar(nonsense) as port:
            (plan,) = plan_collectors([{"name": "x", "period_s": 0.01, **table, "port": port}])
            with pytest.raises(SourceError):
                await drain(plan.collector_type(plan.settings).rows(clock))


@pytest.mark.parametrize("table", OVER_TCP, ids=lambda table: f"{table['kind']}{len(table)}")
async def test_gibberish_without_end_is_a_failure_that_is_told(table, monkeypatch):
    flood = os.urandom(64 * 1024) * 64
    async with liar(*[flood] * 16) as port:
        (plan,) = plan_collectors([{"name": "x", "period_s": 0.01, **table, "port": port}])
        async with watched(plan.collector_type(plan.settings), monkeypatch) as watch:
            assert await watch.failed()


async def drain(rows: AsyncGenerator[Row, None]) -> None:
    async with aclosing(rows):
        async for _ in rows:
            pass
