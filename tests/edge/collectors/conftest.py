"""Clocks that do not wait, for collectors and their supervisor."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest


class InstantClock:
    """A sleep takes no time and moves the clock on by itself: for one collector alone."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.passed_s

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.passed_s += seconds
        await asyncio.sleep(0)


class SteppedClock(InstantClock):
    """Sleepers wake when the test moves the clock on: for several tasks that race."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def sleep(self, seconds: float) -> None:
        if not math.isfinite(seconds):
            await asyncio.get_running_loop().create_future()
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.passed_s + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking each sleeper at its own moment."""
        end_s = self.passed_s + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            wake_s, _, woken = heapq.heappop(self._sleepers)
            self.passed_s = max(self.passed_s, wake_s)
            if not woken.done():
                woken.set_result(None)
                await self._settle()
        self.passed_s = end_s

    @staticmethod
    async def _settle() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(10_000):
            await asyncio.sleep(0)
            if not loop._ready:  # type: ignore[attr-defined]  # nobody else has anything to do
                return
        raise AssertionError("something spins")


@pytest.fixture
def instant_clock() -> InstantClock:
    return InstantClock()


@pytest.fixture
def stepped_clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for channels that may never come: the first row comes almost at once."""
    monkeypatch.setattr("edge.collectors.latest.FIRST_ROW_WAIT_S", 0.02)


@pytest.fixture
def wire_frame() -> Callable[..., bytes]:
    """Return a maker of VE.Direct frames with a right checksum: frame(("V", "12530"), ...)."""

    def make(*fields: tuple[str, str]) -> bytes:
        body = b"".join(f"\r\n{label}\t{value}".encode("latin-1") for label, value in fields) + b"\r\nChecksum\t"
        return body + bytes([-sum(body) & 0xFF])

    return make


@pytest.fixture
def recordings() -> dict[str, Path]:
    """Return three recordings of real hardware, by name; they come with the package vedirect-m8 (MIT)."""
    found = find_spec("vedirect_m8")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the recordings come with the package vedirect-m8, which is not installed")
    folder = Path(next(iter(found.submodule_search_locations))) / "sim_data"
    return {path.stem: path for path in folder.glob("*.dump")}
