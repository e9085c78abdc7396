"""The promises, checked: some at any instant, the rest when all troubles have ended and the queues have drained."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

from gateway.telemetry import SchemaCache
from protocol.documents import Desired, parse_document
from protocol.messages import Ack
from protocol.numbers import DocumentKind
from store.fleet.evidence import BatchState
from store.fleet.tables import batches
from store.fleet.telemetry import batch_record, select_batches
from store.parcels import ParcelState
from tests.gateway.fleets import NOW_MS
from tests.sim import bounds
from tests.sim.history import CheckFailed, ParcelName
from tests.sim.loop import owner_of_task
from tests.sim.truck import SimEdge, SimTruck
from tests.sim.world import World

_TIME_TOLERANCE_MS = 120_000
_FOREVER_MS = 1 << 60
_HURT = {f"store.{each}" for each in ("damaged", "recreated", "restored", "forked", "tail-lost", "log-mended")}


class Checks:
    """What the checks of one world remember."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._highest: dict[tuple[str, int], dict[tuple[DocumentKind, str], int]] = defaultdict(dict)
        self._at_start: dict[tuple[str, str], tuple[int, int, int]] = {}  # carried, booked, accounted for: a life began
        self._asking: list[asyncio.Future[None]] = []
        self._active: dict[tuple[str, int, str], int] = {}
        self.checked = 0
        for truck in world.trucks.values():
            truck.on_started = self._started
        world.office.on_started = self._gateway_started

    def watch(self, truck: SimTruck) -> None:
        """Check what a truck's lives leave behind."""
        truck.on_started = self._started

    def _started(self, truck: SimTruck, edge: SimEdge) -> None:
        """Note where a life begins; what the life before has carried must be accounted for by now."""
        for link in truck.config.link:
            key = truck.machine, link.name
            carried = self.world.network.links[key].count.total_bytes
            accounted = _booked(edge, link.name, with_lost=True)
            before = self._at_start.get(key)
            if before is not None and accounted - before[2] < carried - before[0] and not truck.excused:
                problem = f"{link.name} carried {carried - before[0]} bytes in the life before"
                self._note(self._fail(truck.machine, f"{problem}, {accounted - before[2]} are accounted for"))
            self._at_start[key] = carried, _booked(edge, link.name), accounted

    def _gateway_started(self) -> None:
        self._asking = [each for each in self._asking if not each.done()]
        self._asking.append(asyncio.ensure_future(self._acknowledged()))

    async def _acknowledged(self) -> None:
        """What a truck holds for delivered, the gateway has, whatever happened to it (but for a restore)."""
        if self.world.office.gateway is None or self.world.office.restored:
            return
        for truck in self.world.trucks.values():
            edge = truck.edge
            if edge is not None and truck.life is not None:
                delivered = edge.state.rows("SELECT epoch, sequence FROM parcels WHERE state = 2")
                await self._has(truck.name, delivered)

    async def _has(self, truck: str, delivered: list[Any]) -> None:
        gateway = self.world.office.gateway
        assert gateway is not None
        states = {}
        for encoded, sequence in delivered:
            name = truck, int.from_bytes(encoded, "big"), int(sequence)
            if encoded not in states:
                states[encoded] = await gateway.fleet.epoch_state(truck, name[1])
            state = states[encoded]
            if state is None or not Ack(state.cumulative, ranges=state.ranges).covers(name[2]):
                self._note(self._fail(truck, "what was acknowledged is not at the gateway", name))
                return

    def _note(self, failure: CheckFailed) -> None:
        self.world.failure = self.world.failure or failure

    # -- at any instant ------------------------------------------------------------------------------------------------

    async def now(self) -> None:
        """Check what holds at any instant; raise `CheckFailed`."""
        self.checked += 1
        if self.world.failure is not None:
            raise self.world.failure
        for truck in self.world.trucks.values():
            edge = truck.edge
            if edge is not None and edge.uplink is not None and not truck.disk.full:
                self._bounds(truck, edge)
                self._ledger(truck, edge)
                self._versions(truck, edge)
                self._content(truck, edge)
                self._epochs(truck, edge)
        self._budgets()
        self._gateway_ledger()
        if self.checked % 12 == 0:
            self._memory()
        await self._acknowledged()
        if self.world.failure is not None:
            raise self.world.failure

    def _fail(self, machine: str, problem: str, parcel: ParcelName | None = None) -> CheckFailed:
        return self.world.history.fail(machine, problem, parcel)

    def _bounds(self, truck: SimTruck, edge: SimEdge) -> None:
        for problem in bounds.overgrown(edge, truck.config.state_mb_max * 1_000_000):
            raise self._fail(truck.machine, problem)

    def _memory(self) -> None:
        """Nothing that a daemon holds on to grows for ever."""
        daemons = [(truck.machine, truck.edge) for truck in self.world.trucks.values()]
        for name, daemon in (*daemons, ("gateway", self.world.office.gateway)):
            for problem in [] if daemon is None else bounds.collecting(daemon):
                raise self._fail(name, problem)

    def _ledger(self, truck: SimTruck, edge: SimEdge) -> None:
        """In a life, what was booked on a link is what the link carried, to the byte."""
        if edge.ledger._reservations:
            return  # something is under way
        for link in truck.config.link:
            key = truck.machine, link.name
            if key not in self._at_start:
                continue
            carried = self.world.network.links[key].count.total_bytes - self._at_start[key][0]
            booked = _booked(edge, link.name) - self._at_start[key][1]
            if carried != booked:
                raise self._fail(truck.name, f"{link.name} carried {carried} bytes in this life, {booked} are booked")
            whole = self.world.network.links[key].count.total_bytes - self.world.joined_bytes.get(key, 0)
            if not truck.excused and _booked(edge, link.name, with_lost=True) < whole:
                raise self._fail(truck.name, f"{link.name} carried {whole} bytes in all, fewer are accounted for")

    def _budgets(self) -> None:
        """In no month does a link carry more than it may, but for what came unasked."""
        for machine in self.world.trucks:
            self.world.spending.count(machine)
        for problem in self.world.spending.overrun():
            raise self._fail(problem.split()[0], problem)

    def _gateway_ledger(self) -> None:
        """In a life, what the gateway booked (on whomever) is what went through its socket, to the byte."""
        office = self.world.office
        if office.gateway is not None and office.carried_bytes != office.booked_bytes:
            problem = f"its socket carried {office.carried_bytes} bytes in this life, {office.booked_bytes} are booked"
            raise self._fail("gateway", problem)

    def _versions(self, truck: SimTruck, edge: SimEdge) -> None:
        """What was trusted is never replaced by something older."""
        known = self._highest[(truck.machine, truck.images)]
        for key, seen in edge.trust.highest.items():
            if seen.version < known.get(key, 0):
                raise self._fail(truck.name, f"{key} fell from version {known[key]} to {seen.version}")
            known[key] = seen.version
        if not truck.excused:
            for key, version in known.items():
                seen_now = edge.trust.highest.get(key)
                if seen_now is None or seen_now.version < version:
                    raise self._fail(truck.name, f"version {version} of {key} is forgotten")

    def _epochs(self, truck: SimTruck, edge: SimEdge) -> None:
        """Only a disk that was hurt begins a new epoch."""
        found = edge.state.value("SELECT count(*) FROM epochs")
        if found > 1 and not truck.excused:
            raise self._fail(truck.name, f"{found} epochs, and nothing was done to its disk but cutting the power")

    def _content(self, truck: SimTruck, edge: SimEdge) -> None:
        """The active version is whole and what was signed."""
        for each in edge.installer.installed():
            if each.active:
                key = truck.machine, truck.images, each.name
                if each.manifest.version < self._active.get(key, 0):
                    raise self._fail(truck.name, f"{each.name} fell back from version {self._active[key]}")
                self._active[key] = each.manifest.version
                for file in each.manifest.files:
                    path = each.path / file.path
                    if not path.exists() or path.stat().st_size != file.size:
                        raise self._fail(truck.name, f"{each.name}: {file.path} of the active version is not whole")
        if damaged := edge.installer.scrub():
            raise self._fail(truck.name, f"content differs from its manifest: {damaged}")

    # -- at the end ----------------------------------------------------------------------------------------------------

    async def end(self, *, days: float = 20.0) -> None:
        """Let the fleet come to rest with all links healed, then check every promise."""
        # A truck never asks of itself: it hears what is new in answers, so rows go on until everybody has heard.
        await self._rest(days, "has not")
        self.world.truth.closed = True
        await self._rest(days, "")
        await self.now()
        for truck in self.world.trucks.values():
            await self._telemetry(truck)
            await self._events(truck)
            await self._desired(truck)
        if self.world.unexpected:
            raise self._fail("world", f"nobody has caught: {self.world.unexpected[:5]}")

    async def _rest(self, days: float, kind: str) -> None:
        """Wait until nobody waits for anything (of this kind) any more."""
        waiting = ["?"]
        for _ in range(round(days * 24)):
            await asyncio.sleep(3_600.0)
            await self.now()
            found = [each for truck in self.world.trucks.values() for each in await self._waits(truck)]
            waiting = [each for each in found if kind in each]
            if not waiting:
                return
        raise self._fail(waiting[0].split()[0], f"{days} days after all troubles ended: {'; '.join(waiting[:5])}")

    async def _waits(self, truck: SimTruck) -> list[str]:
        """Return what keeps a truck from being at rest."""
        edge = truck.edge
        if edge is None:
            return [f"{truck.machine} has not come back"]
        owner_of_task.set(truck.life)
        if self.world.truth.closed:
            await edge.recorder.close_all()
        counts = await edge.writer.run(edge.queue.counts)
        queued = sum(each.parcels for each in counts if each.state is ParcelState.QUEUED)
        owner_of_task.set(None)
        found = [f"{truck.machine} has {queued} parcels queued"] if queued else []
        gateway = self.world.office.gateway
        assert gateway is not None
        record = await gateway.fleet.truck(truck.name)
        assert record is not None
        if record.desired_digest != record.desired_reported:
            found.append(f"{truck.machine} has not reported its desired state")
        for rollout in edge.wanted.rollouts:
            active = edge.installer.active(rollout.bundle)
            if rollout.manifest is not None and (active is None or active.digest != rollout.manifest):
                found.append(f"{truck.machine} has not installed {rollout.bundle}")
        return found

    async def _telemetry(self, truck: SimTruck) -> None:
        gateway = self.world.office.gateway
        assert gateway is not None
        truth = self.world.truth.of[truck.name]
        schemas = SchemaCache(gateway.fleet)
        seen: Counter[int] = Counter()
        place: dict[int, ParcelName] = {}
        after: Any = None
        while records := await gateway.fleet.batches(truck.name, -_FOREVER_MS, _FOREVER_MS, after, 100):
            after = records[-1].cursor
            for record, batch in await schemas.decode(records):
                name = truck.name, record.key.epoch, record.key.sequence
                for time_ms, (serial, *_) in batch.rows:
                    assert serial is not None
                    seen[serial] += 1
                    place.setdefault(serial, name)
                    if seen[serial] > (2 if serial in truth.may_double else 1):
                        other = place[serial]
                        raise self._fail(truck.name, f"row {serial} came twice: also in {other}", name)
                    self._check_time(truck, serial, time_ms, name)
        timeless = await self._timeless(truck)
        seen.update(timeless)
        dropped = await self._dropped(truck.name)
        rows_in = self.world.truth.rows_in(truck.name, truck.schema)
        missing = [serial for serial in truth.rows_accepted if serial not in seen]
        lost = []
        for serial in missing:
            parcels = rows_in.get(serial, [])
            if any((name[1], name[2]) in dropped for name in parcels):
                continue
            lost.append((serial, parcels))
        # A hurt disk excuses what was on it, and only that; what the hurt took must have been told.
        beyond = [each for each in lost if truth.rows_accepted[each[0]] > truck.hurt_at_s]
        # An image that was put back need not be noticed: nobody knows what came to that disk after it was taken.
        if lost and truck.rotted and not truck.images and not beyond:
            await self._told(truck, len(lost))
        if beyond:
            serial, parcels = beyond[0]
            where = parcels[-1] if parcels else None
            raise self._fail(
                truck.name, f"{len(beyond)} accepted rows are lost, and no tombstone names them: row {serial}", where
            )
        coverage = await gateway.fleet.coverage(truck.name, -_FOREVER_MS, _FOREVER_MS)
        here = sum(seen.values()) - len(timeless)
        if coverage.rows != here or coverage.parked or coverage.rejected:
            raise self._fail(truck.name, f"the gateway shows {coverage}, {here} rows are there")

    async def _told(self, truck: SimTruck, lost: int) -> None:
        """A disk that was hurt says so: rot by what became of a database, an image by the fork that it made."""
        gateway = self.world.office.gateway
        assert gateway is not None
        seen: set[str] = set()
        after: int | None = None
        while found := await gateway.fleet.events(truck.name, after=after, limit=500):
            after = found[-1].id
            seen.update(each.name for each in found if each.name.startswith("store."))
        if not seen & _HURT:
            raise self._fail(truck.machine, f"{lost} rows went with a hurt disk, and no event tells of it: {seen}")

    async def _timeless(self, truck: SimTruck) -> list[int]:
        """Return the rows of boots that ended before their truck heard the time: they are here, without a time."""
        gateway = self.world.office.gateway
        assert gateway is not None
        query = select_batches().where(batches.c.truck == truck.name, batches.c.state == BatchState.TIMELESS)
        async with gateway.fleet._database.read() as connection:
            records = [batch_record(row) for row in await connection.execute(query)]
        found = []
        for record, batch in await SchemaCache(gateway.fleet).decode(records):
            if record.boot in self.world.truth.boots_told[truck.name]:
                name = truck.name, record.key.epoch, record.key.sequence
                raise self._fail(truck.name, "a batch is timeless although its boot's clock was told", name)
            found += [serial for _, (serial, *_) in batch.rows if serial is not None]
        return found

    def _check_time(self, truck: SimTruck, serial: int, time_ms: int, name: ParcelName) -> None:
        at_s = self.world.truth.of[truck.name].rows_accepted.get(serial)
        if at_s is not None and not self.world.clocks_were_wrong:
            true_ms = NOW_MS + at_s * 1000
            if abs(time_ms - true_ms) > _TIME_TOLERANCE_MS:
                raise self._fail(truck.name, f"row {serial} is {(time_ms - true_ms) / 1000:.1f} s off", name)

    async def _dropped(self, truck: str) -> set[tuple[int, int]]:
        gateway = self.world.office.gateway
        assert gateway is not None
        coverage = await gateway.fleet.coverage(truck, -_FOREVER_MS, _FOREVER_MS)
        return {
            (epoch.epoch, sequence)
            for epoch in coverage.epochs
            for first, last, _ in epoch.dropped
            for sequence in range(first, last + 1)
        }

    async def _events(self, truck: SimTruck) -> None:
        gateway = self.world.office.gateway
        assert gateway is not None
        seen: Counter[str] = Counter()
        after: int | None = None
        while found := await gateway.fleet.events(truck.name, after=after, limit=500):
            after = found[-1].id
            seen.update(each.name for each in found)
        truth = self.world.truth.of[truck.name]
        dropped = await self._dropped(truck.name)
        for number in sorted(truth.events_accepted):
            times = seen[f"e{number}"]
            if times > 1:
                raise self._fail(truck.name, f"event {number} came {times} times")
            if times == 0 and not truck.excused:
                name = truth.event_parcels.get(number)
                if name is None or (name[1], name[2]) not in dropped:
                    raise self._fail(truck.name, f"event {number} is lost, and no tombstone names it", name)

    async def _desired(self, truck: SimTruck) -> None:
        """The truck has what the gateway's newest documents ask for."""
        edge = truck.edge
        gateway = self.world.office.gateway
        assert edge is not None
        assert gateway is not None
        root = gateway.documents.root
        assert root is not None
        if edge.trust.root.version != root.version:
            raise self._fail(truck.machine, f"root {root.version} is wanted, {edge.trust.root.version} is trusted")
        config = await gateway.fleet.newest_config(truck.name, "kenya")
        desired = await gateway.fleet.desired(truck.name)
        assert desired is not None
        # One whose signer's key was rotated away is withheld until somebody signs it again.
        named = {each.digest for each in parse_document(desired.signed, Desired)[0].entries}
        if config is not None and config.digest not in named:
            return
        if config is not None and edge.configurator.applied_version not in (config.version, None):
            rejected = edge.configurator._rejected
            if config.digest not in rejected:
                raise self._fail(
                    truck.name, f"config {config.version} is wanted, {edge.configurator.applied_version} is applied"
                )


def _booked(edge: SimEdge, link: str, *, with_lost: bool = False) -> int:
    """Return the bytes booked on a link over all periods, without what a crash took for spent."""
    totals = edge.ledger.purses.accounts.totals(None)
    book = edge.ledger.purses.books[link]
    fresh = sum(byte_count for byte_count, _ in book.bookings.values())
    lost = () if with_lost else ("crash", "recovered")
    return fresh + sum(each.bytes_ip for each in totals if each.link == link and each.cause not in lost)
