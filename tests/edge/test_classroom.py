from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from edge import classroom
from edge.classroom import EventValue, is_within, make_classroom, parse_networks
from edge.classroom_server import ClassroomServer
from edge.clock import ClockState
from edge.config import ClassroomSettings
from edge.pages import ServedBundle
from edge.status import ClockStatus, DiskStatus, EdgeStatus, LinkStatus
from protocol.errors import LocalError, PeerError, QueueFullError
from protocol.numbers import Precedence

STATUS = EdgeStatus(
    "ke-arrow",
    (),
    (LinkStatus("sat", True, 12, 100, 88, 3.0),),
    (),
    ClockStatus(ClockState.UNSET),
    DiskStatus(0, 1, 0, 1, 2),
)


class Truck:
    """Stands for the daemon: keeps what it is given, or refuses it."""

    def __init__(self) -> None:
        self.rows: list[tuple[tuple[tuple[str, float], ...], float | None]] = []
        self.said: list[tuple[str, Precedence, tuple[tuple[str, EventValue], ...], float | None]] = []
        self.refuse: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def record(self, values: tuple[tuple[str, float], ...], time_s: float | None) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        self.rows.append((values, time_s))

    async def event(
        self, name: str, precedence: Precedence, values: tuple[tuple[str, EventValue], ...], time_s: float | None
    ) -> int:
        if self.refuse is not None:
            raise self.refuse
        self.said.append((name, precedence, values, time_s))
        return 7 + len(self.said)

    def status(self) -> EdgeStatus:
        if self.refuse is not None:
            raise self.refuse
        return STATUS

    def active(self, name: str) -> Path | None:
        return None

    def bundles(self) -> list[ServedBundle]:
        return [ServedBundle("maths", "1.0", "Maths")]


@pytest.fixture
def truck() -> Truck:
    return Truck()


async def serve(truck: Truck, **settings: object) -> ClassroomServer:
    app = make_classroom(ClassroomSettings(**settings), recorder=truck, status=truck, content=truck)
    server = ClassroomServer(app, "127.0.0.1:0")
    await server.start()
    return server


@pytest.fixture
async def client(truck: Truck) -> AsyncIterator[aiohttp.ClientSession]:
    server = await serve(truck)
    host, port = server.address
    async with aiohttp.ClientSession(f"http://{host}:{port}", timeout=aiohttp.ClientTimeout(10)) as session:
        yield session
    await server.stop()


async def problem(response: aiohttp.ClientResponse, status: int) -> str:
    assert response.status == status
    assert response.content_type == "application/problem+json"
    value = await response.json(content_type=None)
    assert value["status"] == status
    assert value["title"]
    return value["detail"]


async def test_a_script_puts_a_record(client, truck):
    async with client.post(
        "/v1/records", json={"values": {"roof.t": 21.5, "door": 1}, "time": 1_780_000_000}
    ) as answer:
        assert answer.status == 204
    async with client.post("/v1/records", json={"values": {"roof.t": -3}}) as answer:
        assert answer.status == 204
    assert truck.rows == [((("roof.t", 21.5), ("door", 1.0)), 1_780_000_000.0), ((("roof.t", -3.0),), None)]


async def test_a_script_says_an_event_and_learns_its_number(client, truck):
    body = {"name": "door.open", "precedence": "priority", "values": {"who": "guard", "count": 2, "ok": True}}
    async with client.post("/v1/events", json=body) as answer:
        assert answer.status == 201
        assert await answer.json() == {"sequence": 8}
    async with client.post("/v1/events", json={"name": "x"}) as answer:
        assert await answer.json() == {"sequence": 9}
    assert truck.said == [
        ("door.open", Precedence.PRIORITY, (("who", "guard"), ("count", 2), ("ok", True)), None),
        ("x", Precedence.NORMAL, (), None),
    ]
    assert truck.said[0][2][2][1] is True


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/records", b""),
        ("/v1/records", b"[]"),
        ("/v1/records", b'{"values": {}}'),
        ("/v1/records", b'{"values": {"a": "1"}}'),
        ("/v1/records", b'{"values": {"a": null}}'),
        ("/v1/records", b'{"values": {"a": NaN}}'),
        ("/v1/records", b'{"values": {"a": 1e999}}'),
        ("/v1/records", b'{"values": {"a": ' + b"9" * 5000 + b"}}"),
        ("/v1/records", b'{"values": {"a b": 1}}'),
        ("/v1/records", b'{"values": {"a": 1}, "extra": 1}'),
        ("/v1/records", b'{"values": {"a": 1}, "time": -1}'),
        ("/v1/records", b'{"values": {"a": 1}, "time": "now"}'),
        ("/v1/records", b'{"values": {' + b",".join(b'"c%d": 1' % n for n in range(65)) + b"}}"),
        ("/v1/records", b"[" * 30_000),
        ("/v1/records", b'{"values": {"a": 1}} x'),
        ("/v1/records", b"\xff\xfe"),
        ("/v1/events", b"{}"),
        ("/v1/events", b'{"name": "Bad Name"}'),
        ("/v1/events", b'{"name": "x", "precedence": "urgent"}'),
        ("/v1/events", b'{"name": "x", "precedence": 0}'),
        ("/v1/events", b'{"name": "x", "values": {"a": 1.5}}'),
        ("/v1/events", b'{"name": "x", "values": {"a": [1]}}'),
        ("/v1/events", b'{"name": "x", "values": {"a": 9223372036854775808}}'),
        ("/v1/events", b'{"name": "x", "values": {"a": "' + b"y" * 257 + b'"}}'),
    ],
)
async def test_a_malformed_body_is_refused_and_nothing_is_kept(client, truck, path: str, body: bytes):
    async with client.post(path, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert await problem(answer, 400)
    assert truck.rows == truck.said == []


async def test_a_body_that_is_too_large_is_refused(client, truck):
    async with client.post("/v1/records", json={"values": {"a": 1}, "x": "y" * 40_000}) as answer:
        await problem(answer, 413)

    async def endless():
        for _ in range(100):
            yield b" " * 1000

    async with client.post("/v1/records", data=endless(), headers={"Content-Type": "application/json"}) as answer:
        await problem(answer, 413)
    assert truck.rows == []


async def test_a_compressed_body_is_never_unpacked(client, truck):
    headers = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
    async with client.post("/v1/records", data=b"x", headers=headers) as answer:
        assert "without Content-Encoding" in await problem(answer, 415)


async def test_a_body_that_never_comes_is_given_up(client, monkeypatch):
    monkeypatch.setattr(classroom, "POST_S_MAX", 0.05)
    held = asyncio.Event()

    async def stalled():
        yield b"{"
        await held.wait()

    async with client.post("/v1/records", data=stalled(), headers={"Content-Type": "application/json"}) as answer:
        assert "0.05 s" in await problem(answer, 408)
    held.set()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://192.168.8.1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
async def test_a_web_page_cannot_write_even_from_the_truck_itself(client, truck, headers, status: int):
    sent = {"Content-Type": "application/json"} | headers
    async with client.post("/v1/records", data=b'{"values": {"a": 1}}', headers=sent) as answer:
        await problem(answer, status)
    assert truck.rows == []


async def test_who_is_not_named_may_read_but_not_write(truck):
    server = await serve(truck, local_post_from=("192.0.2.0/24", "::1/128"))
    try:
        host, port = server.address
        async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
            # What a proxy claims does not count.
            headers = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
            async with session.post("/v1/records", json={"values": {"a": 1}}, headers=headers) as answer:
                assert "local_post_from" in await problem(answer, 403)
            async with session.post("/v1/events", json={"name": "x"}) as answer:
                await problem(answer, 403)
            async with session.get("/v1/status") as answer:
                assert answer.status == 200
    finally:
        await server.stop()
    assert truck.rows == truck.said == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PeerError("no schema has the channel 'a'"), 422),
        (QueueFullError("the queue is full"), 507),
        (LocalError("the truck has not joined yet"), 409),
    ],
)
async def test_what_the_recorder_refuses_is_answered_with_its_reason(client, truck, error: Exception, status: int):
    truck.refuse = error
    async with client.post("/v1/records", json={"values": {"a": 1}}) as answer:
        assert await problem(answer, status) == str(error)
    async with client.post("/v1/events", json={"name": "x"}) as answer:
        assert await problem(answer, status) == str(error)


async def test_the_trucks_own_faults_are_logged_a_few_times_and_tell_strangers_nothing(client, truck):
    truck.refuse = RuntimeError("/var/lib/digitruck/secret")
    with capture_logs() as logs:
        for _ in range(20):
            async with client.get("/v1/status") as answer:
                assert "secret" not in await problem(answer, 500)
    assert [line["event"] for line in logs] == ["classroom.failed"] * 3


async def test_status_is_json_and_never_cached(client):
    async with client.get("/v1/status") as answer:
        assert answer.content_type == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        value = await answer.json()
    assert value["truck"] == "ke-arrow"
    assert value["links"][0]["left_bytes"] == 88


async def test_the_start_page_speaks_the_browsers_language(client):
    async with client.get("/", headers={"Accept-Language": "fr-CD"}) as answer:
        assert answer.content_type == "text/html"
        assert answer.charset == "utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Vary"] == "Accept-Language"
        text = await answer.text()
    assert "Salle de classe ke-arrow" in text
    assert 'href="content/maths/"' in text
    async with client.get("/") as answer:
        assert "Classroom ke-arrow" in await answer.text()


async def test_unknown_paths_and_methods_are_problems(client):
    async with client.get("/v1/nothing") as answer:
        await problem(answer, 404)
    async with client.put("/v1/records", json={}) as answer:
        await problem(answer, 405)
        assert answer.headers["Allow"] == "POST"


async def test_too_many_posts_at_once_are_told_to_come_back_and_reading_goes_on(client, truck, monkeypatch):
    monkeypatch.setattr(classroom, "POSTS_AT_ONCE_MAX", 2)
    truck.gate = asyncio.Event()

    async def post() -> int:
        async with client.post("/v1/records", json={"values": {"a": 1}}) as answer:
            return answer.status

    waiting = [asyncio.ensure_future(post()) for _ in range(2)]
    await asyncio.sleep(0.05)
    async with client.post("/v1/records", json={"values": {"a": 1}}) as answer:
        await problem(answer, 503)
        assert answer.headers["Retry-After"] == "5"
    async with client.get("/v1/status") as answer:
        assert answer.status == 200
    truck.gate.set()
    assert await asyncio.gather(*waiting) == [204, 204]
    assert await post() == 204


def test_addresses_are_compared_as_networks():
    networks = parse_networks(ClassroomSettings().local_post_from)
    assert is_within("127.0.0.1", networks)
    assert is_within("127.9.9.9", networks)
    assert is_within("::1", networks)
    assert is_within("::ffff:127.0.0.1", networks)
    for stranger in ("192.168.8.20", "::2", "fe80::1%wlan0", "", None, "localhost", "::ffff:192.168.8.20"):
        assert not is_within(stranger, networks)


def test_a_network_that_does_not_read_is_named():
    with pytest.raises(ValueError, match=r"local_post_from\[1\]"):
        parse_networks(["::1", "10.0.0.300/8"])
