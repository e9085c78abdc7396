"""`make faults ARGS=--sick`: a whole daemon on a disk that is full for a while, or read-only, with traffic on.

The disk is real (a small tmpfs; an ext4 that the kernel itself makes read-only after an error), the gateway is well,
and whoever ends is started again, as a service manager does. Whatever was acknowledged must arrive, once; how long the
truck takes to work again is told, and what it told of it upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.powercut.cuts import scratch
from tests.powercut.daemons import TRUCK, Fleet
from tests.powercut.disk import Disk
from tests.powercut.nursery import Nursery

_TMPFS_BYTES = 12 << 20
_WELL_S = 1.0
_HEAL_S = 90.0
_RESTART_S = 0.2


@dataclass
class Case:
    """What came of one sickness."""

    name: str
    acknowledged: int
    acknowledged_while_sick: int
    refused_while_sick: int
    healed_s: float
    told: list[str]
    wrong: list[str]


class Folder:
    """A folder in the place of a disk."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root


class Tmpfs(Folder):
    """A small file system in memory that can be filled."""

    def __init__(self, root: Path, size: int = _TMPFS_BYTES) -> None:
        super().__init__(root)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)], check=True, timeout=30)

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.root / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(4_096)):
                pass

    def empty(self) -> None:
        """Give it all back."""
        (self.root / "ballast").unlink()

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["umount", "-l", str(self.root)], check=True, timeout=30)


def fail_disk(disk: Disk) -> None:
    """Have the kernel find an error on an ext4, upon which it makes it read-only."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, place, *_ = line.split()
        if place == str(disk.root):
            Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("sick")
            return
    raise OSError(errno.ENOENT, "the disk is not mounted", str(disk.root))


class Ward(Fleet):
    """A fleet whose truck is started again whenever it ends."""

    async def keep_alive(self) -> None:
        """Do as a service manager does, until cancelled."""
        while True:
            if self.lives["truck"].ended:
                self.lives["truck"].kill()
                with contextlib.suppress(AssertionError):
                    await self.start("truck")
            self._listen()
            await asyncio.sleep(_RESTART_S)

    async def _publish(self) -> None:
        # Content that finds no room is tried again after an hour: that is not what is waited for here.
        return

    def _heard(self, words: list[object]) -> None:
        # That a daemon ends is not wrong here; that what it promised is lost would be.
        if words[0] != "raised":
            super()._heard(words)

    async def works(self) -> bool:
        """Return whether an event is taken and comes to the gateway."""
        number = self.promises.next()
        if not await self._post("events", {"name": "tick", "precedence": "priority", "values": {"n": number}}):
            return False
        self.promises.events.append(number)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if any(each.values.get("n") == number for each in await self.client.events(TRUCK)):
                return True
            await asyncio.sleep(0.05)
        return False


@asynccontextmanager
async def _ward(nursery: Nursery, truck: Folder | Disk, gateway: Folder) -> AsyncIterator[Ward]:
    ward = Ward(nursery, truck, gateway, random.Random(1))
    await ward.make()
    await ward.start("truck")
    keeper = asyncio.create_task(ward.keep_alive())
    try:
        yield ward
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await ward.close()


async def _suffer(ward: Ward, name: str, fall_ill: Callable[[], None], heal: Callable[[], None], sick_s: float) -> Case:
    await ward.live(min(_WELL_S, sick_s))
    before, tried = ward.promises.count, ward.promises.number
    fall_ill()
    taken = refused = 0
    begun = time.monotonic()
    # What the log had room for before is taken still: it is sick when it refuses.
    while time.monotonic() - begun < sick_s or (not refused and time.monotonic() - begun < _HEAL_S):
        await ward.live(min(_WELL_S, sick_s))
        taken = ward.promises.count - before
        refused = ward.promises.number - tried - taken
    heal()
    begun = time.monotonic()
    while not await ward.works():
        if time.monotonic() - begun > _HEAL_S:
            ward.wrong.append(f"it does not work again within {_HEAL_S:.0f} s")
            break
        await asyncio.sleep(0.05)
    healed_s = time.monotonic() - begun
    await ward.live(min(_WELL_S, sick_s))
    await ward.settle()
    told = sorted({each.name for each in await ward.client.events(TRUCK)} - {"tick", "clock"})
    return Case(name, ward.promises.count, taken, refused, healed_s, told, ward.wrong)


async def _full(nursery: Nursery, folder: Path, sick_s: float) -> Case:
    truck = Tmpfs(folder / "truck")
    try:
        async with _ward(nursery, truck, Folder(folder / "gateway")) as ward:
            return await _suffer(ward, "disk full", truck.fill, truck.empty, sick_s)
    finally:
        truck.close()


async def _read_only(nursery: Nursery, folder: Path, sick_s: float) -> Case:
    disk = Disk(folder, "ext4", options="loop,errors=remount-ro")
    try:
        async with _ward(nursery, disk, Folder(folder / "gateway")) as ward:

            def boot() -> None:
                """Start the truck's computer again: the journal is replayed, and the disk takes writes."""
                ward.lives["truck"].signal(9)
                ward.lives["truck"].wait()
                disk.remount()

            return await _suffer(ward, "disk read-only", lambda: fail_disk(disk), boot, sick_s)
    finally:
        disk.close()


SICKNESSES = {"full": _full, "read-only": _read_only}


def suffer(nursery: Nursery, name: str, *, sick_s: float) -> Case:
    """Go through one sickness of `SICKNESSES`, which lasts for so long."""
    with scratch() as folder:
        return asyncio.run(SICKNESSES[name](nursery, folder, sick_s))


def describe(case: Case) -> str:
    """Return one line for a person."""
    return (
        f"{case.name}: works again after {case.healed_s:.1f} s; {case.acknowledged} acknowledged "
        f"({case.acknowledged_while_sick} and {case.refused_while_sick} refused while sick), wrong: {len(case.wrong)}; "
        f"told: {', '.join(case.told) or 'nothing'}"
    )
