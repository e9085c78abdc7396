"""The uplink against a real gateway: contacts, outages, order of links, budgets, restarts of either side."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from edge.config import LinkSettings
from edge.daemon import Edge
from gateway.coap import Answer
from protocol.messages import Ack
from protocol.numbers import PARCEL_ATTEMPTS_MAX, Precedence
from store.parcels import ParcelState
from store.sendings import Sendings
from tests.edge.rig import Rig, Wire, arrived, queued, send, settled, until


async def two_links(rig: Rig, **settings: Any) -> tuple[Edge, Wire, Wire]:
    """Start a truck with a dear satellite, named first, and a cheap LTE."""
    sat, lte = await rig.wire(), await rig.wire()
    edge = await rig.start(
        await rig.join(),
        LinkSettings(name="sat", gateways=(sat.address,), price_per_mb=5.0),
        LinkSettings(name="lte", gateways=(lte.address,), price_per_mb=0.01),
        **settings,
    )
    return edge, sat, lte


async def test_an_event_arrives(rig: Rig) -> None:
    edge = await rig.start(await rig.join())
    await edge.recorder.event("door.opened", Precedence.FLASH, (("side", "rear"),))
    await arrived(rig, "door.opened")
    assert rig.failed(edge) is None


async def test_an_idle_truck_sends_no_byte_and_burns_no_processor(rig: Rig) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    await send(edge, "one")
    await arrived(rig, "one")
    await settled(edge)
    await asyncio.sleep(0.3)
    sent, processor_s = wire.total_bytes, time.process_time()
    await asyncio.sleep(1.5)
    assert wire.total_bytes == sent
    # The gateway, with all its tasks, is in this process too.
    assert time.process_time() - processor_s < 0.15


async def test_what_is_sent_is_what_the_wire_carried(rig: Rig) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    for number in range(30):
        await send(edge, f"event.{number}")
    await settled(edge)
    edge.uplink.links["lte"]._spending.close()  # what waits for late answers is settled as if none came
    await until(lambda: edge.ledger.booked("lte") == wire.total_bytes)


async def test_nothing_is_confirmable(rig: Rig) -> None:
    # One confirmable request would keep all others waiting until it is answered or given up.
    wire, kinds = await rig.wire(), set()

    def note(data: bytes, is_up: bool) -> bool:
        kinds.add(data[0] >> 4 & 3)
        return False

    wire.drop = note
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    for number in range(20):
        await send(edge, f"event.{number}")
    await settled(edge)
    assert kinds == {1}


async def test_the_cheap_link_carries_and_the_dear_one_keeps_silent(rig: Rig) -> None:
    edge, sat, lte = await two_links(rig)
    for number in range(5):
        await send(edge, f"event.{number}", Precedence.NORMAL)
    await settled(edge)
    assert sat.total_bytes == 0
    assert lte.total_bytes > 0


async def test_a_link_that_is_dead_at_start_gives_way_to_a_dearer_one(rig: Rig) -> None:
    sat, lte = await rig.wire(), await rig.wire()
    lte.cut = True
    edge = await rig.start(
        await rig.join(),
        LinkSettings(name="lte", gateways=(lte.address,)),
        LinkSettings(name="sat", gateways=(sat.address,), price_per_mb=5.0),
    )
    await send(edge, "urgent")
    await arrived(rig, "urgent")
    assert sat.total_bytes > 0
    assert not edge.uplink.links["lte"].usable


async def test_what_can_wait_goes_back_to_the_cheap_link_when_it_returns(rig: Rig) -> None:
    edge, sat, lte = await two_links(rig)
    await send(edge, "before")
    await settled(edge)
    lte.cut = True
    await send(edge, "during", Precedence.NORMAL)
    await arrived(rig, "during")
    assert sat.total_bytes > 0
    await settled(edge)
    lte.cut = False
    await until(lambda: not edge.uplink.links["lte"].resting)
    carried = sat.total_bytes
    for number in range(5):
        await send(edge, f"after.{number}", Precedence.NORMAL)
        await settled(edge)
    assert sat.total_bytes == carried
    assert edge.uplink.links["lte"].usable


async def test_normal_waits_its_patience_and_urgent_does_not(rig: Rig) -> None:
    edge, _sat, lte = await two_links(rig, patience_s=2)
    await send(edge, "before")
    await settled(edge)
    lte.cut = True
    started = time.monotonic()
    await send(edge, "can.wait", Precedence.NORMAL)
    await asyncio.sleep(0.5)
    await send(edge, "urgent", Precedence.PRIORITY)
    await arrived(rig, "urgent")
    assert "can.wait" not in await rig.hub.names()
    await arrived(rig, "can.wait")
    assert time.monotonic() - started > 2


async def test_a_lossy_wire_loses_and_doubles_nothing(rig: Rig) -> None:
    wire = await rig.wire()
    chance = random.Random(7)
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    await send(edge, "first")
    await arrived(rig, "first")
    wire.drop = lambda data, is_up: chance.random() < 0.2
    names = [f"event.{number}" for number in range(200)]
    for name in names:
        await send(edge, name)
    await until(lambda: _is_empty(edge), within_s=60)
    counted = Counter(await rig.hub.names())
    assert {name: counted[name] for name in names} == dict.fromkeys(names, 1)


async def _is_empty(edge: Edge) -> bool:
    return await queued(edge) == 0


async def test_a_gateway_that_restarts_goes_on_with_the_session(rig: Rig) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    await send(edge, "before")
    await settled(edge)
    before = edge.links_store.contexts.get("lte")
    await rig.hub.stop()
    await send(edge, "during")
    await rig.hub.start()
    await arrived(rig, "before", "during")
    after = edge.links_store.contexts.get("lte")
    assert before is not None
    assert after is not None
    assert before.id == after.id  # an Echo challenge, no new handshake


async def test_a_gateway_that_forgot_the_session_gets_a_new_one(rig: Rig) -> None:
    data = await rig.join()
    await rig.hub.stop()
    shutil.copy(rig.hub.folder / "fleet.db", rig.tmp_path / "backup.db")
    await rig.hub.start()
    edge = await rig.start(data)
    await send(edge, "before")
    await settled(edge)
    await rig.hub.stop()
    for name in ("fleet.db-wal", "fleet.db-shm"):
        (rig.hub.folder / name).unlink(missing_ok=True)
    shutil.copy(rig.tmp_path / "backup.db", rig.hub.folder / "fleet.db")
    await rig.hub.start()
    await send(edge, "after")
    await arrived(rig, "after")
    assert rig.failed(edge) is None


async def test_a_truck_that_is_revoked_does_not_hammer_the_gateway(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    await send(edge, "before")
    await settled(edge)
    assert rig.hub.gateway is not None
    await rig.hub.gateway.fleet.revoke_truck("ke-arrow", rig.hub.now_ms)
    rig.hub.now_ms += 60_000
    edge.uplink.backoff_max_s = 300.0
    handshakes = 0

    def count(data: bytes, is_up: bool) -> bool:
        nonlocal handshakes
        handshakes += is_up and b"\xb1x" in data[:16]
        return False

    wire.drop = count
    sent = wire.up_datagrams
    await send(edge, "after")
    await asyncio.sleep(1.5)
    assert handshakes <= 1
    assert wire.up_datagrams - sent < 12
    assert rig.failed(edge) is None
    assert await queued(edge) > 0


async def test_nonsense_from_the_gateway_ends_a_contact_and_not_the_daemon(rig: Rig) -> None:
    edge = await rig.start(await rig.join(), run=False)
    assert rig.hub.gateway is not None
    handlers = rig.hub.gateway.context.serversite._handlers
    upload = next(key for key in handlers if key[1] == "u")
    real = handlers[upload]
    answers = [b"\xff", b"", b"\xa1\x01\x01\x01" * 40, Ack(cumulative=2**40).encode(), None]

    async def lie(request: Any) -> Any:
        answer = answers.pop(0) if answers else None
        return await real(request) if answer is None else Answer(answer, "event")

    handlers[upload] = lie
    rig.edges[edge].cancel()
    rig.edges[edge] = asyncio.create_task(edge.run())
    await send(edge, "one")
    await arrived(rig, "one")
    assert rig.failed(edge) is None


async def test_a_gateway_in_trouble_is_tried_again(rig: Rig) -> None:
    edge = await rig.start(await rig.join())
    await send(edge, "first")
    await settled(edge)
    assert rig.hub.gateway is not None
    handlers = rig.hub.gateway.context.serversite._handlers
    upload = next(key for key in handlers if key[1] == "u")
    real, failures = handlers[upload], 3

    async def fail(request: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise RuntimeError("the disk of the gateway is full")
        return await real(request)

    handlers[upload] = fail
    await send(edge, "second")
    await arrived(rig, "second")


def another_life(edge: Edge) -> Sendings:
    return Sendings(edge.state, edge.queue._lived)


async def test_a_parcel_that_killed_the_daemon_too_often_is_set_aside_and_not_sent(rig: Rig) -> None:
    edge = await rig.start(await rig.join(), run=False)
    await send(edge, "poison")
    poison = (await edge.writer.run(lambda: edge.queue.load_window(1)))[0]
    for _ in range(PARCEL_ATTEMPTS_MAX):
        await edge.writer.run(lambda: another_life(edge).begin(poison.epoch, [poison.sequence], 0))
    await send(edge, "good")
    rig.edges[edge].cancel()
    rig.edges[edge] = asyncio.create_task(edge.run())
    await arrived(rig, "good")
    await settled(edge)
    assert "poison" not in await rig.hub.names()
    counts = await edge.writer.run(edge.queue.counts)
    assert [each.parcels for each in counts if each.state is ParcelState.QUARANTINED] == [1]


async def test_a_planned_stop_counts_no_attempt_against_what_was_under_way(rig: Rig) -> None:
    data = await rig.join()
    wire = await rig.wire()
    links = LinkSettings(name="lte", gateways=(wire.address,))
    for _ in range(PARCEL_ATTEMPTS_MAX + 2):
        edge = await rig.start(data, links)
        await send(edge, "patient")
        await until(lambda edge=edge: not edge.uplink._hello_wanted)
        wire.cut = True
        await send(edge, "patient")
        await until(lambda edge=edge: len(edge.uplink._sends) > 0)
        await rig.stop(edge)
        wire.cut = False
    edge = await rig.start(data, links)
    await settled(edge)
    assert len([name for name in await rig.hub.names() if name == "patient"]) == 2 * (PARCEL_ATTEMPTS_MAX + 2)


async def test_power_cuts_lose_and_double_nothing(rig: Rig) -> None:
    data = await rig.join()
    names = []
    for start in range(4):
        edge = await rig.start(data)
        for number in range(10):
            names.append(f"event.{start}.{number}")
            await send(edge, names[-1])
        await asyncio.sleep(0.02 * start)
        await rig.crash(edge)
    edge = await rig.start(data)
    await settled(edge)
    counted = Counter(await rig.hub.names())
    assert {name: counted[name] for name in names} == dict.fromkeys(names, 1)


async def test_parcels_of_an_older_epoch_go_too(rig: Rig) -> None:
    data = await rig.join()
    edge = await rig.start(data, run=False)
    await send(edge, "old")
    await rig.stop(edge)
    (data / "state.db.identity").unlink()  # what a restored copy looks like
    edge = await rig.start(data)
    await send(edge, "new")
    await arrived(rig, "old", "new", "store.restored")
    await settled(edge)


async def test_the_contact_says_when_its_request_left(rig: Rig) -> None:
    edge = await rig.start(await rig.join(), run=False)
    heard = []

    async def hear(contact: Any) -> None:
        heard.append(replace(contact))

    edge.uplink._on_contact = hear
    started = edge.clock.monotonic()
    rig.edges[edge].cancel()
    rig.edges[edge] = asyncio.create_task(edge.run())
    await until(lambda: heard)
    assert started <= heard[0].asked_at <= edge.clock.monotonic()
