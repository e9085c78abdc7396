"""When a budget will be used up, from a truck's own history: what each weekday has used, the newest weeks most.

Pure arithmetic. A weekday's figure is the mean of that weekday's days, each weighing half of the one four weeks later;
a weekday of which little is known borrows from all days, so that a truck of three days has a forecast, too. Days are
UTC's. Deliberately absent: any knowledge of what was sent; a rollout of last month counts as habit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000
HISTORY_DAYS: Final = 56
_HALF_LIFE_DAYS: Final = 28.0
# A weekday borrows the mean of all days with this weight, less as it is known better, and nothing after three weeks.
_BORROWED_WEIGHT: Final = 0.5
_KNOWN_WEIGHT: Final = 2.0
# 1970-01-01 was a Thursday.
_FIRST_WEEKDAY: Final = 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """`at_end`: the use of the whole period as expected; `exhausted_ms`: when the cap is reached, None if it holds.

    `by_weekday` is the expected use of a Monday, ..., Sunday; `days` is on how many days of history that stands.
    """

    at_end: int
    exhausted_ms: int | None
    by_weekday: tuple[int, ...]
    days: int


def weekday(day: int) -> int:
    """Return 0 for Monday to 6 for Sunday of a day counted from 1970-01-01."""
    return (day + _FIRST_WEEKDAY) % 7


def weekday_profile(days: Mapping[int, int], now_ms: int, begun_ms: int) -> tuple[tuple[float, ...], int]:
    """Return the expected use of each weekday, and on how many whole days that stands.

    `days` is the use by day (days since 1970; those that are missing used nothing), from the day after `begun_ms`, when
    the truck was first heard, up to yesterday. Of a truck of today the part of today so far is all that is known.
    """
    today = now_ms // DAY_MS
    first = max(today - HISTORY_DAYS, -(-begun_ms // DAY_MS))
    sums, weights = [0.0] * 7, [0.0] * 7
    for day in range(first, today):
        weight = 0.5 ** ((today - day) / _HALF_LIFE_DAYS)
        sums[weekday(day)] += weight * days.get(day, 0)
        weights[weekday(day)] += weight
    if not sum(weights):
        since_ms = max(begun_ms, today * DAY_MS)
        # Less than an hour says nothing about a day.
        share = max(now_ms - since_ms, 3_600_000) / DAY_MS
        return tuple([days.get(today, 0) / share] * 7), 0
    overall = sum(sums) / sum(weights)
    profile = []
    for total, weight in zip(sums, weights, strict=True):
        borrowed = _BORROWED_WEIGHT * max(0.0, 1 - weight / _KNOWN_WEIGHT)
        profile.append((total + borrowed * overall) / (weight + borrowed))
    return tuple(profile), today - first


def forecast(
    days: Mapping[int, int], *, used: int, cap: int | None, now_ms: int, end_ms: int, begun_ms: int
) -> Forecast:
    """Return what a period that ends at `end_ms` will have used, and when `cap` is reached; amounts in any unit."""
    profile, known = weekday_profile(days, now_ms, begun_ms)
    by_weekday = tuple(round(each) for each in profile)
    at_ms, spent = now_ms, float(used)
    exhausted_ms = now_ms if cap is not None and used >= cap else None
    while at_ms < end_ms:
        day = at_ms // DAY_MS
        until_ms = min(end_ms, (day + 1) * DAY_MS)
        more = profile[weekday(day)] * (until_ms - at_ms) / DAY_MS
        if cap is not None and exhausted_ms is None and spent + more >= cap:
            exhausted_ms = at_ms + round((until_ms - at_ms) * (cap - spent) / more)
        spent += more
        at_ms = until_ms
    return Forecast(round(spent), exhausted_ms, by_weekday, known)
