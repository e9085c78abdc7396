"""A simulated fleet: trucks, their links, a gateway, and time; everything follows from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.config import LinkSettings
from store.errors import CommitUnknownError, StoreFailedError
from tests.gateway.fleets import NOW_S
from tests.sim.disk import PowerCut
from tests.sim.history import CheckFailed, History
from tests.sim.loop import VirtualLoop
from tests.sim.machine import machines
from tests.sim.network import Network
from tests.sim.office import Office, empty_fleet
from tests.sim.spending import Spending
from tests.sim.truck import SimTruck
from tests.sim.truth import Truth

DAY_S = 86_400.0
_MEMORY = Path("/dev/shm")
_COARSE = {"batch_age_s": 86_400, "patience_s": 14_400}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate."""

    seed: int
    trucks: int = 1
    days: float = 3.0
    row_every_s: float = 1_800.0
    rest_days: float = 20.0  # in which everything must come to rest when all troubles have ended
    coarse: bool = False  # the same code polls, batches and is checked less often: for years of simulated time


class World:
    """Everything that there is in a run; made by `world`."""

    def __init__(self, plan: Plan, home: Path, loop: VirtualLoop) -> None:
        self.plan = plan
        self.home = home
        self.loop = loop
        self.random = random.Random(f"world {plan.seed}")
        self.history = History(lambda: loop.now_s)
        self.truth = Truth()
        self.network = Network(loop, self._seed("network"))
        self.office = Office(home, loop, self.network, self._seed("office"))
        self.office.on_life = lambda what: self.history.note("gateway", what)
        self.trucks: dict[str, SimTruck] = {}
        self.unexpected: list[str] = []
        self.failure: CheckFailed | None = None
        self.clocks_were_wrong = False
        self.on_cloned: Callable[[str, str], None] = lambda machine, copy: None
        self.joined_bytes: dict[tuple[str, str], int] = {}
        self.spending = Spending(self)

    def now_s(self) -> float:
        """Return true Unix time."""
        return NOW_S + self.loop.now_s

    def _seed(self, name: str) -> random.Random:
        return random.Random(f"{name} {self.plan.seed}")

    def fail(self, machine: str, problem: str) -> None:
        """Note that a promise was broken; the next check stops the run."""
        self.failure = self.failure or self.history.fail(machine, problem)

    def caught_nowhere(self, error: BaseException | None) -> None:
        """Note what no code has caught; whoever waited for a disk is gone when that fails, or when the power goes."""
        of_a_disk = isinstance(error, CommitUnknownError | StoreFailedError)
        if isinstance(error, Exception) and not of_a_disk and not isinstance(error.__context__, PowerCut):
            self.unexpected.append(repr(error))

    def add_truck(
        self,
        name: str,
        *,
        links: tuple[LinkSettings, ...] = (),
        machine: str | None = None,
        settings: dict[str, Any] | None = None,
        **named: Any,
    ) -> SimTruck:
        """Make a truck that has not joined yet."""
        machine = machine or name
        truck = SimTruck(
            name,
            self.home / machine,
            self.loop,
            self.network,
            self.history,
            self.truth,
            self._seed(f"truck {machine}"),
            links=links or two_links(),
            row_every_s=self.plan.row_every_s,
            machine=machine,
            settings={**(_COARSE if self.plan.coarse else {}), **(settings or {})},
            **named,
        )
        self.trucks[machine] = truck
        return truck

    async def open(self) -> None:
        """Start the gateway, have everybody join, and start the trucks."""
        await self.office.start()
        await self.office.accept(self.office.signers.root_document())
        await self.office.accept(self.office.signers.delegation(self.office.next_version("delegation")))
        for number in range(self.plan.trucks):
            self.add_truck(f"truck-{number}")
        for truck in self.trucks.values():
            await self.admit(truck)

    async def admit(self, truck: SimTruck) -> None:
        """Have a truck join, which nobody meters, and start."""
        await truck.join(await self.office.code(truck.name))
        for link in truck.config.link:
            key = truck.machine, link.name
            self.joined_bytes[key] = self.network.links[key].count.total_bytes
        truck.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run the world until `work` is done."""
        return self.loop.run_until_complete(work)


def two_links() -> tuple[LinkSettings, ...]:
    """Return a cheap link and a dear one with a budget."""
    return (
        LinkSettings(name="lte", interface="lte", price_per_mb=0.01, month_bytes_max=50_000_000, reserve_bytes=100_000),
        LinkSettings(
            name="sat",
            interface="sat",
            price_per_mb=5.0,
            month_bytes_max=2_000_000,
            reserve_bytes=200_000,
            bulk=False,
        ),
    )


@contextmanager
def world(plan: Plan) -> Iterator[World]:
    """Make a world in a folder of its own, and take it down."""
    empty_fleet()
    home = Path(tempfile.mkdtemp(prefix="digitruck-sim-", dir=_MEMORY if _MEMORY.is_dir() else None))
    loop = VirtualLoop()
    try:
        with loop.running(), machines(loop, plan.seed, [], coarse=plan.coarse):
            made = World(plan, home, loop)
            loop.set_exception_handler(lambda _, context: made.caught_nowhere(context.get("exception")))
            try:
                yield made
            finally:
                with contextlib.suppress(Exception):
                    loop.run_until_complete(_end(loop))
    finally:
        loop.close()
        shutil.rmtree(home, ignore_errors=True)


async def _end(loop: VirtualLoop) -> None:
    tasks = [each for each in asyncio.all_tasks(loop) if each is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=1_000.0)
