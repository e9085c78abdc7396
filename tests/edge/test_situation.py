"""The snapshot of how a truck does: fresh after something changed, and cheap while nothing does."""

from __future__ import annotations

import asyncio

import pytest

from edge.clock import ClockState
from edge.config import LinkSettings
from edge.status import EdgeStatus, render_status
from protocol.numbers import Precedence
from tests.edge.rig import Rig, until


async def test_a_new_truck_that_never_reached_anybody(rig: Rig) -> None:
    wire = await rig.wire()
    wire.cut = True
    link = LinkSettings(name="lte", gateways=(wire.address,), month_bytes_max=50_000, reserve_bytes=100)
    edge = await rig.start(await rig.join(), link, run=False)
    status = edge.situation.status()
    assert (status.truck, status.last_contact_age_s, status.clock.state) == ("ke-arrow", None, ClockState.FLOOR)
    assert (status.links[0].usable, status.links[0].spent_bytes, status.links[0].left_bytes) == (None, 0, 50_000)
    assert status.disk.state_bytes > 0
    assert "never" in render_status(status)


async def test_it_follows_what_happens(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.situation._REFRESH_S", 0.01)
    wire = await rig.wire()
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))

    def status() -> EdgeStatus:
        return edge.situation.status()

    await until(lambda: status().last_contact_age_s is not None and not status().queues)
    assert status().clock.state is ClockState.SYNCED
    wire.cut = True
    await edge.recorder.event("door.opened", Precedence.FLASH)
    await until(lambda: ("flash", 1) in [(each.precedence, each.parcels) for each in status().queues])
    await until(lambda: status().links[0].usable is False)
    wire.cut = False
    await until(lambda: not status().queues)
    assert status().links[0].spent_bytes > 0


async def test_versions_are_told_with_what_should_be_and_what_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.situation._REFRESH_S", 0.01)
    edge = await rig.start(await rig.join())
    manifest = await rig.hub.push({"index.html": b"<p>one</p>"})
    await rig.hub.accept(rig.hub.signers.rollout(manifest))
    await rig.hub.accept(rig.hub.signers.config(3, batch_age_s=77))
    await edge.recorder.event("nudge", Precedence.PRIORITY)

    def versions() -> dict[str, tuple[str | None, str | None]]:
        return {each.name: (each.desired, each.active) for each in edge.situation.status().versions}

    await until(lambda: versions() == {"config": ("3", "3"), "maths": ("v1", "v1")})
    (bundle,) = edge.situation.bundles()
    assert (bundle.name, bundle.version) == ("maths", "v1")
    folder = edge.situation.active("maths")
    assert folder is not None
    assert (folder / "index.html").read_bytes() == b"<p>one</p>"
    assert edge.situation.active("absent") is None


async def test_nothing_is_looked_up_while_nothing_happens(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.situation._REFRESH_S", 0.01)
    edge = await rig.start(await rig.join())
    await until(lambda: edge.uplink.links["lte"].last_contact is not None)
    await asyncio.sleep(0.5)
    looks, real = 0, edge.situation.refresh

    async def look() -> None:
        nonlocal looks
        looks += 1
        await real()

    edge.situation.refresh = look  # type: ignore[method-assign]
    await asyncio.sleep(0.5)
    assert looks == 0
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: looks > 0)
