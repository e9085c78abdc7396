"""Webhooks: signed, at least once, over restarts and a receiver that is away; against a real HTTP server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from gateway.webhooks import RETRY_S, WebhookTask, signed_headers
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import NOW_MS, add_truck

SECRET = b"k" * 32


@dataclass
class Receiver:
    """Somebody's program that takes webhooks; `status` is what it answers."""

    status: int = 204
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers={"Location": "/elsewhere"} if self.status == 302 else {})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@dataclass
class Clock:
    now_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


async def turn(fleet: FleetStore, clock: Clock) -> None:
    """Do what a gateway does, started anew each time."""
    task = WebhookTask(fleet, now_ms=clock)
    async with aiohttp.ClientSession() as http:
        await task.queue()
        await task.deliver(http)


async def hook(fleet: FleetStore, url: str, kinds: str = "") -> int:
    newest = await fleet.changes.newest()
    return await fleet.put_webhook(url, kinds, SECRET, NOW_MS, seen=newest, put_by="a test")


async def test_a_change_is_posted_once_with_a_signature_that_holds(fleet: FleetStore, receiver: Receiver) -> None:
    await add_truck(fleet)
    await hook(fleet, receiver.url, "heard")
    clock = Clock()
    await fleet.heard("ke-arrow", "sat", NOW_MS)
    await turn(fleet, clock)
    await turn(fleet, clock)
    ((headers, body),) = receiver.got
    told = json.loads(body)
    assert told["type"] == "digitruck.heard"
    assert (told["data"]["truck"], told["data"]["subject"]) == ("ke-arrow", "sat")
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.new(SECRET, message, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{signature}"


def test_the_signature_is_that_of_the_standard() -> None:
    # The example of the Standard Webhooks specification's libraries.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_kinds_that_were_not_asked_for_are_not_posted(fleet: FleetStore, receiver: Receiver) -> None:
    await add_truck(fleet)
    await hook(fleet, receiver.url, "alarm,rollout")
    await fleet.heard("ke-arrow", "sat", NOW_MS)
    await turn(fleet, Clock())
    assert receiver.got == []


@pytest.mark.parametrize("status", [302, 400, 500])
async def test_what_is_not_taken_comes_again_with_the_same_id_until_it_is(
    fleet: FleetStore, receiver: Receiver, status: int
) -> None:
    await add_truck(fleet)
    identity = await hook(fleet, receiver.url, "heard")
    await fleet.heard("ke-arrow", "sat", NOW_MS)
    clock = Clock()
    receiver.status = status
    await turn(fleet, clock)
    await turn(fleet, clock)
    assert len(receiver.got) == 1  # not again before it is due
    for pause_s in RETRY_S[:3]:
        clock.now_ms += pause_s * 1000
        await turn(fleet, clock)
    assert [each.rule for each in await fleet.alarms()] == ["webhook.failing"]
    receiver.status = 200
    clock.now_ms += RETRY_S[3] * 1000
    await turn(fleet, clock)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    (done,) = await fleet.deliveries(identity)
    assert (done.attempts, done.due_ms, done.delivered_ms) == (5, None, clock.now_ms)
    assert await fleet.alarms() == []


async def test_a_receiver_that_never_answers_is_given_up_after_two_days(fleet: FleetStore) -> None:
    await add_truck(fleet)
    identity = await hook(fleet, "http://127.0.0.1:1/", "heard")
    await fleet.heard("ke-arrow", "sat", NOW_MS)
    clock = Clock()
    for pause_s in (0, *RETRY_S, 0):
        clock.now_ms += pause_s * 1000
        await turn(fleet, clock)
    (given_up,) = await fleet.deliveries(identity)
    assert (given_up.attempts, given_up.due_ms, given_up.delivered_ms) == (len(RETRY_S) + 1, None, None)
    assert "Connect" in given_up.error
    assert clock.now_ms - NOW_MS > 1.9 * 86_400_000


async def test_a_gateway_that_dies_while_it_posts_loses_nothing(fleet: FleetStore, receiver: Receiver) -> None:
    await add_truck(fleet)
    await hook(fleet, receiver.url, "heard")
    await fleet.heard("ke-arrow", "sat", NOW_MS)
    clock = Clock()
    await WebhookTask(fleet, now_ms=clock).queue()
    assert len(await fleet.claim_deliveries(clock.now_ms, 60_000)) == 1  # and then it dies
    await turn(fleet, clock)
    assert receiver.got == []
    clock.now_ms += 60_000
    await turn(fleet, clock)
    assert len(receiver.got) == 1


async def test_a_deleted_webhook_takes_what_waits_with_it(fleet: FleetStore, receiver: Receiver) -> None:
    await add_truck(fleet)
    identity = await hook(fleet, receiver.url)
    await fleet.heard("ke-arrow", "sat", NOW_MS)
    clock = Clock()
    await WebhookTask(fleet, now_ms=clock).queue()
    assert await fleet.delete_webhook(identity, NOW_MS, deleted_by="a test")
    assert not await fleet.delete_webhook(identity, NOW_MS, deleted_by="a test")
    await turn(fleet, clock)
    assert receiver.got == []
