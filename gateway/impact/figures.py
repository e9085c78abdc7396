"""The figures of the impact report, out of what trucks signed: counted, never guessed, and with how much of it is here.

Learners appear as numbers of participants that a teacher typed, added up on the truck by session; nothing here or there
names one. Of fewer than `FEW` participants in a line the number is not told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gateway.coverage import channel_coverage
from gateway.fleetfile import FleetTruck
from protocol.billing import NANO_IN_MILLI
from protocol.numbers import DocumentKind, Outcome
from store.fleet.evidence import DAY_MS, HOUR_MS, Rollup
from store.fleet.fleet import FleetStore
from store.fleet.limits import PAGE_MAX
from store.fleet.records import Direction, TruckRecord

By = Literal["truck", "group", "country", "partner"]
FEW: Final = 5
SESSION_EVENT: Final = "class.session"
_SOLAR, _LOAD = ("pv_w", "panel_w"), ("load_w", "load_l1_w")
# What a session can be; an event that says more is not believed.
PARTICIPANTS_MAX: Final = 500
MINUTES_MAX: Final = 720


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line: a truck, or the sum of several. Hours are hours, energy kWh, money thousandths by currency.

    `due_hours` are those since each truck joined; `heard_hours` those of which telemetry is here; `coverage_percent` is
    the share of all values due that are. `participants` and `learner_hours` are null where fewer than five took part.
    """

    name: str
    trucks: int = 1
    sessions: int = 0
    participants: int | None = 0
    learner_hours: float | None = 0.0
    workstation_hours: float = 0.0
    due_hours: int = 0
    heard_hours: int = 0
    values_here: int = 0
    values_due: int = 0
    solar_kwh: float = 0.0
    load_kwh: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    money_milli: dict[str, int] = {}
    bundles: int = 0
    bundle_bytes: int = 0

    @property
    def coverage_percent(self) -> float | None:
        """The share of the values due that are here; None where none was due."""
        return round(100 * self.values_here / self.values_due, 1) if self.values_due else None

    @property
    def uptime_percent(self) -> float | None:
        """The share of the hours of which telemetry is here; None where none was due."""
        return round(100 * self.heard_hours / self.due_hours, 1) if self.due_hours else None


class Impact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole report. Times are Unix ms; `lines` are by `by`, `months` add up the fleet by calendar month (UTC)."""

    since_ms: Annotated[int, Meta(description="Unix milliseconds")]
    until_ms: Annotated[int, Meta(description="Unix milliseconds")]
    made_ms: Annotated[int, Meta(description="Unix milliseconds")]
    by: By
    total: Figures
    lines: list[Figures]
    months: list[Figures]


async def impact(
    fleet: FleetStore, described: Mapping[str, FleetTruck], *, since_ms: int, until_ms: int, now_ms: int, by: By
) -> Impact:
    """Return the report of [since_ms, until_ms), whole days (UTC). `described` are the trucks of the fleet file."""
    since_ms -= since_ms % DAY_MS
    until_ms = min(until_ms, now_ms)
    found: list[tuple[TruckRecord, list[tuple[str, Figures]]]] = []
    after: str | None = None
    while trucks := await fleet.trucks(after=after, limit=PAGE_MAX):
        after = trucks[-1].name
        for truck in trucks:
            begin_ms = max(since_ms, truck.enrolled_ms - truck.enrolled_ms % DAY_MS)
            end_ms = until_ms if truck.revoked_ms is None else min(until_ms, truck.revoked_ms)
            if begin_ms < end_ms:
                found.append((truck, await _by_month(fleet, truck, begin_ms, end_ms, now_ms)))
    months: dict[str, list[Figures]] = {}
    lines: dict[str, list[Figures]] = {}
    for truck, of_truck in found:
        whole = _summed(truck.name, [each for _, each in of_truck], trucks=1)
        lines.setdefault(_line_of(truck, described, by), []).append(whole)
        for month, each in of_truck:
            months.setdefault(month, []).append(each)
    every = [each for several in lines.values() for each in several]
    return Impact(
        since_ms=since_ms,
        until_ms=until_ms,
        made_ms=now_ms,
        by=by,
        total=_private(_summed("all", every)),
        lines=[_private(_summed(name, several)) for name, several in sorted(lines.items())],
        months=[_private(_summed(name, several)) for name, several in sorted(months.items())],
    )


def month_starts(since_ms: int, until_ms: int) -> list[tuple[str, int, int]]:
    """Return (name, start, end) of the calendar months (UTC) that a period touches, cut to it."""
    found = []
    start = datetime.fromtimestamp(since_ms / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while round(start.timestamp() * 1000) < until_ms:
        following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        begin_ms, end_ms = (round(each.timestamp() * 1000) for each in (start, following))
        found.append((start.strftime("%Y-%m"), max(since_ms, begin_ms), min(until_ms, end_ms)))
        start = following
    return found


async def _by_month(
    fleet: FleetStore, truck: TruckRecord, since_ms: int, until_ms: int, now_ms: int
) -> list[tuple[str, Figures]]:
    return [
        (name, await _figures(fleet, truck, begin_ms, end_ms, now_ms))
        for name, begin_ms, end_ms in month_starts(since_ms, until_ms)
    ]


async def _figures(fleet: FleetStore, truck: TruckRecord, since_ms: int, until_ms: int, now_ms: int) -> Figures:
    days = await fleet.rollups(truck.name, None, since_ms, until_ms, DAY_MS)
    covered = await channel_coverage(
        fleet, truck.name, since_ms=since_ms, until_ms=until_ms, step_ms=DAY_MS, now_ms=min(now_ms, until_ms)
    )
    sessions = await _sessions(fleet, truck.name, since_ms, until_ms)
    bundles = await _delivered(fleet, truck.name, since_ms, until_ms)
    up = down = 0
    money: dict[str, int] = {}
    for each in await fleet.ledger(truck.name, since_ms, until_ms):
        up, down = (up + each.bytes, down) if each.direction is Direction.UP else (up, down + each.bytes)
        if each.money_nano:
            money[each.currency] = money.get(each.currency, 0) + each.money_nano
    return Figures(
        name=truck.name,
        sessions=len(sessions),
        participants=sum(participants for participants, _ in sessions),
        learner_hours=sum(participants * minutes / 60 for participants, minutes in sessions),
        workstation_hours=_integral(days, "count", (".on", ".ws")),
        due_hours=-(-(until_ms - since_ms) // HOUR_MS),
        heard_hours=_hours_of(days),
        values_here=sum(min(have, due) for each in covered for have, due in zip(each.count, each.due, strict=True)),
        values_due=sum(sum(each.due) for each in covered),
        solar_kwh=_integral(days, "W", _SOLAR) / 1000,
        load_kwh=_integral(days, "W", _LOAD) / 1000,
        bytes_up=up,
        bytes_down=down,
        money_milli={currency: -(-nano // NANO_IN_MILLI) for currency, nano in money.items()},
        bundles=len(bundles),
        bundle_bytes=sum(bundles),
    )


def _integral(days: Iterable[Rollup], unit: str, endings: Sequence[str]) -> float:
    """Return the sum over days of a channel's mean times the hours it has values of; the first ending there is."""
    found = [each for each in days if each.unit == unit and each.count]
    for ending in endings:
        chosen = [each for each in found if each.channel.endswith(ending)]
        if chosen:
            return sum(each.sum / each.count * _hours(each) for each in chosen)
    return 0.0


def _hours(day: Rollup) -> float:
    """Return the hours of a day of which a channel has values."""
    return min(24.0, day.count * day.period_s / 3_600)


def _hours_of(days: Iterable[Rollup]) -> int:
    """Return the hours of which there is telemetry: of each day those of its best channel."""
    best: dict[int, float] = {}
    for each in days:
        best[each.start_ms] = max(best.get(each.start_ms, 0.0), _hours(each))
    return round(sum(best.values()))


async def _sessions(fleet: FleetStore, truck: str, since_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """Return (participants, minutes) of the lessons that teachers entered."""
    found: list[tuple[int, int]] = []
    after: int | None = None
    while page := await fleet.events(truck, since_ms, until_ms, [SESSION_EVENT], after, PAGE_MAX):
        after = page[-1].id
        for event in page:
            values = json.loads(event.values_json)
            participants, minutes = values.get("participants"), values.get("minutes")
            # What is no number of people or of minutes is somebody's script, not a lesson.
            if (
                type(participants) is int
                and type(minutes) is int
                and 0 < participants <= PARTICIPANTS_MAX
                and 0 < minutes <= MINUTES_MAX
            ):
                found.append((participants, minutes))
    return found


async def _delivered(fleet: FleetStore, truck: str, since_ms: int, until_ms: int) -> list[int]:
    """Return the sizes of the bundle versions that the truck says it applied in a period."""
    sizes: dict[bytes, int] = {}
    after: int | None = None
    while page := await fleet.receipts(truck, after, PAGE_MAX):
        after = page[-1].id
        for each in page:
            is_applied = each.document is DocumentKind.MANIFEST and each.outcome is Outcome.APPLIED
            if is_applied and since_ms <= each.received_ms < until_ms and each.digest not in sizes:
                bundle = await fleet.bundle_of_manifest(each.digest)
                sizes[each.digest] = 0 if bundle is None else bundle.size
    return list(sizes.values())


def _line_of(truck: TruckRecord, described: Mapping[str, FleetTruck], by: By) -> str:
    if by == "truck":
        return truck.name
    if by == "group":
        return truck.group
    known = described.get(truck.name)
    if known is None:
        return "(not in the fleet file)"
    return known.country if by == "country" else known.partner or "(no partner)"


def _summed(name: str, several: Sequence[Figures], trucks: int | None = None) -> Figures:
    money: dict[str, int] = {}
    for each in several:
        for currency, milli in each.money_milli.items():
            money[currency] = money.get(currency, 0) + milli
    sums = {
        field: sum(getattr(each, field) or 0 for each in several)
        for field in Figures.__struct_fields__
        if field not in ("name", "trucks", "money_milli")
    }
    count = trucks if trucks is not None else sum(each.trucks for each in several)
    return Figures(name=name, trucks=count, money_milli=money, **sums)


def _private(figures: Figures) -> Figures:
    """Return a line without numbers that could be of single learners, and with the digits that mean something."""
    few = 0 < (figures.participants or 0) < FEW
    return msgspec.structs.replace(
        figures,
        participants=None if few else figures.participants,
        learner_hours=None if few else round(figures.learner_hours or 0, 1),
        workstation_hours=round(figures.workstation_hours, 1),
        solar_kwh=round(figures.solar_kwh, 2),
        load_kwh=round(figures.load_kwh, 2),
    )
