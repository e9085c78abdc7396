"""The truck's clock: monotonic for every timer, wall time only once somebody trustworthy has told it.

Three states: `unset` (nothing is known), `floor` (it is at least this late: the highest trusted time of the past), and
`synced` (an authenticated gateway answer told it since this boot). The floor is durable and only ever rises, so a
clock that restarts in 1970 or jumps ahead opens no hole: expiry is judged by the floor, never by the system's clock.
An answer that contradicts what is known (it is earlier, or much later) is not believed at once, since that gateway's
own clock may be wrong for a while; one that is repeated for an hour is, and even then the floor moves by one step. So
a gateway that lies can make documents expire early, at a bounded pace; it never brings an expired one back. A new root
with other gateway keys takes the lie back (`begin_anew`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from store.settings import Settings

_FLOOR, _BOOT, _OFFSET = "clock.floor_s", "clock.boot", "clock.offset_ms"
_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
# How far ahead of what is known the first answer of a boot may be: the truck may have been without power for so long.
# A gateway that contradicts moves the floor by as much at most, each time that it has been steady for long enough.
_STEP_MAX_S = 30 * 86_400
# How far ahead any later answer may be: the machine was never off since, and no clock drifts more in months.
_DRIFT_MAX_S = 60
# For how long, and how steadily, a gateway must contradict what is known before it is believed.
_DOUBT_S = 3_600.0
_DOUBT_APART_S = 120.0


class ClockState(StrEnum):
    """How far wall time can be believed."""

    UNSET = "unset"
    FLOOR = "floor"
    SYNCED = "synced"


def kernel_boot_id() -> int:
    """Return 63 bits that name this boot of the machine (the same for every start of the daemon in it)."""
    try:
        return int(_BOOT_ID_FILE.read_text().replace("-", "").strip()[:16], 16) >> 1
    except (OSError, ValueError):
        # Without procfs the boot is named by the instant it began; a daemon's restart then counts as the same boot.
        return int(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


def boottime() -> float:
    """Return seconds since the machine's boot, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Wall time as far as it is trusted."""

    def __init__(
        self,
        *,
        boot: int,
        floor_s: int,
        offset_s: float | None = None,
        monotonic: Callable[[], float] = boottime,
    ) -> None:
        """`floor_s` and `offset_s` (wall minus monotonic, of this very boot) are what was persisted."""
        self.boot = boot
        self.floor_s = floor_s
        self.offset_s = offset_s
        self._monotonic = monotonic
        self._doubted: tuple[float, float] | None = None  # since when (monotonic), and the offset that was told

    @property
    def state(self) -> ClockState:
        """How far wall time can be believed now."""
        if self.offset_s is not None:
            return ClockState.SYNCED
        return ClockState.FLOOR if self.floor_s > 0 else ClockState.UNSET

    @property
    def wants_time(self) -> bool:
        """Whether the gateway should be asked for the time: it is not known, or it was contradicted."""
        return self.offset_s is None or self._doubted is not None

    def monotonic(self) -> float:
        """Return seconds of this boot; never jumps."""
        return self._monotonic()

    def wall_s(self) -> float | None:
        """Return Unix time, or None while it is not trusted."""
        return None if self.offset_s is None else self._monotonic() + self.offset_s

    def at_least_s(self) -> int:
        """Return a lower bound of Unix time: what expiry is judged by."""
        wall_s = self.wall_s()
        return self.floor_s if wall_s is None else max(self.floor_s, int(wall_s))

    def stamp(self) -> tuple[float, int | None]:
        """Return (time, boot): wall time and None, or monotonic time and the boot that it belongs to."""
        wall_s = self.wall_s()
        return (self._monotonic(), self.boot) if wall_s is None else (wall_s, None)

    def learn(self, time_s: int, rtt_s: float) -> bool:
        """Take the time of an authenticated answer; return whether it changed what is known (then persist it)."""
        offset_s = time_s + rtt_s / 2 - self._monotonic()
        known_s = self.at_least_s()
        allowed_s = _STEP_MAX_S if self.offset_s is None else _DRIFT_MAX_S + rtt_s
        contradicts = known_s > 0 and (time_s > known_s + allowed_s or time_s < self.floor_s)
        if contradicts and not self._is_repeated(offset_s):
            return False
        self._doubted = None
        if contradicts and time_s > known_s + _STEP_MAX_S:
            # One step nearer to it; the next answer is measured against the new floor.
            self.floor_s = known_s + _STEP_MAX_S
            return True
        changed = self.offset_s is None or abs(offset_s - self.offset_s) > 1 + rtt_s
        if changed:
            self.offset_s = offset_s
        self.floor_s = max(self.floor_s, time_s)
        return changed

    def raise_floor(self) -> None:
        """Let the floor follow the time that is trusted now; persist it afterwards."""
        self.floor_s = self.at_least_s()

    def begin_anew(self, floor_s: int) -> None:
        """Forget what gateways told: `floor_s` is when people signed the root that took their keys away."""
        self.floor_s = floor_s
        self.offset_s = self._doubted = None

    def _is_repeated(self, offset_s: float) -> bool:
        """Note an answer that contradicts the floor; return whether it has been told steadily for long enough."""
        now = self._monotonic()
        if self._doubted is None or abs(offset_s - self._doubted[1]) > _DOUBT_APART_S:
            self._doubted = (now, offset_s)
        return now - self._doubted[0] >= _DOUBT_S


def load_clock(settings: Settings) -> Clock:
    """Return the clock as it was persisted: its floor, and the time itself if that was told since this boot."""
    boot = kernel_boot_id()
    same_boot = settings.get_int(_BOOT) == boot
    return Clock(
        boot=boot,
        floor_s=settings.get_int(_FLOOR),
        offset_s=settings.get_int(_OFFSET) / 1000 if same_boot else None,
    )


def save_clock(settings: Settings, clock: Clock) -> None:
    """Persist what is known; the floor only rises."""
    settings.raise_int(_FLOOR, clock.floor_s)
    if clock.offset_s is not None:
        settings.put_int(_BOOT, clock.boot)
        settings.put_int(_OFFSET, round(clock.offset_s * 1000))


def save_new_floor(settings: Settings, floor_s: int) -> None:
    """Persist that time begins anew, in the transaction of what says so: a new root, or an enrolment."""
    settings.put_int(_FLOOR, floor_s)
    settings.remove(_BOOT)
