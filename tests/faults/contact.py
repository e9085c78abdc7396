"""A contact that may not be broken by one failing call: a truck's daemon on a disk that fails, a gateway that is well.

The truck keeps its folder from run to run, as a truck does; the gateway is a process of its own. Whatever the fault,
the next daemon without one brings every event that was taken to the gateway, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

from edge.daemon import Edge
from edge.joining import join
from gateway.client import Client
from gateway.daemon import initialise
from gateway.demo.people import GROUP, People
from gateway.demo.server import choose_ports
from protocol.joincode import read_join_code
from protocol.numbers import Precedence
from store.fleet.sequences import ranges_from_text
from tests.faults.inject import stage
from tests.faults.scenes import TRUCK, Scene, be_quiet, edge_config
from tests.powercut.nursery import Life, Nursery, Tell

EVENTS = 3
_DRAIN_S = 40.0
_WAITING = "SELECT count(*) FROM parcels WHERE state = 1"
_CONTACT_S = 15.0


def play_contact(tell: Tell, folder: str, gateway: str, first: int) -> None:
    """Start the daemon, queue events, and work until they are acknowledged."""
    be_quiet()
    stage(tell)
    asyncio.run(_contact(tell, Path(folder), gateway, range(first, first + EVENTS)))


def heal(tell: Tell, folder: str, gateway: str) -> None:
    """Work without a fault until nothing waits."""
    be_quiet()
    asyncio.run(_contact(tell, Path(folder), gateway, ()))


async def _contact(tell: Tell, folder: Path, gateway: str, numbers: range | tuple[int, ...]) -> None:
    truck = Edge(edge_config((gateway,)), folder)
    await truck.start()
    work = asyncio.create_task(truck.run())
    try:
        for number in numbers:
            await truck.recorder.event("tick", Precedence.PRIORITY, (("n", number),))
            tell("event", number)
        end = time.monotonic() + _CONTACT_S
        while time.monotonic() < end and not work.done():
            if not await truck.writer.run(lambda: truck.state.value(_WAITING)):
                break
            await asyncio.sleep(0.02)
    finally:
        work.cancel()
        ended = (await asyncio.gather(work, return_exceptions=True))[0]
        await truck.close()
    if ended is not None and not isinstance(ended, asyncio.CancelledError):
        raise ended
    tell("done")


class ContactScene(Scene):
    """Every event that was taken comes to the gateway, once, and no sequence is missing there."""

    function = f"{__name__}:play_contact"

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._gateway: Life | None = None
        self._address = ""
        self._number = 0
        self._taken: list[int] = []

    def prepare(self, folder: Path) -> None:
        ports = choose_ports()
        self._address, http = f"127.0.0.1:{ports.coap}", f"127.0.0.1:{ports.http}"
        self._home = folder.with_name("gateway")
        config, token = asyncio.run(initialise(self._home, coap=self._address, http=http))
        self._gateway = self._nursery.start("tests.powercut.daemons:run_gateway", str(config))
        assert self._gateway.wait_for_words(60), "the gateway does not start"

        async def enrol() -> None:
            async with Client(f"http://{http}", token) as client:
                await People(folder.with_name("people")).found_trust(client)
                code = await client.enrol(TRUCK, group=GROUP)
            await join(read_join_code(code.code), edge_config((self._address,)), folder / "data")

        asyncio.run(enrol())

    def arguments(self, template: Path) -> list[Any]:
        first, self._number = self._number, self._number + EVENTS
        return [str(template / "data"), self._address, first]

    def check(self, folder: Path, told: list[list[Any]]) -> list[str]:
        self._taken += [words[1] for words in told if words[0] == "event"]
        life = self._nursery.start(f"{__name__}:heal", str(folder), self._address)
        life.wait(_DRAIN_S)
        said = life.kill()
        wrong = [] if ["done"] in said else [f"the next daemon fails: {said}"]
        with contextlib.closing(sqlite3.connect(self._home / "fleet.db")) as connection:
            rows = connection.execute("SELECT name, values_json FROM events").fetchall()
            beyond = connection.execute("SELECT epoch, ranges FROM epochs").fetchall()
        found = Counter(json.loads(values)["n"] for name, values in rows if name == "tick")
        wrong += [f"event {number} was taken and is gone" for number in self._taken if not found[number]]
        wrong += [f"event {number} is there {count} times" for number, count in found.items() if count > 1]
        # Told once is enough: the runs that follow look at their own.
        self._taken.clear()
        return wrong + [f"epoch {epoch} has a gap before {text}" for epoch, text in beyond if ranges_from_text(text)]

    def close(self) -> None:
        if self._gateway is not None:
            self._gateway.kill()
