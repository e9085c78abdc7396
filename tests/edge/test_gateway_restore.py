"""A gateway that serves is backed up; one that comes back from an old backup goes on with its trucks by itself."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.config import LinkSettings
from gateway.__main__ import main
from tests.edge.rig import Rig, arrived, send, settled, until


async def command(*args: str | Path) -> str:
    """Run a command of the gateway beside what this test's loop does; return what it prints."""
    result = await asyncio.to_thread(CliRunner().invoke, main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
async def backed_up(rig: Rig) -> tuple[Path, Path]:
    """The gateway's configuration, with what `init` would write, and a place for backups."""
    config = rig.hub.folder / "gateway.toml"
    config.write_text('data = "."\n')
    return config, rig.tmp_path / "b.age"


async def test_after_an_old_backup_trucks_key_anew_gaps_are_shown_and_nothing_is_doubled_or_replayed(
    rig: Rig, backed_up: tuple[Path, Path]
) -> None:
    config, backup = backed_up
    key = rig.tmp_path / "backup.key"
    recipient = (await command("backup-key", key)).strip()
    sent: list[bytes] = []
    wire = await rig.wire()
    wire.drop = lambda datagram, is_up: bool(is_up and sent.append(datagram))
    edge = await rig.start(await rig.join(), LinkSettings(name="lte", gateways=(wire.address,)))
    for name in ("one", "two"):
        await send(edge, name)
    await arrived(rig, "one", "two")
    await settled(edge)
    # While it serves.
    await command("backup", backup, "--recipient", recipient, "--config", config)
    await send(edge, "three")
    await send(edge, "four")
    await arrived(rig, "three", "four")
    await settled(edge)
    assert rig.hub.gateway is not None
    sessions = {each.kid for each in await rig.hub.gateway.fleet.all_contexts()}
    captured = list(sent)
    await rig.hub.stop()
    told = json.loads(await command("restore", backup, "-i", key, "--config", config, "--yes", "--json"))
    assert told["database_kept_as"]
    await rig.hub.start()
    assert rig.hub.gateway is not None
    fleet = rig.hub.gateway.fleet
    assert await fleet.all_contexts() == []

    before = len(await rig.hub.events())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for datagram in captured:
            attacker.sendto(datagram, ("127.0.0.1", rig.hub.port))
    await send(edge, "five")
    await arrived(rig, "five")
    await settled(edge)
    counted = Counter(await rig.hub.names())
    assert set(counted.values()) == {1}
    assert "three" not in counted, "what the truck was told is stored may be gone from it: it is shown as a gap"
    assert len(await rig.hub.events()) == before + 1
    (new,) = await fleet.all_contexts()
    assert new.kid not in sessions
    state = await fleet.epoch_state("ke-arrow")
    assert state is not None
    assert state.ranges, "the parcels in between are missing, and that can be seen"
    assert (await fleet.audit_log())[0].action == "gateway.restored"

    # The truck goes on as before: no new epoch, nothing is asked of a person.
    assert edge.queue.epoch == state.epoch
    await send(edge, "six")
    await arrived(rig, "six")
    assert rig.failed(edge) is None


async def test_desired_states_are_above_those_that_trucks_have_seen(rig: Rig, backed_up: tuple[Path, Path]) -> None:
    config, backup = backed_up
    key = rig.tmp_path / "backup.key"
    recipient = (await command("backup-key", key)).strip()
    edge = await rig.start(await rig.join())
    await rig.hub.accept(rig.hub.signers.config(1))
    await command("backup", backup, "--recipient", recipient, "--config", config)
    rig.hub.now_ms += 10_000
    await rig.hub.accept(rig.hub.signers.config(2))
    await send(edge, "before")
    await until(lambda: edge.wanted.config is not None and edge.wanted.config[1].version == 2)
    await rig.hub.stop()
    rig.hub.now_ms += 10_000
    # On another machine: nobody knows of version 2 there.
    for path in rig.hub.folder.glob("fleet.db*"):
        path.unlink()
    await command("restore", backup, "-i", key, "--config", config, "--yes")
    await rig.hub.start()
    rig.hub.now_ms += 10_000
    # Nobody knows what was revoked since, until a person pushes the newest trust documents.
    await rig.hub.accept(rig.hub.signers.delegation())
    await rig.hub.accept(rig.hub.signers.config(3))
    await send(edge, "after")
    await until(lambda: edge.wanted.config is not None and edge.wanted.config[1].version == 3)
