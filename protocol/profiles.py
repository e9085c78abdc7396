"""What usually happens at an hour of the week or of the day, learnt from a truck's own past: contacts, the battery.

A profile is a mean for each hour, of which the newest observation is a third, so that a new routine is learnt within
two or three weeks; an hour of which nothing was seen says nothing. It is small enough to be kept as a setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from protocol.windows import DAY_S, Offset

HOUR_S: Final = 3_600
WEEK_H: Final = 168
DAY_H: Final = 24
_NEWEST: Final = 3
# A routine is what was seen in two weeks at least; less than half of the time is none.
_WEEKS_SEEN, _LIKELY_MILLI = 2, 500
_SEEN_MAX: Final = 250
# How soon a link is expected that should be up by now.
_SOON_S: Final = 600
_OFFSET: Final = 1 << 31
# 1 January 1970 was a Thursday: hours of the week are counted from Monday.
_EPOCH_HOUR: Final = 72


@dataclass(frozen=True, slots=True)
class Profile:
    """A mean (thousandths of what is observed) and a number of observations for each hour of the week or day."""

    milli: tuple[int, ...]
    seen: tuple[int, ...]

    @classmethod
    def empty(cls, hours: int) -> Self:
        """Return a profile that has seen nothing."""
        return cls((0,) * hours, (0,) * hours)

    def learn(self, hour: int, milli: int) -> Self:
        """Return the profile after an observation at an hour."""
        at = hour % len(self.seen)
        before, seen = self.milli[at], self.seen[at]
        mean = milli if not seen else before + (milli - before) // min(seen + 1, _NEWEST)
        return replace(
            self,
            milli=(*self.milli[:at], mean, *self.milli[at + 1 :]),
            seen=(*self.seen[:at], min(_SEEN_MAX, seen + 1), *self.seen[at + 1 :]),
        )

    def encode(self) -> bytes:
        """Return the profile as bytes."""
        cells = zip(self.milli, self.seen, strict=True)
        return b"".join((milli + _OFFSET).to_bytes(4, "big") + bytes((seen,)) for milli, seen in cells)

    @classmethod
    def decode(cls, data: bytes | None, hours: int) -> Self:
        """Return what `encode` wrote; an empty profile for anything else."""
        if data is None or len(data) != 5 * hours:
            return cls.empty(hours)
        cells = [data[at : at + 5] for at in range(0, len(data), 5)]
        return cls(tuple(int.from_bytes(each[:4], "big") - _OFFSET for each in cells), tuple(each[4] for each in cells))


def hour_of(now_s: float, offset: Offset) -> int:
    """Return the local hour, counted so that modulo 168 it is the hour of the week and modulo 24 that of the day."""
    return (int(now_s) + offset(int(now_s))) // HOUR_S + _EPOCH_HOUR


def next_contact_s(contacts: Profile, now_s: float, offset: Offset, horizon_s: float) -> float | None:
    """Return in how many seconds a link is usually up next, None if no such hour begins within the horizon.

    `contacts` is over the hours of the week. In an hour in which it usually is up, although it is not, it is expected
    soon.
    """
    first = hour_of(now_s, offset)
    into_s = (int(now_s) + offset(int(now_s))) % HOUR_S
    if _is_likely(contacts, first % WEEK_H):
        return float(min(_SOON_S, HOUR_S - into_s, horizon_s))
    for ahead in range(1, WEEK_H + 1):
        wait_s = ahead * HOUR_S - into_s
        if wait_s > horizon_s:
            return None
        at = (first + ahead) % WEEK_H
        if _is_likely(contacts, at):
            return float(wait_s)
    return None


def _is_likely(contacts: Profile, hour: int) -> bool:
    return contacts.seen[hour] >= _WEEKS_SEEN and contacts.milli[hour] >= _LIKELY_MILLI


def lowest_ahead(value_milli: int, changes: Profile, now_s: float, offset: Offset, *, hours: int = DAY_H) -> int | None:
    """Return the lowest value within the coming hours, if each hour of the day changes it as it usually does.

    None while a whole day was not seen yet. `value_milli` and the changes are thousandths of the channel's unit.
    """
    if not all(changes.seen):
        return None
    lowest = value = value_milli
    first = hour_of(now_s, offset)
    for ahead in range(hours):
        value += changes.milli[(first + ahead) % DAY_H]
        lowest = min(lowest, value)
    return lowest


def elapsed_hours(since_s: float, now_s: float) -> Sequence[int]:
    """Return the hour numbers (UTC) that ended between two instants, a week of them at most."""
    first, last = int(since_s) // HOUR_S, int(now_s) // HOUR_S
    return range(max(first, last - 7 * DAY_S // HOUR_S), last)
