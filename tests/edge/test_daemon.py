"""The daemon as a whole: starts whatever it finds, ends cleanly, tells its service manager, and keeps its clock."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from edge.config import ClassroomSettings, EdgeConfig, LinkSettings
from edge.daemon import Edge
from edge.identity import NotEnrolledError
from edge.recorder import Recorder
from protocol.errors import LocalError
from protocol.numbers import DocumentKind, Precedence
from store.database import open_database
from store.documents import Documents
from store.errors import StoreFailedError, StoreInUseError
from store.schema import STATE
from tests.edge.rig import Rig, until


async def test_a_truck_that_has_not_joined_says_what_to_do(tmp_path: Path) -> None:
    edge = Edge(EdgeConfig(classroom=ClassroomSettings(listen="127.0.0.1:0")), tmp_path)
    with pytest.raises(NotEnrolledError, match="digitruck-edge join CODE"):
        await edge.start()


async def test_a_root_that_is_gone_says_what_to_do_and_lets_go_of_everything(rig: Rig) -> None:
    data = await rig.join()
    state = open_database(data / "state.db", schema=STATE, share_bytes=16 << 20)
    Documents(state).forget_versions([DocumentKind.ROOT])
    state.close()
    with pytest.raises(LocalError, match="join` with a new code"):
        await Edge(rig.config(), data).start()
    open_database(data / "state.db", schema=STATE, share_bytes=16 << 20).close()


async def test_a_second_daemon_is_refused(rig: Rig) -> None:
    data = await rig.join()
    edge = await rig.start(data)
    with pytest.raises(StoreInUseError):
        await Edge(rig.config(), data).start()
    assert rig.failed(edge) is None


async def test_a_port_that_is_taken_leaves_nothing_open(rig: Rig) -> None:
    data = await rig.join()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        config = EdgeConfig(classroom=ClassroomSettings(listen=listen), collector=(), state_mb_max=16)
        with pytest.raises(OSError, match="in use"):
            await Edge(config, data).start()
    edge = await rig.start(data)  # the databases were let go of
    assert edge.classroom.address[0] == "127.0.0.1"


async def test_the_service_manager_hears_of_the_start_the_life_and_the_end(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.daemon._WATCHDOG_S", 0.05)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        edge = await rig.start(await rig.join())
        await asyncio.sleep(0.4)
        await rig.stop(edge)
        heard = []
        while True:
            try:
                heard.append(channel.recv(64))
            except BlockingIOError:
                break
    assert heard[0] == b"READY=1"
    assert heard.count(b"WATCHDOG=1") >= 2
    assert heard[-1] == b"STOPPING=1"


async def test_a_database_that_takes_nothing_ends_the_daemon_and_the_pings(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.daemon._WATCHDOG_S", 0.05)
    edge = await rig.start(await rig.join())
    await until(lambda: edge.uplink.links["lte"].last_contact is not None)
    edge.writer._failed = StoreFailedError("the disk is gone")
    await until(lambda: rig.edges[edge].done())
    assert "StoreFailedError" in repr(rig.failed(edge))


async def clock_saved(edge: Edge) -> None:
    async def saved() -> bool:
        return await edge.writer.run(lambda: edge._settings.get_int("clock.boot")) > 0

    await until(saved)


async def test_the_clock_outlives_the_daemon_within_a_boot_and_only_its_floor_a_reboot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = await rig.join()
    edge = await rig.start(data)
    await clock_saved(edge)
    await rig.stop(edge)
    edge = await rig.start(data, run=False)
    assert edge.clock.wall_s() == pytest.approx(rig.hub.now_ms / 1000, abs=60)
    await rig.stop(edge)
    monkeypatch.setattr("edge.clock.kernel_boot_id", lambda: 99)
    edge = await rig.start(data, run=False)
    assert edge.clock.wall_s() is None
    assert edge.clock.floor_s == rig.hub.now_ms // 1000
    assert edge.budgets["lte"].period() is None


async def test_a_clock_learnt_late_is_told_so_that_earlier_rows_have_a_time(rig: Rig) -> None:
    data = await rig.join()
    wire = await rig.wire()
    wire.cut = True
    edge = await rig.start(data, LinkSettings(name="lte", gateways=(wire.address,)))
    await edge.recorder.record((("water.level", 0.83),), None)
    await asyncio.sleep(0.1)
    wire.cut = False
    await until(lambda: edge.clock.wall_s() is not None)
    await edge.recorder.record((("water.level", 0.84),), None)
    await edge.recorder.close_all()

    async def told() -> bool:
        return "clock" in await rig.hub.names()

    await until(told)

    async def batches() -> list[object]:
        return list(await rig.hub.gateway.fleet.batches("ke-arrow", 0, 2**60))  # type: ignore[union-attr]

    async def both() -> bool:
        return len(await batches()) == 2

    await until(both)
    for each in await batches():
        assert each.first_ms is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong_ms", [0, 10 * 365 * 86_400_000])
async def test_a_gateway_whose_clock_is_wrong_opens_no_period_and_moves_no_floor(rig: Rig, wrong_ms: int) -> None:
    data = await rig.join()
    edge = await rig.start(data)
    await clock_saved(edge)
    period, floor_s = edge.budgets["lte"].period(), edge.clock.floor_s
    await rig.stop(edge)
    right_ms = rig.hub.now_ms
    rig.hub.now_ms = wrong_ms if not wrong_ms else right_ms + wrong_ms
    edge = await rig.start(data)
    await until(lambda: edge.uplink.links["lte"].last_contact is not None)
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: not edge.uplink._sends)
    assert edge.budgets["lte"].period() == period
    assert edge.clock.floor_s <= floor_s + 60
    assert edge.ledger.period == period


async def test_collectors_rows_arrive(rig: Rig) -> None:
    data = await rig.join()
    edge = await rig.start(data, collector=({"kind": "host", "name": "host", "period_s": 1},))
    await until(lambda: edge.health()[0].rows > 0)
    await edge.recorder.close_all()

    async def batches() -> bool:
        return bool(await rig.hub.gateway.fleet.batches("ke-arrow", 0, 2**60))  # type: ignore[union-attr]

    await until(batches)


async def test_a_configuration_restarts_collectors_and_sets_budgets(rig: Rig) -> None:
    data = await rig.join()
    edge = await rig.start(data, collector=({"kind": "host", "name": "host", "period_s": 60},))
    first = edge.supervisor
    await rig.hub.accept(rig.hub.signers.config(1, batch_age_s=77))
    await edge.recorder.event("nudge", Precedence.PRIORITY)
    await until(lambda: edge.recorder.batch_age_s == 77 and edge.supervisor is not first)
    assert edge.ledger.cap_bytes("lte") is None  # the configuration of these tests budgets the satellite
    assert rig.failed(edge) is None


async def test_a_lost_collector_is_an_event_for_the_gateway(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.collectors.run.LOST_S_MIN", 0.1)
    told: list[tuple[str, dict[str, object]]] = []
    real = Recorder.event

    async def event(recorder: Recorder, name: str, precedence: Precedence, values: Any = (), **more: Any) -> int:
        told.append((name, dict(values)))
        return await real(recorder, name, precedence, values, **more)

    monkeypatch.setattr(Recorder, "event", event)
    gone = {"kind": "nut", "name": "ups", "port": 1, "period_s": 0.05}
    await rig.start(await rig.join(), collector=(gone,))
    await until(lambda: any(name == "collector.lost" and values["collector"] == "ups" for name, values in told))
