"""Windows of the local week: when a link is free, may be used at all, or lessons are on. With their text form.

`mon-fri 22:00-06:00; sun 00:00-24:00`: days, then local times. A window whose end is not after its beginning goes on
into the next day; the day is the one on which it begins. Local time is UTC plus an offset that the caller brings
(`Offset`): where the time zone's rules lie is a file, and none of this module's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from protocol.errors import MalformedError
from protocol.wire import WireArray

MINUTE_S: Final = 60
DAY_S: Final = 86_400
WEEK_S: Final = 7 * DAY_S
_DAY_MIN: Final = 1_440
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# 1 January 1970 was a Thursday.
_EPOCH_WEEKDAY: Final = 3

Offset: TypeAlias = Callable[[int], int]
"""Seconds that local time is ahead of UTC at a Unix time."""


def utc(_: int) -> int:
    """Return the offset of UTC: none."""
    return 0


class Window(WireArray, frozen=True):
    """Local times of some days of the week: `days` has bit 0 for Monday; minutes are of the day.

    `until_min` that is not after `from_min` is of the next day: both equal is a whole day.
    """

    days: Annotated[int, Meta(ge=1, le=127)]
    from_min: Annotated[int, Meta(ge=0, le=1_439)]
    until_min: Annotated[int, Meta(ge=0, le=1_440)]

    @property
    def length_min(self) -> int:
        """How many minutes it is open."""
        return (self.until_min - self.from_min - 1) % _DAY_MIN + 1


def is_open(windows: Sequence[Window], now_s: int, offset: Offset, *, margin_s: int = 0) -> bool:
    """Return whether `now_s` is in one of the windows, and no closer to its ends than `margin_s`."""
    return any(margin_s <= at < each.length_min * MINUTE_S - margin_s for each, at in _openings(windows, now_s, offset))


def next_opening(windows: Sequence[Window], now_s: int, offset: Offset) -> int | None:
    """Return when one of the windows opens next (Unix s), `now_s` if one is open; None if there are no windows."""
    if is_open(windows, now_s, offset):
        return now_s
    starts = [start for each in windows for start in _starts(each, now_s, offset) if start > now_s]
    return min(starts, default=None)


def closing(windows: Sequence[Window], now_s: int, offset: Offset) -> int | None:
    """Return when the window that is open now closes (the last of them, if several are); None if none is open."""
    ends = [
        now_s - at + each.length_min * MINUTE_S
        for each, at in _openings(windows, now_s, offset)
        if at < each.length_min * MINUTE_S
    ]
    return max(ends, default=None)


def open_seconds(windows: Sequence[Window], from_s: int, until_s: int, offset: Offset) -> int:
    """Return for how many seconds of a span of at most some weeks a window is open (overlaps count once)."""
    spans: list[tuple[int, int]] = []
    for each in windows:
        day_s = from_s - DAY_S
        while day_s < until_s:
            spans += [
                (max(start, from_s), min(start + each.length_min * MINUTE_S, until_s))
                for start in _starts(each, day_s, offset, days=1)
            ]
            day_s += DAY_S
    total, reached = 0, from_s
    for start, end in sorted(set(spans)):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


def _openings(windows: Sequence[Window], now_s: int, offset: Offset) -> list[tuple[Window, int]]:
    """Return for each window that began today or yesterday how many seconds ago that was."""
    local_s = now_s + offset(now_s)
    weekday, second = _weekday(local_s), local_s % DAY_S
    found = []
    for each in windows:
        for days_ago in (0, 1):
            at = second + days_ago * DAY_S - each.from_min * MINUTE_S
            if at >= 0 and each.days >> (weekday - days_ago) % 7 & 1:
                found.append((each, at))
    return found


def _starts(window: Window, now_s: int, offset: Offset, *, days: int = 8) -> list[int]:
    local_s = now_s + offset(now_s)
    midnight = local_s - local_s % DAY_S
    found = []
    for day in range(days):
        local = midnight + day * DAY_S + window.from_min * MINUTE_S
        if window.days >> _weekday(local) & 1:
            found.append(to_utc(local, offset))
    return found


def to_utc(local_s: int, offset: Offset) -> int:
    """Return the Unix time of a local time; of one that a clock change skips or doubles, the one after the change."""
    guess = local_s - offset(local_s)
    return local_s - offset(guess)


def _weekday(local_s: int) -> int:
    return (local_s // DAY_S + _EPOCH_WEEKDAY) % 7


# -- text --------------------------------------------------------------------------------------------------------------

_WINDOW = re.compile(r"([a-z,-]+|daily) ([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")


def parse_windows(text: str) -> tuple[Window, ...]:
    """Return the windows that a text says, e.g. `mon-fri 22:00-06:00; sat,sun 00:00-24:00`; raise `MalformedError`."""
    return tuple(_parse(part.strip().lower()) for part in text.split(";") if part.strip())


def write_windows(windows: Sequence[Window]) -> str:
    """Return the text of windows, which `parse_windows` reads back."""
    return "; ".join(
        f"{_write_days(each.days)} {each.from_min // 60:02d}:{each.from_min % 60:02d}"
        f"-{each.until_min // 60:02d}:{each.until_min % 60:02d}"
        for each in windows
    )


def _parse(text: str) -> Window:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise MalformedError(f"{text!r} is not a window: write `mon-fri 22:00-06:00`, `daily 00:00-24:00`")
    days, hour, minute, end_hour, end_minute = found.groups()
    from_min, until_min = int(hour) * 60 + int(minute), int(end_hour) * 60 + int(end_minute)
    if from_min >= _DAY_MIN or until_min > _DAY_MIN or int(minute) > 59 or int(end_minute) > 59:
        raise MalformedError(f"{text!r} is not a window: times go from 00:00 to 24:00")
    return Window(_parse_days(days), from_min, until_min)


def _parse_days(text: str) -> int:
    if text == "daily":
        return 127
    bits = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last and last not in _DAYS):
            raise MalformedError(f"{part!r} is no day: write {', '.join(_DAYS)} or daily")
        at = _DAYS.index(first)
        bits |= 1 << at
        while last and _DAYS[at] != last:
            at = (at + 1) % 7
            bits |= 1 << at
    return bits


def _write_days(bits: int) -> str:
    if bits == 127:
        return "daily"
    runs: list[list[int]] = []
    for at in range(7):
        if not bits >> at & 1:
            continue
        if runs and runs[-1][-1] == at - 1:
            runs[-1].append(at)
        else:
            runs.append([at])
    return ",".join(_DAYS[run[0]] if len(run) == 1 else f"{_DAYS[run[0]]}-{_DAYS[run[-1]]}" for run in runs)
