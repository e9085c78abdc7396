"""The uplink against a real gateway."""

from __future__ import annotations

from protocol.numbers import Precedence
from tests.edge.rig import Rig, until


async def test_an_event_arrives(rig: Rig) -> None:
    edge = await rig.start(await rig.join())
    await edge.recorder.event("door.opened", Precedence.FLASH, (("side", "rear"),))

    async def arrived() -> bool:
        return "door.opened" in await rig.hub.names()

    await until(arrived)
    assert rig.failed(edge) is None
