"""A simulated truck: its disk, its links, its lives; in each life the product's whole edge daemon runs on it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.config import ClassroomSettings, EdgeConfig, LinkSettings
from edge.daemon import Edge
from edge.joining import join
from protocol.errors import DigitruckError, QueueFullError
from protocol.joincode import JoinCode
from protocol.numbers import Precedence
from protocol.schema import Channel, Schema
from store.errors import CommitUnknownError, StoreFailedError
from tests.sim.disk import Disk
from tests.sim.history import History
from tests.sim.loop import VirtualLoop, owner_of_task
from tests.sim.network import Network, VirtualSocket
from tests.sim.truth import Truth

SERIES = "meter"
_CHANNELS = (Channel("serial", "1", 1, 0, 1), Channel("bat_v", "V", 100, 2600, 5), Channel("pv_w", "W", 1, 0, 50))
TICK_S, FLUSH_S = 1_800.0, 3_600.0


def schema_with(noise_channels: int, weather_channels: int = 0) -> Schema:
    """Return the schema of a truck's rows; channels of weather go with the sun, as a truck's own do."""
    weather = tuple(Channel(f"weather_{number}", "1", 10, 200, 2) for number in range(weather_channels))
    noise = tuple(Channel(f"noise_{number}", "1", 1, 0, 1 << 23) for number in range(noise_channels))
    return Schema((*_CHANNELS, *weather, *noise), period_s=900)


def weather_at(seconds: float, channels: int, seed: random.Random) -> list[int]:
    """Return what instruments show: the sun's height, each in its own measure and a little late, and its own noise."""
    return [
        round(200 + 150 * max(0.0, math.sin(math.tau * (seconds / 86_400 - number / 100))) + seed.randint(-2, 2))
        for number in range(channels)
    ]


class SimEdge(Edge):
    """The product's daemon; only what serves people, and the watchdog, are left out of its run."""

    async def run(self) -> None:
        """Work until cancelled; raise what ended it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.uplink.run(), name="uplink")
            group.create_task(self._tick(), name="recorder")
            group.create_task(self.downlink.run(), name="downlink")
            group.create_task(self.bundles.run(), name="bundles")
            group.create_task(self._keep_house(), name="housekeeping")
            group.create_task(self._flush(), name="ledger")

    async def _tick(self) -> None:
        # As `Recorder.run` does, but not every five seconds of a month.
        while True:
            with contextlib.suppress(QueueFullError, CommitUnknownError):
                await self.recorder.tick()
            await asyncio.sleep(TICK_S)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.ledger.flush()


class Life:
    """One life of a truck's daemon; `boot` changes only when the power was away."""

    def __init__(self, truck: SimTruck, number: int) -> None:
        self.name = truck.name
        self.machine = truck.machine
        self.number = number
        self.boot = truck.boot
        self.board = truck.board
        self.disk = truck.disk
        self.ended = False
        self.edge: SimEdge | None = None
        self.sockets: list[VirtualSocket] = []
        self._truck = truck

    def monotonic(self) -> float:
        """Return seconds since the machine was switched on."""
        return self._truck.loop.now_s - self._truck.booted_at_s

    def open_socket(self, interface: str | None) -> VirtualSocket:
        """Open a socket on a link; a dead life's goes nowhere."""
        if self.ended:
            raise OSError("the power is off")
        opened = self._truck.network.open(self._truck.network.links[(self.machine, str(interface))])
        self.sockets.append(opened)
        return opened


class SimTruck:
    """One truck over all its lives."""

    def __init__(
        self,
        name: str,
        home: Path,
        loop: VirtualLoop,
        network: Network,
        history: History,
        truth: Truth,
        seed: random.Random,
        *,
        links: tuple[LinkSettings, ...],
        settings: dict[str, Any] | None = None,
        row_every_s: float = 1_800.0,
        event_every_s: float = 40_000.0,
        noise_channels: int = 0,
        weather_channels: int = 0,
        machine: str | None = None,
    ) -> None:
        """Make a truck; `machine` tells computers apart that are one truck to everybody else."""
        self.name = name
        self.machine = machine or name
        self.loop = loop
        self.network = network
        self.history = history
        self.truth = truth
        self.random = seed
        self.disk = Disk(home, random.Random(seed.getrandbits(64)), self._power_went)
        self.boot = seed.getrandbits(60)
        self.board = seed.randbytes(16)
        self.booted_at_s = loop.now_s - seed.uniform(20, 2_000)
        self.lives = 0
        self.life: Life | None = None
        self.back_after_s = 60.0
        self.failures: list[BaseException] = []
        self.on_started: Callable[[SimTruck, SimEdge], None] = lambda truck, edge: None
        self.noise_channels = noise_channels  # of which nothing can be predicted: they fill the disk
        self.weather_channels = weather_channels
        self.schema = schema_with(noise_channels, weather_channels)
        self.row_every_s = row_every_s
        self.event_every_s = event_every_s
        self.excused = False  # its disk was hurt: what it lost is not this software's fault, but must be told
        self.hurt_at_s = -1.0  # when that was last
        self.rotted = False
        self.images = 0  # how often an older image was put in its disk's place
        self._restart: asyncio.TimerHandle | None = None
        usual = {"state_mb_max": 16, "batch_age_s": 21_600, "patience_s": 1_800, "retry_s_max": 3_600}
        self.config = EdgeConfig(
            link=links,
            classroom=ClassroomSettings(listen="127.0.0.1:0"),
            collector=(),
            content_mb_max=64,
            **{**usual, **(settings or {})},
        )
        for link in links:
            network.add_link(self.machine, link.name)

    @property
    def edge(self) -> SimEdge | None:
        """The running daemon, None while there is none."""
        return self.life.edge if self.life is not None and not self.life.ended else None

    async def join(self, code: JoinCode) -> None:
        """Enrol, over links that work."""
        self.disk.begin()
        life = Life(self, 0)
        owner_of_task.set(life)
        await join(code, self.config, self.disk.root)
        for each in life.sockets:
            each.close()
        life.ended = True

    def start(self) -> None:
        """Begin a life."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        self.lives += 1
        self.disk.begin()
        self.life = Life(self, self.lives)
        self.history.note(self.machine, f"life {self.lives} begins")
        token = owner_of_task.set(self.life)
        try:
            self.loop.create_task(self._live(self.life), name=f"life of {self.name}")
        finally:
            owner_of_task.reset(token)

    async def _live(self, life: Life) -> None:
        try:
            edge = SimEdge(self.config, self.disk.root)
            await edge.start()
            life.edge = edge
            await edge.recorder.open_series(SERIES, self.schema)
            self.on_started(self, edge)
            async with asyncio.TaskGroup() as group:
                group.create_task(edge.run(), name="daemon")
                group.create_task(self._rows(edge), name="rows")
                group.create_task(self._events(edge), name="events")
        except asyncio.CancelledError:
            raise
        except BaseException as failure:
            if not life.ended:
                self.failures.append(failure)
                self.history.note(self.machine, f"daemon failed: {_leaves(failure)}")
                # As a process that exits: its files are as they are; the service manager starts it again.
                self.back_after_s = 300.0
                self.kill()

    async def _rows(self, edge: SimEdge) -> None:
        voltage = 2_600
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.row_every_s))
            if self.truth.closed:
                return
            serial = self.truth.offer_row(self.name)
            voltage += self.random.randint(-3, 3)
            noise = [self.random.getrandbits(24) for _ in range(self.noise_channels)]
            weather = weather_at(self.loop.now_s, self.weather_channels, self.random)
            cells = (serial, voltage, self.random.choice((0, 0, self.random.randint(0, 900))), *weather, *noise)
            at_s = self.loop.now_s
            try:
                await edge.recorder.on_row(SERIES, edge.clock.monotonic(), cells)
            except (QueueFullError, CommitUnknownError, StoreFailedError) as refusal:
                self.truth.row_refused(self.name, serial)
                self.history.note(self.machine, f"row {serial} refused: {type(refusal).__name__}")
                if isinstance(refusal, StoreFailedError) and "not running" not in str(refusal):
                    raise
            except DigitruckError as refusal:
                self.truth.row_refused(self.name, serial)
                self.history.note(self.machine, f"row {serial} refused: {refusal}")
            else:
                self.truth.row_accepted(self.name, serial, at_s)

    async def _events(self, edge: SimEdge) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.event_every_s))
            if self.truth.closed:
                return
            precedence = self.random.choice((Precedence.FLASH, *[Precedence.PRIORITY] * 3, *[Precedence.NORMAL] * 3))
            number = self.truth.offer_event(self.name)
            try:
                sequence = await edge.recorder.event(f"e{number}", precedence)
            except (QueueFullError, CommitUnknownError, StoreFailedError) as refusal:
                self.history.note(self.machine, f"event {number} refused: {type(refusal).__name__}")
                continue
            self.truth.event_accepted(self.name, number)
            self.history.note(self.machine, f"event {number} is sequence {sequence}")

    # -- ends of lives -------------------------------------------------------------------------------------------------

    def cut_power(self) -> None:
        """Cut the power now."""
        if self.life is not None and not self.life.ended:
            self.disk.cut()

    def switch_off(self) -> None:
        """End for good."""
        self.cut_power()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None

    def hurt(self) -> None:
        """Note that something was done to its disk now that no software can undo."""
        self.excused, self.hurt_at_s = True, self.loop.now_s

    def kill(self) -> None:
        """Kill the process; the machine stays on."""
        if self.life is not None and not self.life.ended:
            self._same_boot = True
            self.disk.cut(power=False)

    _same_boot = False

    def _power_went(self) -> None:
        """The disk has made the next life's folder: end this one."""
        life = self.life
        assert life is not None
        life.ended = True
        for each in life.sockets:
            each.close()
        self.history.note(self.machine, f"life {life.number} ends at disk step {self.disk.steps}")
        if not self._same_boot:
            self.boot = self.random.getrandbits(60)
            self.booted_at_s = self.loop.now_s + self.back_after_s - self.random.uniform(5, 60)
        self._same_boot = False
        for task in self.loop.tasks.pop(life, []):
            if not task.done():
                self.loop.call_soon(task.cancel)
        self._restart = self.loop.call_later(self.back_after_s, self.start)


def _leaves(failure: BaseException) -> str:
    if isinstance(failure, BaseExceptionGroup):
        return "; ".join(_leaves(each) for each in failure.exceptions)
    return f"{type(failure).__name__}: {failure}"
