"""A daemon that hangs, in whatever way, is killed by its service manager and started again; nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from edge.daemon import Edge
from gateway.config import load_config
from gateway.daemon import Gateway, initialise
from gateway.demo.server import choose_ports
from protocol.numbers import Precedence
from store.notify import notify
from tests.faults.scenes import be_quiet, edge_config, join_by_hand, open_state
from tests.faults.supervisor import Supervisor
from tests.powercut.nursery import Nursery, Tell

_WATCHDOG_S = 0.8
_SECONDS = 60.0


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(("tests.faults.test_watchdog",))
    yield nursery
    nursery.close()


def run_truck(tell: Tell, environment: Mapping[str, str], folder: str, hang: str) -> None:
    """Run a truck's daemon; the first one queues an event, and then hangs in the way that `hang` names."""
    os.environ.update(environment)
    be_quiet()
    first = not (Path(folder) / "hung").exists()

    async def work() -> None:
        truck = Edge(edge_config(), Path(folder))
        await truck.start()
        running = asyncio.create_task(truck.run())
        if first:
            await truck.recorder.event("before", Precedence.PRIORITY)
            (Path(folder) / "hung").touch()
            tell("hangs")
            _hang(truck, hang)
        await running

    asyncio.run(work())


def _hang(truck: Edge, hang: str) -> None:
    def sleep() -> None:
        time.sleep(10_000)

    def never_ends() -> None:
        with truck.attempts.of(b"p" * 32, within_s=0.1):
            sleep()

    match hang:
        case "the loop":
            asyncio.get_running_loop().call_soon(sleep)
        case "the writer":
            asyncio.get_running_loop().create_task(truck.writer.run(sleep))
        case "a pack":
            threading.Thread(target=never_ends, daemon=True).start()


def run_gateway(tell: Tell, environment: Mapping[str, str], config: str) -> None:
    """Serve as `digitruck-gateway serve` does; the loop of the first one hangs."""
    os.environ.update(environment)
    be_quiet()
    hung = Path(config).with_name("hung")

    async def work() -> None:
        running = Gateway(load_config(Path(config)), Path(config).parent)
        await running.start()
        notify("READY=1")
        if not hung.exists():
            hung.touch()
            asyncio.get_running_loop().call_later(0.2, time.sleep, 10_000)
        await asyncio.Event().wait()

    asyncio.run(work())


def test_a_gateway_that_hangs_is_killed_and_started_again(nursery: Nursery, tmp_path: Path) -> None:
    ports = choose_ports()
    home = tmp_path / "gateway"
    config, _ = asyncio.run(initialise(home, coap=f"127.0.0.1:{ports.coap}", http=f"127.0.0.1:{ports.http}"))
    supervisor = Supervisor(
        nursery, tmp_path, "tests.faults.test_watchdog:run_gateway", str(config), watchdog_s=_WATCHDOG_S
    )
    try:
        supervisor.run(lambda: supervisor.aborted > 0, within_s=_SECONDS)
        readies, pings = supervisor.readies, supervisor.pings
        supervisor.run(lambda: supervisor.readies > readies and supervisor.pings > pings + 1, within_s=_SECONDS)
    finally:
        supervisor.close()


@pytest.mark.parametrize("hang", ["the loop", "the writer", "a pack"])
def test_a_daemon_that_hangs_is_killed_and_started_again(hang: str, nursery: Nursery, tmp_path: Path) -> None:
    data = tmp_path / "data"
    join_by_hand(data)
    supervisor = Supervisor(
        nursery, tmp_path, "tests.faults.test_watchdog:run_truck", str(data), hang, watchdog_s=_WATCHDOG_S
    )
    try:
        supervisor.run(lambda: ["hangs"] in supervisor.told, within_s=_SECONDS)
        supervisor.run(lambda: supervisor.aborted > 0, within_s=_SECONDS)
        readies = supervisor.readies
        supervisor.run(lambda: supervisor.readies > readies, within_s=_SECONDS)
        pings = supervisor.pings
        supervisor.run(lambda: supervisor.pings > pings + 1, within_s=_SECONDS)
    finally:
        supervisor.close()
    with contextlib.closing(open_state(data)) as database:
        assert database.value("SELECT count(*) FROM parcels WHERE kind = 2 AND state = 1") >= 1
