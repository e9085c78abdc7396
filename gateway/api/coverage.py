"""How much of a truck's data is here: by channel and hour, by batch, and every gap in its queue by name."""

from __future__ import annotations

from typing import Literal

from gateway.api.auth import VIEWER
from gateway.api.evidence import epoch_text
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, Shape, Time, TruckPath, millis
from gateway.api.trucks import known_truck
from gateway.coverage import ChannelCoverage, channel_coverage, starts_of
from store.fleet.evidence import DAY_MS, HOUR_MS

_COVERAGE_MS = 30 * DAY_MS
# The grid of channels and steps is one answer: 64 channels of so many are a few megabytes.
_STEPS_MAX = 5_000
_HOURS_BY_DEFAULT = 92 * 24


class CoverageQuery(Shape, frozen=True):
    """The period to look at: the last 30 days if nothing is given. Steps are hours up to 92 days, else days."""

    since: Time | None = None
    until: Time | None = None
    step: Literal[3600, 86400] | None = None


class ChannelShape(Shape, frozen=True, omit_defaults=True):
    """One channel: of each step of the period the values that are here, and how many were due at its period.

    Nothing is due before the channel's first value, nor after now. `repaired` of the values are of a clock that was set
    later; it is left out where there is none.
    """

    n: str
    u: str
    count: tuple[int, ...]
    due: tuple[int, ...]
    repaired: tuple[int, ...] = ()


class RepairedShape(Shape, frozen=True):
    """Batches taken while a boot's clock was not set: `offset_ms` was told later and made wall times of theirs."""

    boot: str
    offset_ms: int
    batches: int
    rows: int
    first_ms: Millis
    last_ms: Millis


class EpochShape(Shape, frozen=True):
    """One epoch of the truck's queue: the sequences that are missing, and those that it dropped by policy.

    `dropped_rows` is how many rows of telemetry the truck says it dropped with them; what it folded is not among them,
    since summaries tell of it.
    """

    epoch: str
    started_ms: Millis
    last_ms: Millis
    highest: int
    missing: list[tuple[int, int]]
    dropped: list[tuple[int, int, str]]
    dropped_rows: int


class CoverageShape(Shape, frozen=True):
    """How much of a period is here. Parked batches wait for their schema, timeless ones for their boot's clock.

    `channels` count values in the steps that begin at `starts_ms`; batches `to_roll_up` are not in them yet.
    """

    truck: str
    since_ms: Millis
    until_ms: Millis
    batches: int
    rows: int
    first_ms: Millis | None
    last_ms: Millis | None
    parked: int
    timeless: int
    rejected: int
    to_roll_up: int
    repaired_rows: int
    repaired: list[RepairedShape]
    step_s: int
    starts_ms: tuple[Millis, ...]
    channels: list[ChannelShape]
    epochs: list[EpochShape]


@operation("GET", "/v1/trucks/{truck}/coverage", tag="telemetry", needs=VIEWER)
async def get_coverage(call: Call, path: TruckPath, query: CoverageQuery) -> CoverageShape:
    """Show how much of a truck's data of a period is here, by channel and hour or day, and name every gap."""
    await known_truck(call, path.truck)
    now_ms = call.api.services.now_ms()
    until_ms = millis(query.until, now_ms)
    since_ms = millis(query.since, until_ms - _COVERAGE_MS)
    step_ms = DAY_MS if query.step == 86_400 else HOUR_MS
    if query.step is None and until_ms - since_ms > _HOURS_BY_DEFAULT * HOUR_MS:
        step_ms = DAY_MS
    if until_ms - since_ms > _STEPS_MAX * step_ms:
        raise Problem(400, f"the period is longer than {_STEPS_MAX} steps; ask for a shorter one, or step=86400")
    found = await call.api.fleet.coverage(path.truck, since_ms, until_ms)
    channels = await channel_coverage(
        call.api.fleet, path.truck, since_ms=since_ms, until_ms=until_ms, step_ms=step_ms, now_ms=now_ms
    )
    return CoverageShape(
        truck=path.truck,
        since_ms=since_ms,
        until_ms=until_ms,
        batches=found.batches,
        rows=found.rows,
        first_ms=found.first_ms,
        last_ms=found.last_ms,
        parked=found.parked,
        timeless=found.timeless,
        rejected=found.rejected,
        to_roll_up=found.to_roll_up,
        repaired_rows=sum(each.rows for each in found.repaired),
        repaired=[
            RepairedShape(
                boot=epoch_text(each.boot),
                offset_ms=each.offset_ms,
                batches=each.batches,
                rows=each.rows,
                first_ms=each.first_ms,
                last_ms=each.last_ms,
            )
            for each in found.repaired
        ],
        step_s=step_ms // 1000,
        starts_ms=tuple(starts_of(since_ms, until_ms, step_ms)),
        channels=[_channel(each) for each in channels],
        epochs=[
            EpochShape(
                epoch=epoch_text(each.epoch),
                started_ms=each.started_ms,
                last_ms=each.last_ms,
                highest=each.highest,
                missing=list(each.missing),
                dropped=list(each.dropped),
                dropped_rows=each.dropped_rows,
            )
            for each in found.epochs
        ],
    )


def _channel(found: ChannelCoverage) -> ChannelShape:
    return ChannelShape(
        n=found.name,
        u=found.unit,
        count=tuple(found.count),
        due=tuple(found.due),
        repaired=tuple(found.repaired) if any(found.repaired) else (),
    )


OPERATIONS = (get_coverage,)
