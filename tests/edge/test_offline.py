"""What the databases say while the daemon is stopped; looking changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import LinkSettings
from edge.identity import NotEnrolledError
from edge.offline import offline_status
from protocol.numbers import Precedence
from tests.edge.rig import Rig, until


def files(folder: Path) -> dict[str, bytes]:
    # What SQLite makes for readers (the shared memory of the log) is not state.
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


async def test_a_stopped_truck_tells_queues_spending_and_versions(rig: Rig) -> None:
    data = await rig.join()
    wire = await rig.wire()
    link = LinkSettings(name="lte", gateways=(wire.address,), month_bytes_max=1_000_000)
    edge = await rig.start(data, link)
    manifest = await rig.hub.push({"index.html": b"<p>one</p>"})
    await rig.hub.accept(rig.hub.signers.rollout(manifest))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: edge.installer.active("maths") is not None)
    await until(lambda: not edge.uplink._sends)
    wire.cut = True
    await edge.recorder.event("door.opened", Precedence.FLASH)
    await rig.stop(edge)
    before = files(data)
    status = offline_status(edge.config, data)
    assert status.truck == "ke-arrow"
    assert ("flash", 1) in [(each.precedence, each.parcels) for each in status.queues]
    (told,) = status.links
    assert told.usable is None
    assert told.budget_bytes == 1_000_000
    assert 0 < told.spent_bytes <= wire.total_bytes
    assert told.left_bytes == 1_000_000 - told.spent_bytes
    assert [(each.name, each.active) for each in status.versions] == [("maths", "v1")]
    assert files(data) == before


async def test_it_does_not_disturb_a_daemon_that_is_installing(rig: Rig) -> None:
    data = await rig.join()
    edge = await rig.start(data, run=False)
    building = data / "content" / "maths" / "versions" / ("ab" * 32 + ".building")
    building.mkdir(parents=True)
    offline_status(edge.config, data)
    assert building.exists()


async def test_a_truck_that_has_not_joined_says_what_to_do(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(NotEnrolledError, match="digitruck-edge join CODE"):
        offline_status(rig.config(), tmp_path)


async def test_a_truck_that_never_ran_has_empty_queues(rig: Rig) -> None:
    data = await rig.join()
    status = offline_status(rig.config(), data)
    assert status.queues == ()
    assert status.links[0].spent_bytes == 0
