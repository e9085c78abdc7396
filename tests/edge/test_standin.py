"""A truck on a disk that is really full: the classroom goes on, scripts hear why they are refused, and it heals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import edge.standin
from edge.standin import StandIn, start_edge
from protocol.numbers import Precedence
from tests.edge.rig import Rig, arrived, until
from tests.faults.sick import Tmpfs
from tests.powercut import disk


@contextlib.asynccontextmanager
async def full_disk(rig: Rig) -> Any:
    """Move a truck that joined and worked to a small disk, and fill it."""
    if (reason := disk.why_not()) is not None:
        pytest.skip(reason)
    data = await rig.join()
    running = await rig.start(data)
    await running.recorder.event("before", Precedence.PRIORITY)
    await arrived(rig, "before")
    await rig.stop(running)
    place = Tmpfs(rig.tmp_path / "small")
    try:
        shutil.copytree(data, place.root / "data")
        place.fill()
        yield place, place.root / "data"
    finally:
        place.close()


async def test_a_full_disk_keeps_the_daemon_from_starting_but_not_from_serving(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing: list[StandIn] = []
    enter = StandIn.__aenter__

    async def noted(self: StandIn) -> StandIn:
        standing.append(self)
        return await enter(self)

    monkeypatch.setattr(edge.standin.StandIn, "__aenter__", noted)
    async with full_disk(rig) as (place, data):
        starting = asyncio.create_task(start_edge(rig.config(), data, look_s=0.05))
        await until(lambda: bool(standing) and standing[-1]._server._server is not None)
        base = "http://{}:{}".format(*standing[-1].address)
        async with aiohttp.ClientSession() as session:
            async with session.get(base + "/") as page:
                assert page.status == 200
                assert "ke-arrow" in await page.text()
            async with session.post(base + "/v1/events", json={"name": "door"}) as refused:
                assert refused.status == 507
                assert "full" in (await refused.json())["detail"]
        place.empty()
        running = await starting
        rig.edges[running] = asyncio.create_task(running.run())
        await running.recorder.event("after", Precedence.PRIORITY)
        await arrived(rig, "after")
        await rig.stop(running)


async def test_what_is_no_fault_of_the_disk_is_raised(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    data = await rig.join()

    async def fail(self: object) -> None:
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr("edge.standin.Edge.start", fail)
    with pytest.raises(OSError, match="taken"):
        await start_edge(rig.config(), Path(data))
