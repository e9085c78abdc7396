"""What happens in the demo, in order, and what is noted of it on the way.

The people's part (trust, codes, configuration, bundles) goes through the gateway's API; the trucks' and the gateway's
part happens in their own processes. The gateway is killed in the middle, when there is much to lose.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.client import Client
from gateway.demo.children import start_child
from gateway.demo.lessons import write_lessons
from gateway.demo.people import GROUP, People
from gateway.demo.server import DemoGateway
from gateway.demo.trucks import LTE_PRICE_PER_MB, SAT_PRICE_PER_MB, DemoTruck, find_recordings, prepare_truck
from gateway.fleetfile import FleetTruck
from protocol.documents import LinkConfig

BUNDLE = "lessons"
EDITIONS = ("2026.1", "2026.2")
CONTENT_BYTES = 1_010_000
LINKS = (
    LinkConfig("lte", 500_000_000, 1_000_000, round(LTE_PRICE_PER_MB * 1000), "USD"),
    LinkConfig("sat", 3_000_000, 100_000, round(SAT_PRICE_PER_MB * 1000), "USD"),
)
_CONFIG_VERSION = 1
_DOWN_S = 2.0
_STEP_S = 60.0
_OUTAGE_S = 8.0


class Story:
    """The steps of the demo and the notes taken; `say` prints an event."""

    def __init__(
        self,
        fleet: tuple[FleetTruck, ...],
        gateway: DemoGateway,
        folder: Path,
        environment: Mapping[str, str],
        *,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.gateway = gateway
        self.trucks: list[DemoTruck] = []
        self.client: Client | None = None
        self.told = asyncio.Event()
        self.arrived: dict[str, int] = {}
        self.arrived_at_restart: dict[str, int] = {}
        self.activated: dict[str, dict[str, float]] = {}
        self.carried_before: dict[str, dict[str, int]] = {}
        self.first_sample_s: float | None = None
        self.killed_s: float | None = None
        self.back_s: float | None = None
        self.configured: str | None = None
        self.troubles: list[str] = []
        self.fleet = {each.name: each for each in fleet}
        self._folder = folder
        self._environment = environment
        self._seed = seed
        self._say = say
        self._began = time.monotonic()

    @property
    def passed_s(self) -> float:
        """Seconds since the command was given."""
        return time.monotonic() - self._began

    async def tell(self) -> None:
        """Go through all of it, then wait to be cancelled; raise what went wrong."""
        warming = asyncio.create_task(self._warm_up())
        await self.gateway.make()
        await self.gateway.start()
        self._say(f"gateway serves {self.gateway.url} and coap://{'{}:{}'.format(*self.gateway.coap)}")
        await warming
        async with Client(self.gateway.url, self.gateway.token) as client:
            self.client = client
            try:
                await self._with(client)
                self.told.set()
                await asyncio.Event().wait()  # those who watch go on asking until all is over
            finally:
                self.client = None

    async def _with(self, client: Client) -> None:
        people = People(self._folder / "people")
        root = await people.found_trust(client)
        self._say(f"trust: root {root[:12]} signed by two of three root keys; operator and publisher delegated")
        writing = [asyncio.create_task(self._write(edition)) for edition in (1, 2)]
        async with asyncio.TaskGroup() as group:
            for number, described in enumerate(self.fleet.values()):
                group.create_task(self._set_out(client, described, number))
        await asyncio.gather(*writing)
        await self._until(lambda: all(self.arrived.get(each.name) for each in self.trucks))
        await people.configure(
            client,
            version=_CONFIG_VERSION,
            batch_age_s=3,
            collectors={"host": 1, "solar": 1},
            links=LINKS,
        )
        self.configured = str(_CONFIG_VERSION)
        self._say(f"configuration {_CONFIG_VERSION} signed: budgets and prices for each link, batches of 3 s")
        await self._publish(client, people, edition=1)
        await self._until(lambda: self._all_have(EDITIONS[0]))
        await self._kill_gateway()
        tunnel = asyncio.create_task(self._drive_through_tunnel(self.trucks[0]))
        await self._publish(client, people, edition=2)
        await tunnel
        await self._until(lambda: self._all_have(EDITIONS[1]))

    async def _warm_up(self) -> None:
        # Without cached byte code the trucks would all compile the same modules at the same time.
        child = await start_child(
            "warm-up",
            "edge",
            "--version",
            environment=self._environment,
            log=self._folder / "warm-up.log",
            on_log=lambda event, fields: None,
        )
        try:
            await child.wait()
        finally:
            await child.end()

    async def _set_out(self, client: Client, described: FleetTruck, number: int) -> None:
        recordings = find_recordings()
        truck = await prepare_truck(
            described.name,
            self._folder / described.name,
            self.gateway.coap,
            recording=recordings[number % len(recordings)] if recordings else None,
            seed=self._seed + number,
            place=(described.latitude_deg, described.longitude_deg),
        )
        self.trucks.append(truck)
        self.trucks.sort(key=lambda each: list(self.fleet).index(each.name))
        code = await client.enrol(truck.name, group=GROUP)
        self._say(f"{truck.name} ({described.place}, {described.country}): one-time code {code.code[:16]}...")
        await truck.join(code.code, self._environment, self._noting(truck.name))
        self.carried_before[truck.name] = carried(truck)
        await truck.run(self._environment, self._noting(truck.name))
        self._say(f"{truck.name} joined and runs; its classroom page is {truck.classroom}")

    async def _write(self, edition: int) -> None:
        folder = self._folder / "content" / EDITIONS[edition - 1]
        await asyncio.to_thread(write_lessons, folder, edition=edition, bytes_min=CONTENT_BYTES, seed=self._seed)

    async def _publish(self, client: Client, people: People, *, edition: int) -> None:
        label = EDITIONS[edition - 1]
        folder = self._folder / "content" / label
        pushed = await people.publish(
            client, folder, name=BUNDLE, label=label, version=edition, title="Lessons for the truck"
        )
        self._say(
            f"{BUNDLE} {label} published: {pushed.size:,} bytes, {pushed.sent_bytes:,} of them new to the gateway"
        )
        await people.roll_out(client, bundle=BUNDLE, manifest=pushed.digest, version=edition)
        self._say(f"{BUNDLE} {label} rolled out to group {GROUP}")

    async def _kill_gateway(self) -> None:
        self.killed_s = self.passed_s
        await self.gateway.kill()
        self._say("gateway KILLED (SIGKILL): trucks keep recording and queueing")
        await asyncio.sleep(_DOWN_S)
        queued = sum(each.says.queued for each in self.trucks if each.says is not None)
        self.arrived_at_restart = dict(self.arrived)
        await self.gateway.start()
        self.back_s = self.passed_s
        self._say(f"gateway started again on the same data; {queued} parcels had queued up meanwhile")

    async def _drive_through_tunnel(self, truck: DemoTruck) -> None:
        truck.relays["lte"].set_outage(True)
        self._say(f"{truck.name}: lte is cut for {_OUTAGE_S:.0f} s; telemetry goes over sat, content waits")
        try:
            await asyncio.sleep(_OUTAGE_S)
        finally:
            truck.relays["lte"].set_outage(False)

    def _all_have(self, label: str) -> bool:
        return len(self.activated.get(label, {})) == len(self.fleet)

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait for something, but not for ever: the story goes on, and the summary says what was not reached."""
        end = time.monotonic() + _STEP_S
        while not reached() and time.monotonic() < end:  # noqa: ASYNC110 - what is waited for lies in other processes
            await asyncio.sleep(0.1)

    def _noting(self, truck: str) -> Callable[[str, Mapping[str, Any]], None]:
        def note(event: str, fields: Mapping[str, Any]) -> None:
            told = self._told(truck, event, fields)
            if told is not None:
                self._say(f"{truck}: {told}")

        return note

    def _told(self, truck: str, event: str, fields: Mapping[str, Any]) -> str | None:
        match event:
            case "bundle.activated":
                self.activated.setdefault(str(fields["label"]), {})[truck] = self.passed_s
                return f"{fields['bundle']} {fields['label']} verified and active in the classroom"
            case "config.applied":
                return f"configuration {fields['version']} applied"
            case "link.down":
                return f"{fields['link']} does not answer"
            case "link.up":
                return f"{fields['link']} answers again"
            case "session.started":
                return f"keys agreed over {fields['link']} (EDHOC)"
            case "bundle.rejected" | "config.rejected" | "config.rolled_back":
                self.troubles.append(f"{truck}: {event}: {fields.get('reason', '')}")
                return f"{event}: {fields.get('reason', '')}"
        return None


def carried(truck: DemoTruck) -> dict[str, int]:
    """Return the bytes (IP) that each of a truck's links has carried: all that left the truck, all that reached it."""
    return {
        name: relay.up.offered.bytes_ip + relay.down.delivered.bytes_ip + relay.down.duplicated.bytes_ip
        for name, relay in truck.relays.items()
    }
