"""What waits to go up, by precedence: since when something of it does, and since when nothing of it was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from protocol.numbers import Precedence
from protocol.scheduler import Work


class Waits:
    """The waiting parcels as the scheduler asks for them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._bytes: dict[Precedence, int] = {}
        self._since: dict[Precedence, float] = {}
        self._unserved: dict[Precedence, float] = {}
        self.uploads = 0

    @property
    def precedences(self) -> list[Precedence]:
        """Of which precedences something waits, the most urgent first."""
        return sorted(self._bytes)

    def note(self, waiting: Mapping[Precedence, int]) -> None:
        """Note the bytes of each precedence that wait."""
        now, self._bytes = self._monotonic(), dict(waiting)
        self._since = {each: self._since.get(each, now) for each in self._bytes}
        self._unserved = {each: self._unserved.get(each, now) for each in self._bytes}

    def sent(self, precedence: Precedence) -> None:
        """Note that an upload of a precedence leaves."""
        self.uploads += 1
        self._unserved.pop(precedence, None)

    def unserved_s(self, precedence: Precedence) -> float:
        """Return for how long nothing of a precedence was sent although something waits."""
        return self._monotonic() - self._unserved.get(precedence, self._monotonic())

    def work(self, precedence: Precedence) -> Work:
        """Return what waits of a precedence, as the scheduler takes it."""
        now = self._monotonic()
        return Work(precedence, None, now - self._since.get(precedence, now), self._bytes.get(precedence, 0))
