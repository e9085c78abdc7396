"""What goes wrong in a simulated fleet, and what people change meanwhile; all of it drawn from the seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from protocol import cose
from protocol.documents import Addressee, LinkConfig
from protocol.errors import PeerError
from protocol.tariffs import BillingStep, Budget, Tariff
from tests.sim import images
from tests.sim.checks import Checks
from tests.sim.history import CheckFailed
from tests.sim.loop import owner_of_task
from tests.sim.network import LinkState, VirtualLink
from tests.sim.truck import SimTruck
from tests.sim.world import DAY_S, World

HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Troubles:
    """How often things happen, as their mean distance in days; 0: never."""

    weather: float = 0.3
    outage: float = 2.0
    move: float = 1.0
    power_cut: float = 2.0
    kill: float = 6.0
    full_disk: float = 12.0
    bit_rot: float = 40.0
    put_back: float = 60.0
    clone: float = 60.0
    gateway_crash: float = 3.0
    gateway_restart: float = 8.0
    gateway_restore: float = 15.0
    gateway_skew: float = 20.0
    config: float = 5.0
    content: float = 6.0
    rotation: float = 15.0
    root: float = 20.0
    lies: float = 8.0


STORMY = Troubles()
CALM = Troubles(**{each.name: 0.0 for each in fields(Troubles)})


class Faults:
    """Runs the troubles of a world until `stop`."""

    def __init__(self, world: World, troubles: Troubles, checks: Checks) -> None:
        self.world = world
        self.troubles = troubles
        self._checks = checks
        self._desired: dict[str, bytes] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._gateway_lock = asyncio.Lock()
        self._clones = 0
        self._sent_until_crash: int | None = None
        world.network.on_gateway_sent = self._gateway_sent

    async def start(self) -> None:
        """Begin."""
        self._desired = {name: await self.world.office.desired(name) for name in self.world.trucks}
        owner_of_task.set(None)
        for truck in self.world.trucks.values():
            for link in truck.config.link:
                virtual = self.world.network.links[(truck.machine, link.name)]
                self._repeat(self.troubles.weather, self._weather, virtual)
                self._repeat(self.troubles.outage, self._outage, virtual)
                self._repeat(self.troubles.move, self._move, virtual)
            self._repeat(self.troubles.power_cut, self._power_cut, truck)
            self._repeat(self.troubles.kill, self._kill, truck)
            self._repeat(self.troubles.full_disk, self._full_disk, truck)
            self._repeat(self.troubles.bit_rot, self._bit_rot, truck)
            self._repeat(self.troubles.put_back, self._put_back, truck)
            self._repeat(self.troubles.clone, self._clone, truck)
        self._repeat(self.troubles.gateway_crash, self._gateway_crash)
        self._repeat(self.troubles.gateway_restart, self._gateway_restart)
        self._repeat(self.troubles.gateway_restore, self._gateway_restore)
        self._repeat(self.troubles.gateway_skew, self._gateway_skew)
        self._repeat(self.troubles.config, self._config)
        self._repeat(self.troubles.content, self._content)
        self._repeat(self.troubles.rotation, self._rotation)
        self._repeat(self.troubles.root, self._root)
        self._repeat(self.troubles.lies, self._lies)

    async def stop(self) -> None:
        """End all troubles: links work, disks have room, the gateway is there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._sent_until_crash = None
        for link in self.world.network.links.values():
            link.state = LinkState()
        for truck in list(self.world.trucks.values()):
            truck.disk.full = False
            truck.disk.cut_after = None
            if truck.machine != truck.name:
                self._take_away(truck)
        office = self.world.office
        office.skew_ms = 0
        async with self._gateway_lock:
            if office.gateway is None:
                await office.start()
            for name in self._names():
                await office.tell_truth(name)
        self.world.history.note("world", "all troubles end")

    def _repeat(self, mean_days: float, happen: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        # Named: a trouble that is added to the others changes nothing of what a seed does with them.
        whose = [getattr(each, "machine", None) or f"{each.truck} {each.name}" for each in arguments]
        seed = random.Random(f"{happen.__name__} {whose} {self.world.plan.seed}")
        if mean_days > 0:
            self._tasks.append(asyncio.create_task(self._again(mean_days * DAY_S, seed, happen, *arguments)))

    async def _again(
        self, mean_s: float, seed: random.Random, happen: Callable[..., Awaitable[None]], *arguments: Any
    ) -> None:
        # What fails here is a fault of the simulation, or of what people use: it must not pass unseen.
        try:
            while True:
                await asyncio.sleep(seed.expovariate(1 / mean_s))
                await happen(seed, *arguments)
                if not self.world.plan.coarse:
                    await self._checks.now()
        except CheckFailed as failure:
            self.world.failure = self.world.failure or failure
        except Exception as error:
            self.world.fail("world", f"{happen.__name__} ended with {error!r}")

    def _names(self) -> list[str]:
        """Return the names of all trucks; a copy has that of its truck."""
        return sorted({each.name for each in self.world.trucks.values()})

    def _note(self, what: str, machine: str = "world") -> None:
        self.world.history.note(machine, what)

    # -- links ---------------------------------------------------------------------------------------------------------

    async def _weather(self, seed: random.Random, link: VirtualLink) -> None:
        slow = seed.random() < 0.2
        link.state = replace(
            link.state,
            loss=seed.choice((0.0, 0.0, 0.01, 0.05, 0.2, 0.6, 0.97)),
            burst_chance=seed.choice((0.0, 0.0, 0.02)),
            double=seed.choice((0.0, 0.0, 0.05, 0.3)),
            delay_s=seed.choice((0.02, 0.3, 0.6, 2.5)),
            jitter_s=seed.choice((0.005, 0.05, 1.0)),
            bytes_a_s=300.0 if slow else 100_000.0,
        )
        self._note(f"{link.name} is {link.state}", link.truck)

    async def _outage(self, seed: random.Random, link: VirtualLink) -> None:
        link.state = replace(link.state, alive=False)
        hours = seed.choice((0.1, 0.1, 0.5, 2, 2, 12, 24, 24, 60, 720))
        self._note(f"{link.name} is out for {hours} h", link.truck)
        await asyncio.sleep(hours * HOUR_S * seed.uniform(0.5, 1.5))
        link.state = replace(link.state, alive=True)
        self._note(f"{link.name} is back", link.truck)

    async def _move(self, seed: random.Random, link: VirtualLink) -> None:
        self.world.network.move(link)

    # -- trucks --------------------------------------------------------------------------------------------------------

    async def _power_cut(self, seed: random.Random, truck: SimTruck) -> None:
        truck.back_after_s = seed.choice((1.0, 60.0, 600.0, 8 * HOUR_S))
        for _ in range(seed.choice((1, 1, 1, 3))):
            if seed.random() < 0.2:
                truck.cut_power()
            else:
                truck.disk.cut_after = seed.choice((1, 2, seed.randint(1, 30), seed.randint(1, 300)))
            # More than one: the lights flicker.
            await asyncio.sleep(seed.expovariate(1 / 900.0))

    async def _kill(self, seed: random.Random, truck: SimTruck) -> None:
        truck.back_after_s = 10.0
        truck.kill()

    async def _full_disk(self, seed: random.Random, truck: SimTruck) -> None:
        truck.disk.full = True
        self._note("the disk is full", truck.name)
        await asyncio.sleep(seed.uniform(60.0, 3 * HOUR_S))
        truck.disk.full = False
        self._note("the disk has room", truck.name)

    async def _bit_rot(self, seed: random.Random, truck: SimTruck) -> None:
        truck.hurt()
        truck.rotted = True
        truck.cut_power()
        path = truck.disk.root / seed.choice(("state.db", "state.db", "links.db", "state.db-wal"))
        if not path.exists() or not path.stat().st_size:
            return
        data = bytearray(path.read_bytes())
        for _ in range(seed.choice((1, 3, 20))):
            data[seed.randrange(len(data))] ^= 1 << seed.randrange(8)
        path.write_bytes(data)
        self._note(f"bits of {path.name} have rotted", truck.name)

    async def _put_back(self, seed: random.Random, truck: SimTruck) -> None:
        """An image of the disk is put back: all that the truck did since is gone from it."""
        image = self._take_image(truck)
        await asyncio.sleep(seed.choice((HOUR_S, 12 * HOUR_S, 2 * DAY_S)))
        await self._until_on(truck)
        truck.cut_power()
        images.put(image, truck.disk, as_blocks=seed.random() < 0.5)
        truck.hurt()
        truck.images += 1
        self._note("an older image of the disk was put back", truck.machine)

    async def _clone(self, seed: random.Random, truck: SimTruck) -> None:
        """Another computer runs from a copy of the disk, for a while beside the first."""
        image = self._take_image(truck)
        self._clones += 1
        copy = self.world.add_truck(truck.name, machine=f"{truck.name}-copy-{self._clones}")
        copy.disk.begin()
        images.put(image, copy.disk, as_blocks=seed.random() < 0.7)
        copy.board = truck.board if seed.random() < 0.5 else seed.randbytes(16)
        copy.hurt()
        self._checks.watch(copy)
        self.world.on_cloned(truck.machine, copy.machine)
        self._note("a copy of the disk runs on another computer", truck.machine)
        copy.start()
        await asyncio.sleep(seed.choice((HOUR_S, 12 * HOUR_S, 4 * DAY_S)))
        self._take_away(copy)

    def _take_image(self, truck: SimTruck) -> images.Image:
        truck.hurt()
        self.world.truth.image_taken(truck.name, truck.schema)
        return images.take(truck.disk)

    def _take_away(self, copy: SimTruck) -> None:
        if self.world.trucks.pop(copy.machine, None) is not None:
            copy.switch_off()
            for truck in self.world.trucks.values():
                if truck.name == copy.name:
                    truck.hurt()  # what the copy took and did not deliver goes with it
            self._note("is taken away", copy.machine)

    async def _until_on(self, truck: SimTruck) -> None:
        while truck.edge is None:
            await asyncio.sleep(60.0)

    # -- the gateway ---------------------------------------------------------------------------------------------------

    def _gateway_sent(self) -> None:
        if self._sent_until_crash is not None:
            self._sent_until_crash -= 1
            if self._sent_until_crash <= 0:
                self._sent_until_crash = None
                self.world.office.cut()

    async def _gateway_crash(self, seed: random.Random) -> None:
        office = self.world.office
        if seed.random() < 0.6:
            # Right after a datagram of its has left: what it says had better be true.
            self._sent_until_crash = seed.randint(1, 8)
            async with asyncio.timeout(None):
                while self._sent_until_crash is not None:
                    await asyncio.sleep(60.0)
        async with self._gateway_lock:
            await office.crash()
            await asyncio.sleep(seed.choice((1.0, 30.0, 600.0, 6 * HOUR_S)))
            await office.start()

    async def _gateway_restart(self, seed: random.Random) -> None:
        async with self._gateway_lock:
            await self.world.office.stop()
            await asyncio.sleep(seed.choice((1.0, 300.0)))
            await self.world.office.start()

    async def _gateway_restore(self, seed: random.Random) -> None:
        async with self._gateway_lock:
            office = self.world.office
            backup = await office.backup()
        await asyncio.sleep(seed.choice((HOUR_S, 12 * HOUR_S, 2 * DAY_S)))
        async with self._gateway_lock:
            await office.restore(backup)

    async def _gateway_skew(self, seed: random.Random) -> None:
        office = self.world.office
        self.world.clocks_were_wrong = True
        office.skew_ms = round(seed.choice((-400, -30, -1, -0.01, 0.01, 1, 40, 500)) * DAY_S * 1000)
        self._note(f"the clock is {office.skew_ms / 86_400_000:.2f} days wrong", "gateway")
        await asyncio.sleep(seed.choice((600.0, 6 * HOUR_S, 2 * DAY_S)))
        office.skew_ms = 0
        self._note("the clock is right", "gateway")

    async def _lies(self, seed: random.Random) -> None:
        """A stale or stolen gateway hands out a desired state of the past, signed with its own key."""
        truck = seed.choice(self._names())
        async with self._gateway_lock:
            office = self.world.office
            kept = self._desired[truck]
            if kept == await office.desired(truck):
                return
            self._note("the gateway hands out an old desired state", truck)
            await office.lie(truck, kept)
        await asyncio.sleep(12 * HOUR_S)
        async with self._gateway_lock:
            await self.world.office.tell_truth(truck)

    # -- people --------------------------------------------------------------------------------------------------------

    async def _push(self, what: str, signed: bytes) -> bytes | None:
        """Push a document; return its digest, None when the gateway refuses: to its clock the root has expired."""
        self._note(f"an operator pushes {what}")
        try:
            return await self.world.office.accept(signed)
        except PeerError as refusal:
            if not self._far_ahead():
                raise
            self._note(f"it is refused: {refusal}")
            return None

    async def _config(self, seed: random.Random) -> None:
        async with self._gateway_lock:
            office = self.world.office
            sat = seed.choice((100_000, 400_000, 2_000_000))
            trucks = tuple(sorted(seed.sample(self._names(), min(8, len(self._names())))))
            signed = office.signers.config(
                office.next_version("config"),
                trucks=trucks,
                batch_age_s=seed.choice((600, 7_200, 40_000)),
                confirm_within_s=seed.choice((None, None, 3_600)),
                **(_tariffs(seed, sat) if seed.random() < 0.5 else _links(sat)),
            )
            await self._push(f"a config for {len(trucks)}", signed)

    async def _content(self, seed: random.Random) -> None:
        async with self._gateway_lock:
            office = self.world.office
            base = office.random.randbytes(200)
            files = {
                f"page-{number}.html": base * seed.randint(1, 20) + seed.randbytes(seed.randint(0, 4_000))
                for number in range(seed.randint(1, 4))
            }
            manifest = await self._push("a manifest", office.make_manifest(files))
            if manifest is None:
                return
            to = Addressee(tuple(self._names())[:50])
            signed = office.signers.rollout(manifest, version=office.next_version("rollout"), to=to)
            await self._push(f"a bundle of {sum(map(len, files.values()))} bytes", signed)

    async def _rotation(self, seed: random.Random) -> None:
        """Replace the operator's and the publisher's keys by a new delegation of the root."""
        async with self._gateway_lock:
            await self._delegate(cose.SigningKey(seed.randbytes(32)), cose.SigningKey(seed.randbytes(32)))

    async def _delegate(self, operator: cose.SigningKey, publisher: cose.SigningKey) -> None:
        office = self.world.office
        before = office.signers.operator, office.signers.publisher
        office.signers.operator, office.signers.publisher = operator, publisher
        if await self._push("a delegation", office.signers.delegation(office.next_version("delegation"))) is None:
            office.signers.operator, office.signers.publisher = before

    async def _root(self, seed: random.Random) -> None:
        """Replace the root's key: the new root is signed by both, and the new key signs the roles again."""
        async with self._gateway_lock:
            office, key = self.world.office, cose.SigningKey(seed.randbytes(32))
            # A gateway that takes the root for expired would take it, but not the role table of its new key.
            if not self._far_ahead():
                await self._push("a root", office.next_root(key))
                office.root_is(key)
                await self._delegate(office.signers.operator, office.signers.publisher)

    def _far_ahead(self) -> bool:
        """Return whether the gateway's clock is beyond the end of what people have signed."""
        return self.world.office.skew_ms > 200 * DAY_S * 1000


def _links(sat: int) -> dict[str, Any]:
    """Return budgets of bytes a month, as a config states them in short."""
    return {"links": (LinkConfig("sat", sat, sat // 10, 5_000_000), LinkConfig("lte", 50_000_000, 100_000, 10_000))}


def _tariffs(seed: random.Random, sat: int) -> dict[str, Any]:
    """Return the same budgets with tariffs: other days on which a period begins, and steps that round up."""
    day = seed.choice((1, 1, 15, 28))
    steps = {"step": BillingStep.DATAGRAM, "step_bytes": seed.choice((1, 100))}
    return {
        "tariffs": (
            Tariff("sat", price_per_mb_milli=5_000_000, billing_day=day, **steps),
            Tariff("lte", price_per_mb_milli=10_000),
        ),
        "budgets": (
            Budget("sat", bytes_max=sat, reserve_bytes=sat // 10),
            Budget("lte", bytes_max=50_000_000, reserve_bytes=100_000),
        ),
    }
