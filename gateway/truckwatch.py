"""Alarms about trucks: silent, low on battery, a full disk, moving at night, parcels missing, documents refused.

Each rule looks at what the gateway knows of a truck now, so it ends by itself. Thresholds are `[alerts]` in
gateway.toml. What a rule needs of the past (where a truck stood, since when parcels are missing) is in memory: after a
restart such an alarm comes later, not never.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from gateway.config import AlertSettings
from gateway.forks import CLONE_RULE
from protocol.numbers import Outcome
from store.fleet.alarms import AlarmNote, Severity
from store.fleet.evidence import LatestValue
from store.fleet.fleet import FleetStore
from store.fleet.limits import PAGE_MAX
from store.fleet.records import HoldingRecord, TruckRecord

log = structlog.get_logger("gateway.truckwatch")

RULES: Final = "truck."
UNITS: Final = ("%EL", "%", "lat", "lon")
_PAUSE_S: Final = 60.0
_FIRST_PAUSE_S: Final = 10.0
_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
_MISSING_MS: Final = _DAY_MS
# Local time follows from the longitude: from 22 to 5 a classroom stands.
_NIGHT_FROM_H, _NIGHT_TO_H = 22, 5
_EARTH_KM: Final = 6_371.0
_FRESH_MS: Final = 6 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Place:
    """A position in degrees, when a truck was there (Unix ms)."""

    latitude: float
    longitude: float
    time_ms: int


@dataclass(slots=True)
class Memory:
    """What is remembered of one truck: where it stood when the night began, since when parcels are missing."""

    stood: Place | None = None
    missing_since_ms: int | None = None


class TruckWatch:
    """Looks at every truck now and then."""

    def __init__(self, fleet: FleetStore, settings: AlertSettings, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._settings = settings
        self._now_ms = now_ms
        self._memories: dict[str, Memory] = {}

    async def run(self) -> None:
        """Look for ever, until cancelled."""
        await asyncio.sleep(_FIRST_PAUSE_S)
        while True:
            await self.look()
            await asyncio.sleep(_PAUSE_S)

    async def look(self) -> None:
        """Raise and clear the alarms of the whole fleet once."""
        with_alarms = await self._with_alarms()
        missing = await self._fleet.missing_parcels()
        after: str | None = None
        while trucks := await self._fleet.trucks(after=after, limit=PAGE_MAX):
            after = trucks[-1].name
            values: dict[str, list[LatestValue]] = {}
            for each in await self._fleet.latest_of_units(UNITS, [truck.name for truck in trucks]):
                values.setdefault(each.truck, []).append(each)
            refused = await self._fleet.refused_holdings([truck.name for truck in trucks])
            for truck in trucks:
                await self._judge(truck, values.get(truck.name, ()), missing.get(truck.name, 0), refused, with_alarms)

    async def _judge(
        self,
        truck: TruckRecord,
        values: Sequence[LatestValue],
        missing: int,
        refused: Sequence[HoldingRecord],
        with_alarms: Collection[str],
    ) -> None:
        now_ms = self._now_ms()
        memory = self._memories.setdefault(truck.name, Memory())
        remember(memory, values, missing, now_ms)
        noted = list(
            notes_of(
                truck,
                values,
                missing,
                [each for each in refused if each.truck == truck.name],
                memory,
                self._settings,
                now_ms,
            )
        )
        # Most trucks have none and had none: they cost no transaction.
        if noted or truck.name in with_alarms:
            for raised in await self._fleet.settle_alarms(RULES, noted, now_ms, truck=truck.name):
                log.warning("alarm.raised", rule=raised.rule, truck=raised.truck, subject=raised.subject)

    async def _with_alarms(self) -> set[str]:
        found: set[str] = set()
        after = None
        while page := await self._fleet.alarms(after=after, limit=PAGE_MAX):
            found |= {each.truck for each in page if each.rule.startswith(RULES)}
            for each in page:
                if each.rule == CLONE_RULE and each.acknowledged_ms is not None:
                    # Nothing says that a clone is gone: it is over when somebody has looked, and is raised again.
                    await self._fleet.settle_alarms(CLONE_RULE, [], self._now_ms(), truck=each.truck)
            after = page[-1].id
        return found


def notes_of(
    truck: TruckRecord,
    values: Sequence[LatestValue],
    missing: int,
    refused: Sequence[HoldingRecord],
    memory: Memory,
    settings: AlertSettings,
    now_ms: int,
) -> Iterator[AlarmNote]:
    """Yield the alarms that hold of a truck; none of one that was shut out."""
    if truck.revoked_ms is not None:
        return
    name = truck.name
    if truck.last_heard_ms is None:
        if now_ms - truck.enrolled_ms > _DAY_MS:
            step = "on the truck: digitruck-edge linkcheck"
            yield AlarmNote(f"{RULES}never-heard", name, "", "critical", "it joined and was never heard", step)
    else:
        days = (now_ms - truck.last_heard_ms) / _DAY_MS
        if days >= settings.silent_days:
            severity: Severity = "critical" if days >= settings.lost_days else "warning"
            step = "call the site: is it powered, on tour, is the SIM paid?"
            yield AlarmNote(f"{RULES}silent", name, "", severity, f"silent for {math.floor(days)} days", step)
    yield from _of_values(name, values, settings, now_ms)
    if missing and memory.missing_since_ms is not None and now_ms - memory.missing_since_ms >= _MISSING_MS:
        text = f"{missing} parcels have been missing for a day"
        yield AlarmNote(f"{RULES}gap", name, "", "warning", text, f"digitruck coverage {name}")
    at = _position(values)
    if at is not None and memory.stood is not None and _is_night(at):
        moved = distance_km(memory.stood, at)
        if moved >= settings.moved_km:
            text = f"it has moved {moved:.0f} km since last night began"
            step = f"call the site and the police if nobody knows of it; digitruck samples {name} shows where it is"
            yield AlarmNote(f"{RULES}moved", name, "", "critical", text, step)
    for each in refused:
        what = each.document.name.lower()
        how = "rolled back" if each.outcome is Outcome.ROLLED_BACK else "rejected"
        text = f"{what} {each.name} version {each.version} was {how}: {each.reason}"[:200]
        yield AlarmNote(f"{RULES}refused", name, f"{what}:{each.name}"[:80], "warning", text, f"digitruck truck {name}")


def remember(memory: Memory, values: Sequence[LatestValue], missing: int, now_ms: int) -> None:
    """Note what later looks need: where the truck is while it is day, and since when parcels are missing."""
    if not missing:
        memory.missing_since_ms = None
    elif memory.missing_since_ms is None:
        memory.missing_since_ms = now_ms
    at = _position(values)
    if at is not None and (memory.stood is None or not _is_night(at)):
        memory.stood = at


def distance_km(one: Place, other: Place) -> float:
    """Return the distance on the sphere (haversine)."""
    first, second = math.radians(one.latitude), math.radians(other.latitude)
    half_lat, half_lon = (second - first) / 2, math.radians(other.longitude - one.longitude) / 2
    a = math.sin(half_lat) ** 2 + math.cos(first) * math.cos(second) * math.sin(half_lon) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(a)))


def _of_values(name: str, values: Sequence[LatestValue], settings: AlertSettings, now_ms: int) -> Iterator[AlarmNote]:
    charges = [each for each in values if each.unit == "%EL" and now_ms - each.time_ms < _FRESH_MS]
    for each in charges:
        if each.value <= settings.battery_low_percent:
            severity: Severity = "critical" if each.value <= settings.battery_low_percent / 2 else "warning"
            text = f"battery at {each.value:.0f} % ({each.channel})"
            yield AlarmNote(f"{RULES}battery-low", name, each.channel, severity, text, "switch off what is not needed")
    for each in values:
        if each.unit == "%" and each.channel.endswith("disk_used") and each.value >= settings.disk_full_percent:
            text = f"its disk is {each.value:.0f} % full"
            step = "take a bundle away: digitruck rollout create BUNDLE --remove"
            yield AlarmNote(f"{RULES}disk-full", name, each.channel, "warning", text, step)


def _position(values: Sequence[LatestValue]) -> Place | None:
    latitudes = [each for each in values if each.unit == "lat"]
    longitudes = {each.channel.rpartition(".")[0]: each for each in values if each.unit == "lon"}
    for each in sorted(latitudes, key=lambda value: -value.time_ms):
        other = longitudes.get(each.channel.rpartition(".")[0])
        if other is not None:
            return Place(each.value, other.value, each.time_ms)
    return None


def _is_night(at: Place) -> bool:
    local = datetime.fromtimestamp(at.time_ms / 1000, UTC) + timedelta(hours=at.longitude / 15)
    return local.hour >= _NIGHT_FROM_H or local.hour < _NIGHT_TO_H
