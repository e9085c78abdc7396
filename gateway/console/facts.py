"""What a person wants to know of a truck at a glance, out of its newest values: found by unit and name.

Names of channels begin with their collector's name, so a role is told by the unit (SenML) and how the name ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from store.fleet.alarms import AlarmRecord
from store.fleet.evidence import LatestValue
from store.fleet.records import TruckRecord

BATTERY_UNIT = "%EL"
# What a glance needs: charge, position, power, and counts of workstations.
GLANCE_UNITS = (BATTERY_UNIT, "lat", "lon", "W", "count")
_DAY_MS = 86_400_000
SILENT_MS, LOST_MS = 3 * _DAY_MS, 21 * _DAY_MS
BATTERY_LOW = 25.0
# Alarms that a glance tells in words of its own.
_TOLD_ABOVE = frozenset({"truck.silent", "truck.never-heard", "truck.battery-low"})


@dataclass(frozen=True, slots=True)
class Reading:
    """A value and when it was taken (Unix ms)."""

    value: float
    time_ms: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that somebody should do: how bad (1 look, 2 act), what is so, and the next step.

    Texts are English with `{name}` for values, as catalogues of other languages know them.
    """

    level: int
    text: str
    step: str
    values: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Glance:
    """One truck at a glance. `missing` counts parcels that are under way or lost."""

    truck: TruckRecord
    battery: Reading | None = None
    solar_w: Reading | None = None
    load_w: Reading | None = None
    workstations: Reading | None = None
    position: tuple[float, float] | None = None
    missing: int = 0
    attention: tuple[Attention, ...] = ()

    @property
    def level(self) -> int:
        """How bad the worst is: 0 nothing, 1 look, 2 act."""
        return max((each.level for each in self.attention), default=0)


def glance(
    truck: TruckRecord, values: Sequence[LatestValue], missing: int, alarms: Sequence[AlarmRecord], now_ms: int
) -> Glance:
    """Return a truck's glance; `alarms` are those of it that hold."""
    battery = _newest(values, BATTERY_UNIT, ("soc", "charge", ""))
    return Glance(
        truck=truck,
        battery=battery,
        solar_w=_newest(values, "W", ("pv_w", "panel_w")),
        load_w=_newest(values, "W", ("load_w", "load_l1_w")),
        workstations=_newest(values, "count", (".on", ".ws")),
        position=_position(values),
        missing=missing,
        attention=tuple(_attention(truck, battery, alarms, now_ms)),
    )


def _attention(
    truck: TruckRecord, battery: Reading | None, alarms: Sequence[AlarmRecord], now_ms: int
) -> Iterable[Attention]:
    if truck.revoked_ms is not None:
        return
    if truck.last_heard_ms is None:
        if now_ms - truck.enrolled_ms > _DAY_MS:
            yield Attention(2, "joined and was never heard", "look at the truck's links: digitruck-edge linkcheck")
        return
    silent_ms = now_ms - truck.last_heard_ms
    if silent_ms > LOST_MS:
        yield Attention(
            2,
            "silent for {days} days",
            "call the site: is it powered, is the SIM paid?",
            {"days": silent_ms // _DAY_MS},
        )
    elif silent_ms > SILENT_MS:
        yield Attention(1, "silent for {days} days", "is it on tour or switched off?", {"days": silent_ms // _DAY_MS})
    if battery is not None and battery.value <= BATTERY_LOW:
        yield Attention(
            2 if battery.value <= BATTERY_LOW / 2 else 1,
            "battery at {percent} %",
            "switch off what is not needed; look at the solar chart",
            {"percent": round(battery.value)},
        )
    others = [each for each in alarms if each.rule not in _TOLD_ABOVE and each.acknowledged_ms is None]
    if others:
        worst = 2 if any(each.severity == "critical" for each in others) else 1
        yield Attention(
            worst, "alarms: {count}", "open the truck: each alarm has its next step", {"count": len(others)}
        )


def _newest(values: Sequence[LatestValue], unit: str, endings: Sequence[str]) -> Reading | None:
    for ending in endings:
        found = [each for each in values if each.unit == unit and each.channel.endswith(ending)]
        if found:
            best = max(found, key=lambda each: each.time_ms)
            return Reading(best.value, best.time_ms)
    return None


def _position(values: Sequence[LatestValue]) -> tuple[float, float] | None:
    latitude, longitude = _newest(values, "lat", ("",)), _newest(values, "lon", ("",))
    if latitude is None or longitude is None or abs(latitude.value) > 90 or abs(longitude.value) > 180:
        return None
    return latitude.value, longitude.value
