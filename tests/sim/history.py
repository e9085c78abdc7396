"""What happened: a digest of the whole run, for replays to be compared by, and the history of each parcel."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_KEPT_OF_A_MACHINE = 400
_KEPT_OF_A_PARCEL = 60

ParcelName = tuple[str, int, int]  # truck, epoch, sequence


class CheckFailed(AssertionError):
    """A promise was broken; the text says which, when, and what led to it."""


@dataclass
class History:
    """The notes of one run. Only what a replay must repeat is noted: times, sizes, decisions; no key, no ciphertext."""

    now_s: Callable[[], float]
    steps: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)
    _of: defaultdict[str, deque[str]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_KEPT_OF_A_MACHINE))
    )
    _parcels: defaultdict[ParcelName, deque[str]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_KEPT_OF_A_PARCEL))
    )

    def note(self, machine: str, what: str) -> None:
        """Note something that happened to a machine."""
        self.steps += 1
        line = f"{_time(self.now_s())} #{self.steps} {machine} {what}"
        self._digest.update(line.encode())
        self._of[machine].append(line)

    def parcel(self, name: ParcelName, what: str) -> None:
        """Note something that happened to a parcel."""
        truck, epoch, sequence = name
        self.note(truck, f"parcel {epoch:016x}/{sequence} {what}")
        self._parcels[name].append(f"{_time(self.now_s())} #{self.steps} {what}")

    @property
    def digest(self) -> str:
        """The digest of all that was noted so far."""
        return str(self._digest.hexdigest())

    def fail(self, machine: str, problem: str, parcel: ParcelName | None = None) -> CheckFailed:
        """Return the failure of a check, with what led to it."""
        lines = [f"{_time(self.now_s())} after step {self.steps}: {machine}: {problem}"]
        if parcel is not None:
            lines.append(f"history of parcel {parcel[1]:016x}/{parcel[2]}:")
            lines += [f"  {line}" for line in self._parcels[parcel]] or ["  (nothing)"]
        lines.append(f"the last notes of {machine}:")
        lines += [f"  {line}" for line in list(self._of[machine])[-40:]]
        return CheckFailed("\n".join(lines))


def _time(seconds: float) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    return f"day {days:.0f} {hours:02.0f}:{minutes:02.0f}:{rest:06.3f}"
