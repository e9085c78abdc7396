"""The real edge daemon and the real gateway, each on a disk of its own, with traffic between them, and cuts of either.

What counts is what somebody outside was told before the cut: an event or a record that the truck's local API took, a
bundle whose activation was logged. In the end, with the power on, all of it must be at the gateway, once, and no nonce
may have protected two messages. Pauses between tries are shortened; packs are made in a thread of the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import structlog

import edge.bundles
import edge.daemon
import edge.downlink
import edge.uplink
import gateway.daemon
import gateway.packs
from edge.config import load_config as load_edge_config
from edge.installer import Installer
from edge.joining import join
from gateway.apicalls import ApiError
from gateway.client import Client
from gateway.config import load_config as load_gateway_config
from gateway.daemon import initialise
from gateway.demo.people import GROUP, People
from gateway.demo.server import choose_ports
from protocol.documents import LinkConfig
from protocol.joincode import read_join_code
from tests.powercut.cuts import Tally, disk_of
from tests.powercut.disk import Disk
from tests.powercut.nursery import Life, Nursery, Tell
from tests.powercut.tap import Tap

TRUCK = "ke-arrow"
CUTS_A_FLEET = 20
_READY_S = 60.0
_DRAIN_S = 120.0
_LIFE_S_MAX = 0.8
_TOLD = frozenset({"bundle.activated", "config.applied"})
_EDGE_TOML = """\
data = "data"
state_mb_max = 64
content_mb_max = 64
batch_age_s = 1
patience_s = 0
retry_s_max = 1
log_level = "{level}"
collector = []

[classroom]
listen = "127.0.0.1:0"

[[link]]
name = "lte"
gateways = ["{gateway}"]
price_per_mb = 0.01
"""


def run_gateway(tell: Tell, config: str) -> None:
    """Serve as `digitruck-gateway serve` does."""
    path = Path(config)
    settings = load_gateway_config(path)
    _log_to(tell)
    gateway.packs.Packs._new_workers = lambda packs: ThreadPoolExecutor(1)  # type: ignore[assignment,return-value]

    async def serve() -> None:
        running = gateway.daemon.Gateway(settings, path.parent)
        await running.start()
        tell("ready", running.coap_address)
        await asyncio.Event().wait()

    asyncio.run(serve())


def run_edge(tell: Tell, config: str) -> None:
    """Run as `digitruck-edge run` does."""
    path = Path(config)
    settings = load_edge_config(path)
    _log_to(tell)
    edge.bundles._RETRY_FIRST_S = edge.downlink._RETRY_FIRST_S = 0.2

    async def work() -> None:
        truck = edge.daemon.Edge(settings, path.parent / settings.data)
        await truck.start()
        tell("ready", truck.classroom.address)
        await truck.run()

    asyncio.run(work())


def run_join(tell: Tell, config: str, code: str) -> None:
    """Join as `digitruck-edge join` does."""
    path = Path(config)
    settings = load_edge_config(path)
    _log_to(tell)
    asyncio.run(join(read_join_code(code), settings, path.parent / settings.data))
    tell("joined")


def _log_to(tell: Tell) -> None:
    def keep(_: Any, __: str, fields: dict[str, Any]) -> Any:
        if fields.get("event") in _TOLD:
            tell("log", {name: str(value) for name, value in fields.items()})
        elif os.environ.get("POWERCUT_LOG"):
            with open(os.environ["POWERCUT_LOG"], "a") as log:
                print(os.getpid(), time.monotonic(), fields, file=log)
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.format_exc_info, keep])


@dataclass
class Promises:
    """What was told to somebody outside."""

    events: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    edition: int = 0
    number: int = 0

    @property
    def count(self) -> int:
        return len(self.events) + len(self.rows)

    def next(self) -> int:
        self.number += 1
        return self.number


class Fleet:
    """One gateway and one truck on two disks."""

    def __init__(self, nursery: Nursery, truck_disk: Disk, gateway_disk: Disk, chance: random.Random) -> None:
        self._nursery = nursery
        self.disks = {"truck": truck_disk, "gateway": gateway_disk}
        self.lives: dict[str, Life] = {}
        self.promises = Promises()
        self.wrong: list[str] = []
        self._chance = chance
        self._ports = choose_ports()
        self._edition = self._config = 0
        self._classroom = ""
        self._offered_edition = 0

    async def make(self) -> None:
        """Make a gateway with its people, and a truck that has joined."""
        coap, http = f"127.0.0.1:{self._ports.coap}", f"127.0.0.1:{self._ports.http}"
        folder = self.disks["gateway"].root / "gateway"
        self._gateway_toml, token = await initialise(folder, coap=coap, http=http)
        self.client = Client(f"http://{http}", token)
        await self.client.__aenter__()
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self.tap = Tap(("127.0.0.1", self._ports.coap))
        address = await self.tap.open()
        self._edge_toml = self.disks["truck"].root / "edge.toml"
        self._edge_toml.write_text(_EDGE_TOML.format(gateway=address, level="info"))
        self._people = People(self.disks["gateway"].root.parent / "people")
        await self.start("gateway")
        await self._people.found_trust(self.client)
        code = await self.client.enrol(TRUCK, group=GROUP)
        await self._ended_well(self._nursery.start(f"{__name__}:run_join", str(self._edge_toml), code.code))
        os.sync()

    async def _ended_well(self, life: Life) -> None:
        words = await _first(life, "joined")
        if words is None:
            raise AssertionError("the truck did not join")
        life.kill()

    async def close(self) -> None:
        """End everything."""
        for life in self.lives.values():
            life.kill()
        self.tap.close()
        await self.http.close()
        await self.client.__aexit__(None, None, None)

    async def start(self, who: str) -> None:
        """Start one side and wait until it answers."""
        config = self._gateway_toml if who == "gateway" else self._edge_toml
        function = "run_gateway" if who == "gateway" else "run_edge"
        life = self.lives[who] = self._nursery.start(f"{__name__}:{function}", str(config))
        words = await _first(life, "ready", self._heard)
        if words is None:
            raise AssertionError(f"the {who} did not come up: {self.wrong}")
        if who == "truck":
            self._classroom = "http://{}:{}".format(*words[1])

    def _heard(self, words: list[Any]) -> None:
        if words[0] == "raised":
            self.wrong.append(f"a daemon ended by itself: {words[1:]}")
        elif words[0] == "log" and words[1]["event"] == "bundle.activated":
            self.promises.edition = int(words[1]["label"])

    async def live(self, seconds: float) -> None:
        """Keep both sides busy."""
        async with asyncio.timeout(seconds + 30):
            work = [asyncio.create_task(each) for each in (self._post_events(), self._post_rows(), self._publish())]
            await asyncio.sleep(seconds)
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        self._listen()

    def _listen(self) -> None:
        for life in self.lives.values():
            for words in life.read():
                self._heard(words)

    async def _post_events(self) -> None:
        while True:
            number = self.promises.next()
            if await self._post("events", {"name": "tick", "precedence": "priority", "values": {"n": number}}):
                self.promises.events.append(number)
            await asyncio.sleep(self._chance.uniform(0, 0.03))

    async def _post_rows(self) -> None:
        while True:
            number = self.promises.next()
            if await self._post("records", {"values": {"n": number}}):
                self.promises.rows.append(number)
            await asyncio.sleep(self._chance.uniform(0, 0.03))

    async def _post(self, what: str, body: dict[str, Any]) -> bool:
        try:
            async with self.http.post(f"{self._classroom}/v1/{what}", json=body) as response:
                await response.read()
                return response.status in (201, 204)
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _publish(self) -> None:
        """Put a new edition or a new configuration, unless the last one is still on its way."""
        if self._offered_edition > self.promises.edition:
            return
        self._edition += 1
        folder = self.disks["gateway"].root.parent / f"edition-{self._edition}"
        folder.mkdir()
        shared = random.Random(1).randbytes(6_000)
        (folder / "shared.bin").write_bytes(shared)
        (folder / "index.html").write_text(f"edition {self._edition}" * 100)
        (folder / "own.bin").write_bytes(self._chance.randbytes(5_000))
        label = str(self._edition)
        # Shielded: a person's command goes on though this life ends; it fails only with the gateway.
        work = asyncio.create_task(self._roll_out(folder, label))
        with contextlib.suppress(ApiError, aiohttp.ClientError, OSError):
            await asyncio.shield(work)

    async def _roll_out(self, folder: Path, label: str) -> None:
        version = int(label)
        with contextlib.suppress(Exception):
            pushed = await self._people.publish(
                self.client, folder, name="lessons", label=label, version=version, title="Lessons"
            )
            await self._people.roll_out(self.client, bundle="lessons", manifest=pushed.digest, version=version)
            self._offered_edition = version
            links = [LinkConfig("lte", None)]
            await self._people.configure(self.client, version=version, batch_age_s=1, collectors={}, links=links)

    async def cut(self, victims: Sequence[str]) -> None:
        """Cut the power of one or both, bring it back, look at the disks, start again."""
        for who in victims:
            # All that was told until here was read; what is told from here on does not count.
            self._listen()
            self.disks[who].cut()
        for who in victims:
            self.lives[who].kill()
            self.disks[who].remount()
        if "truck" in victims:
            self._check_content()
        if "gateway" in victims:
            self._check_database()
        for who in ("gateway", "truck"):
            if who in victims:
                await self.start(who)

    def _check_content(self) -> None:
        installer = Installer(self.disks["truck"].root / "data" / "content", bytes_max=64 << 20)
        active = installer.active("lessons") if installer.root.exists() else None
        if active is None:
            if self.promises.edition:
                self.wrong.append(f"edition {self.promises.edition} was active, now none is")
            return
        if int(active.manifest.label) < self.promises.edition:
            self.wrong.append(f"edition {self.promises.edition} was active, now {active.manifest.label} is")
        self.promises.edition = int(active.manifest.label)
        damaged = [path for path in installer.scrub() if path.split("/")[2] == active.path.name]
        self.wrong += [f"{path} of the active bundle is not what was signed" for path in damaged]

    def _check_database(self) -> None:
        path = self.disks["gateway"].root / "gateway" / "fleet.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found = [line for (line,) in connection.execute("PRAGMA quick_check(5)") if line != "ok"]
        self.wrong += [f"the gateway's database: {line}" for line in found]

    async def settle(self) -> None:
        """With the power on, wait until all that was promised is at the gateway, and compare."""
        end = time.monotonic() + _DRAIN_S
        while True:
            missing = await self._missing()
            self._listen()
            if not missing or time.monotonic() > end:
                break
            await asyncio.sleep(0.3)
        self.wrong += missing
        coverage = await self.client.coverage(TRUCK)
        self.wrong += [f"sequences {each.missing} never came" for each in coverage.epochs if each.missing]
        if coverage.rejected:
            self.wrong.append(f"{coverage.rejected} batches were rejected")
        if len(coverage.epochs) != 1:
            self.wrong.append(f"one truck's database has {len(coverage.epochs)} epochs")
        self.wrong += self.tap.watch.doubled

    async def _missing(self) -> list[str]:
        events = Counter(each.values["n"] for each in await self.client.events(TRUCK) if each.name == "tick")
        rows = Counter(await self._rows())
        wrong = []
        for name, told, found in (("event", self.promises.events, events), ("row", self.promises.rows, rows)):
            wrong += [f"{name} {number} was acknowledged and is gone" for number in told if not found[number]]
            wrong += [f"{name} {number} is there {count} times" for number, count in found.items() if count > 1]
        if self._offered_edition > self.promises.edition:
            wrong.append(f"edition {self._offered_edition} is not active, {self.promises.edition} is")
        return wrong

    async def _rows(self) -> list[int]:
        found: list[int] = []
        after: str | None = None
        while True:
            page = await self.client.samples(TRUCK, channels=["n"], since_ms=0, after=after)
            found += [int(value) for series in page.series for value in series.v]
            after = page.next
            if after is None:
                return found


async def _first(life: Life, word: str, otherwise: Any = None) -> list[Any] | None:
    """Wait for the line that begins with a word; return it, None if the life ends or stays silent."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        found = None
        for words in life.read():
            if words[0] == word:
                found = words
            elif otherwise is not None:
                otherwise(words)
            elif words[0] == "raised":
                raise AssertionError(str(words))
        if found is not None:
            return found
        if life.ended:
            return None
        await asyncio.sleep(0.005)
    return None


def cut_daemons(nursery: Nursery, kinds: Sequence[str], cuts: int, seed: int) -> Tally:
    """Cut the power of whole daemons `cuts` times, of a fresh fleet now and then."""
    tally, chance = Tally(), random.Random(seed)
    begun = time.monotonic()
    turn = 0
    while tally.cuts < cuts and not tally.wrong:
        truck_kind, gateway_kind = kinds[turn % len(kinds)], kinds[(turn // 2) % len(kinds)]
        turn += 1
        with disk_of(truck_kind) as truck_disk, disk_of(gateway_kind) as gateway_disk:
            fleet = Fleet(nursery, truck_disk, gateway_disk, chance)
            count = min(CUTS_A_FLEET, cuts - tally.cuts)
            asyncio.run(_cut_fleet(fleet, count, chance))
            tally.cuts += count
            tally.told += fleet.promises.count
            tally.by_disk[truck_kind] = tally.by_disk.get(truck_kind, 0) + count
            tally.wrong += [f"seed {seed}, by cut {tally.cuts}, {truck_kind}: {line}" for line in fleet.wrong]
    tally.seconds = time.monotonic() - begun
    return tally


async def _cut_fleet(fleet: Fleet, cuts: int, chance: random.Random) -> None:
    try:
        await fleet.make()
        await fleet.start("truck")
        for _ in range(cuts):
            await fleet.live(chance.uniform(0.02, _LIFE_S_MAX))
            await fleet.cut(chance.choice((["truck"], ["truck"], ["gateway"], ["truck", "gateway"])))
        await fleet.settle()
        if not (fleet.promises.events and fleet.promises.rows):
            fleet.wrong.append("void: nothing was promised")
    finally:
        await fleet.close()
