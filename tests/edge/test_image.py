"""A truck's disk image put back or cloned, and a gateway restored from an old backup, on real daemons.

Whatever state comes back: nothing new is lost, nothing is stored twice, no sequence number is used again with a key,
and a budget is not spent twice.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from aiocoap.message import Message

from edge import daemon
from edge.config import LinkSettings
from edge.daemon import Edge
from protocol.numbers import Precedence
from store import identity
from tests.edge.rig import Rig, arrived, send, settled, until


@pytest.fixture
def _same_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files that were put back look as a block image of the whole disk does: with their own inodes and times."""
    monkeypatch.setattr(identity, "_is_unchanged", lambda file, inode, changed_ns: True)


async def deliver(rig: Rig, edge: Edge, *names: str) -> None:
    for name in names:
        await send(edge, name)
    await arrived(rig, *names)
    await settled(edge)


def put_back(image: Path, data: Path) -> None:
    shutil.rmtree(data)
    shutil.copytree(image, data)


async def truck_with_image(rig: Rig, before: int, after: int) -> tuple[Path, Path]:
    """A truck that sent `before` events, had its image taken, and sent `after` more; return its data and the image."""
    data = await rig.join()
    edge = await rig.start(data)
    await deliver(rig, edge, *(f"before.{n}" for n in range(before)))
    await rig.stop(edge)
    image = rig.tmp_path / "image"
    shutil.copytree(data, image)
    edge = await rig.start(data)
    await deliver(rig, edge, *(f"after.{n}" for n in range(after)))
    await rig.stop(edge)
    return data, image


@pytest.mark.parametrize("new", [2, 30])
@pytest.mark.usefixtures("_same_disk")
async def test_what_is_recorded_after_an_image_was_put_back_arrives_once(rig: Rig, new: int) -> None:
    data, image = await truck_with_image(rig, 5, 10)
    put_back(image, data)
    edge = await rig.start(data)
    names = [f"new.{n}" for n in range(new)]
    for name in names:
        await send(edge, name)
    await arrived(rig, *names)
    await settled(edge)
    counted = Counter(await rig.hub.names())
    assert {name: counted[name] for name in names} == dict.fromkeys(names, 1)
    assert rig.hub.gateway is not None
    assert "truck.forked" in [each.action for each in await rig.hub.gateway.fleet.audit_log()]


def sequence_numbers(datagrams: list[bytes]) -> list[bytes]:
    """The OSCORE options (sequence number and key id) of the requests among these datagrams."""
    options = [Message.decode(each).opt.oscore for each in datagrams]
    return [each for each in options if each]


@pytest.mark.parametrize("reboots", [True, False])
@pytest.mark.usefixtures("_same_disk")
async def test_no_sequence_number_is_used_again_after_an_image_was_put_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, reboots: bool
) -> None:
    """To put an image back takes a boot. (Without one, which cannot be, this test sees that numbers are used again.)"""
    sent: list[bytes] = []
    wire = await rig.wire()
    wire.drop = lambda datagram, is_up: bool(is_up and sent.append(datagram))
    link = LinkSettings(name="lte", gateways=(wire.address,))
    data, image = await rig.join(), rig.tmp_path / "image"

    async def run(boot: int, name: str) -> None:
        monkeypatch.setattr(daemon, "kernel_boot_id", lambda: boot)
        edge = await rig.start(data, link)
        await deliver(rig, edge, name)
        await rig.stop(edge)

    await run(1, "one")
    shutil.copytree(data, image)
    await run(1, "two")
    put_back(image, data)
    await run(2 if reboots else 1, "three")
    numbers = sequence_numbers(sent)
    assert len(numbers) >= 3
    assert (len(numbers) == len(set(numbers))) is reboots


async def test_a_clone_asks_what_was_spent_and_goes_on_within_the_budget(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other hardware the copied state is noticed: a new epoch, new sessions, and the gateway's account."""
    wire = await rig.wire()
    link = LinkSettings(name="lte", gateways=(wire.address,), month_bytes_max=60_000, reserve_bytes=0)
    data = await rig.join()
    monkeypatch.setattr(daemon, "board_name", lambda: b"one board" * 2)
    edge = await rig.start(data, link)
    await deliver(rig, edge, "before")
    await rig.stop(edge)
    image = rig.tmp_path / "image"
    shutil.copytree(data, image)
    edge = await rig.start(data, link)
    for number in range(8):
        await edge.recorder.event(f"large.{number}", Precedence.NORMAL, tuple((f"k{n}", "x" * 60) for n in range(30)))
        await arrived(rig, f"large.{number}")
    await settled(edge)
    await rig.stop(edge)
    carried = wire.total_bytes
    assert rig.hub.gateway is not None
    await rig.hub.gateway._ledger.flush()
    monkeypatch.setattr(daemon, "board_name", lambda: b"another board" * 2)
    edge = await rig.start(image, link)
    assert edge.ledger.in_doubt("lte")
    epoch = edge.queue.epoch
    await until(lambda: not edge.ledger.in_doubt("lte"))
    assert edge.ledger.spent("lte") >= carried
    await deliver(rig, edge, "of.the.clone")
    await arrived(rig, "store.restored")
    states = {each.epoch for each in await rig.hub.gateway.fleet.epochs_of("ke-arrow")}
    assert epoch in states
    assert len(states) == 2
    assert edge.ledger.spent("lte") <= 60_000


@pytest.mark.usefixtures("_same_disk")
async def test_an_old_ledger_on_the_same_hardware_is_put_right_by_the_gateway(rig: Rig) -> None:
    wire = await rig.wire()
    link = LinkSettings(name="lte", gateways=(wire.address,), month_bytes_max=60_000, reserve_bytes=0)
    data = await rig.join()
    edge = await rig.start(data, link)
    await deliver(rig, edge, "before")
    await rig.stop(edge)
    image = rig.tmp_path / "image"
    shutil.copytree(data, image)
    edge = await rig.start(data, link)
    for number in range(8):
        await edge.recorder.event(f"large.{number}", Precedence.NORMAL, tuple((f"k{n}", "x" * 60) for n in range(30)))
        await arrived(rig, f"large.{number}")
    await settled(edge)
    await rig.stop(edge)
    carried = wire.total_bytes
    assert rig.hub.gateway is not None
    await rig.hub.gateway._ledger.flush()
    put_back(image, data)
    edge = await rig.start(data, link)
    assert not edge.ledger.in_doubt("lte")
    await send(edge, "after")
    await arrived(rig, "after", "store.forked")
    await until(lambda: not edge.ledger.in_doubt("lte"))
    assert edge.ledger.spent("lte") >= carried
