"""Coverage by channel and step: the values that are here beside those that were due, gaps and all.

Both come from the rollups: each knows how many values it holds and at which period they came.
"""

from __future__ import annotations

from dataclasses import dataclass

from store.fleet.evidence import HOUR_MS, Rollup
from store.fleet.fleet import FleetStore

_HOUR_S = HOUR_MS // 1000


@dataclass(frozen=True, slots=True)
class ChannelCoverage:
    """One channel: for each step of a period the values here, those due, and those whose clock was set later."""

    name: str
    unit: str
    count: list[int]
    due: list[int]
    repaired: list[int]


def starts_of(since_ms: int, until_ms: int, step_ms: int) -> range:
    """Return the beginnings of the steps that [since_ms, until_ms) touches (multiples of the step since 1970)."""
    return range(since_ms - since_ms % step_ms, max(since_ms, until_ms), step_ms)


async def channel_coverage(
    fleet: FleetStore, truck: str, *, since_ms: int, until_ms: int, step_ms: int, now_ms: int
) -> list[ChannelCoverage]:
    """Return the coverage of every channel that a truck ever had a value of; `step_ms` is an hour or a day.

    Steps are counted whole. What is due in a step without a value follows from the period before it, or else after it;
    so it does in a step of which only summaries tell, since they have the period of an hour.
    """
    starts = starts_of(since_ms, until_ms, step_ms)
    by_place: dict[tuple[str, str], dict[int, Rollup]] = {}
    for each in await fleet.rollups(truck, None, starts.start, max(starts.stop, starts.start), step_ms):
        by_place.setdefault((each.channel, each.unit), {})[each.start_ms] = each
    found = []
    for known in await fleet.channels_known(truck):
        steps = by_place.get((known.channel, known.unit), {})
        periods = [steps[start].period_s for start in starts if start in steps]
        period_s = next((each for each in periods if each != _HOUR_S), known.period_s)
        coverage = ChannelCoverage(known.channel, known.unit, [], [], [])
        for start in starts:
            rollup = steps.get(start)
            if rollup is not None and rollup.period_s != _HOUR_S:
                period_s = rollup.period_s
            # When in its first hour a channel began is not known: what came then is all that was due.
            begun_ms = max(start, known.first_ms + (HOUR_MS if start <= known.first_ms else 0))
            count = rollup.count if rollup is not None else 0
            coverage.count.append(count)
            coverage.due.append(max(max(0, min(start + step_ms, now_ms) - begun_ms) // (period_s * 1000), count))
            coverage.repaired.append(rollup.repaired if rollup is not None else 0)
        found.append(coverage)
    return found
