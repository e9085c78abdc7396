"""A truck's disk image put back or cloned, and a gateway restored from an old backup, on real daemons.

Whatever state comes back: nothing new is lost, nothing is stored twice, no sequence number is used again with a key,
and a budget is not spent twice.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from edge.daemon import Edge
from store import identity
from tests.edge.rig import Rig, arrived, send, settled


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
    wire = await rig.wire()
    wire.cut = True
    edge = await rig.start(data)
    names = [f"new.{n}" for n in range(new)]
    for name in names:
        await send(edge, name)
    await arrived(rig, *names)
    await settled(edge)
    counted = Counter(await rig.hub.names())
    assert {name: counted[name] for name in names} == dict.fromkeys(names, 1)
