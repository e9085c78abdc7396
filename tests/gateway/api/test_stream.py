"""Live changes arrive in order, resume where they stopped, and end with the token, the gateway or the client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from gateway.api import stream
from gateway.api.auth import Role
from gateway.api.limits import ApiLimits
from gateway.api.stream import ChangeShape
from tests.gateway.api.conftest import Gateway, Opener, World
from tests.gateway.fleets import NOW_MS, add_truck


@dataclass
class Events:
    """Reads server-sent events off an answer."""

    response: aiohttp.ClientResponse
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def next(self) -> dict[str, Any] | None:
        """Return the next event, None when the stream has ended."""
        event: dict[str, Any] = {}
        async with asyncio.timeout(60):
            async for line in self.response.content:
                text = line.decode().rstrip("\r\n")
                if not text and event:
                    return event
                name, _, value = text.partition(": ")
                if name in ("id", "event"):
                    event[name] = value
                elif name == "data":
                    event["data"] = json.loads(value)
        return None


@asynccontextmanager
async def follow(gateway: Gateway, query: str = "", **headers: str) -> AsyncIterator[Events]:
    async with gateway.session.get(
        f"{gateway.base}/v1/stream{query}", headers=gateway.headers(Role.VIEWER) | headers
    ) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Events(response)


async def test_changes_arrive_as_they_are_committed(world: World) -> None:
    async with follow(world.gateway, "?kinds=event") as events:
        await world.truck.event("door.closed")
        event = await events.next()
    assert event is not None
    assert (event["event"], event["data"]["truck"]) == ("event", "ke-arrow")
    assert set(event["data"]) == set(ChangeShape.__struct_fields__)


async def test_a_reader_goes_on_after_the_last_event_that_it_saw(world: World) -> None:
    async with follow(world.gateway, "?kinds=event&after=0") as events:
        first = await events.next()
    assert first is not None
    await world.truck.event("while.away")
    await world.truck.event("and.again")
    async with follow(world.gateway, "?kinds=event", **{"Last-Event-ID": first["id"]}) as events:
        later = [await events.next(), await events.next()]
    ids = [int(first["id"]), *(int(each["id"]) for each in later if each)]
    assert ids == sorted(set(ids))
    assert len(ids) == 3


async def test_one_trucks_changes_are_followed_alone(world: World) -> None:
    other = await add_truck(world.gateway.fleet, "tz-arrow", "tanzania")
    async with follow(world.gateway, "?truck=ke-arrow&kinds=event") as events:
        await other.event("not.ours")
        await world.truck.event("ours")
        event = await events.next()
    assert event is not None
    assert event["data"]["truck"] == "ke-arrow"


async def test_an_id_from_the_future_is_told_to_read_again(world: World) -> None:
    async with follow(world.gateway, "?kinds=event&after=999999") as events:
        event = await events.next()
    assert event is not None
    assert event["event"] == "gap"


async def test_a_revoked_tokens_stream_ends(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHECK_TOKEN_S", 0.05)
    async with follow(gateway) as events:
        await gateway.fleet.revoke_token("the-viewer", NOW_MS)
        assert await events.next() is None


async def test_a_gateway_that_stops_ends_its_streams(open_gateway: Opener) -> None:
    async with open_gateway() as gateway, follow(gateway) as events:
        closing = asyncio.ensure_future(gateway.server.close())
        assert await events.next() is None
        async with asyncio.timeout(4):  # well before the server would cut the connection
            await closing


async def test_streams_are_counted_and_capped(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(streams_max=1)) as gateway:
        async with follow(gateway):
            assert (await gateway.get("/v1/stream")).status == 503
            assert b"digitruck_api_streams 1.0" in (await gateway.get("/metrics")).body
        async with asyncio.timeout(60):
            while b"digitruck_api_streams 0.0" not in (await gateway.get("/metrics")).body:
                await add_truck(gateway.fleet, f"truck-{asyncio.get_running_loop().time():.6f}".replace(".", "-"))
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("last", ["x", "-1", "9" * 30, ""])
async def test_a_last_event_id_that_was_never_given_is_refused(gateway: Gateway, last: str) -> None:
    assert (await gateway.get("/v1/stream", headers={"Last-Event-ID": last})).status == 400
