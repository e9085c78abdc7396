"""Where the truck is, from gpsd's JSON (gpsd_json(5), classes TPV and SKY).

A parked truck is the rule: a fix that stays within `hold_m` of the one held is the one held, and costs next to nothing
a row. Deliberately absent: time; receivers forget how often their weeks rolled over, so the clock is never set by one.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError
from edge.collectors.declared import check_picked, read_number, scaled
from edge.collectors.latest import Latest, rows_of
from edge.collectors.stream import connect

_WATCH: Final = b'?WATCH={"enable":true,"json":true};\n'
_METRES_A_DEGREE: Final = 111_320.0
_BAD_LINES_MAX: Final = 20
_FRESH_S_MIN: Final = 15.0  # receivers speak once a second; gpsd itself drops one that is silent
_SPEED_NOISE_KMH: Final = 3.0

_SPECS: Final = {
    # 11 m and 10 m: what a receiver on a roof is honestly good to, most days.
    "lat": ChannelSpec("lat", "lat", 10_000, 0, 0),
    "lon": ChannelSpec("lon", "lon", 10_000, 350_000, 0),
    "altitude": ChannelSpec("altitude", "m", 1, 1000, 0),
    "speed": ChannelSpec("speed", "km/h", 1, 0, 0),
    "fix": ChannelSpec("fix", "", 1, 3, 0),
    "satellites": ChannelSpec("satellites", "count", 1, 9, 1),
}


class GpsdSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`receiver` is the path that gpsd knows one by, if it has several."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 2947
    receiver: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    hold_m: Annotated[float, msgspec.Meta(ge=0, le=10_000)] = 50.0
    channels: tuple[str, ...] = ("lat", "lon", "speed", "fix")

    def check(self) -> None:
        """Refuse channels that are not there."""
        check_picked(self.channels, tuple(_SPECS))


@dataclass(frozen=True, slots=True)
class Fix:
    """A position in degrees and metres; `altitude_m` None in a two-dimensional fix."""

    lat: float
    lon: float
    altitude_m: float | None = None


class GpsdCollector(Collector[GpsdSettings]):
    """Listens to one gpsd."""

    settings_type: ClassVar[type[CollectorSettings]] = GpsdSettings

    def __init__(self, settings: GpsdSettings) -> None:
        super().__init__(settings)
        self._held: Fix | None = None  # outlives a reconnection: the truck has not moved because gpsd restarted

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels asked for."""
        specs = (_SPECS[name] for name in self.settings.channels)
        return tuple(
            ChannelSpec(self.channel_name(spec.name), spec.unit, spec.scale, spec.nominal, spec.typical_change)
            for spec in specs
        )

    @property
    def silence_hint(self) -> str:
        """Return what to look at if nothing comes."""
        return "gpsd reports nothing: cgps shows whether it hears a receiver"

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period while gpsd reports; `SourceError` when it is gone or its receiver is silent."""
        latest = Latest(len(self.settings.channels), fresh_s=max(_FRESH_S_MIN, self.period_s), clock=clock)
        async for row in rows_of(self._listen(latest, clock), latest, period_s=self.period_s, clock=clock):
            yield row

    async def _listen(self, latest: Latest, clock: Clock) -> None:
        place = self.settings.host, self.settings.port
        async with connect(*place, clock=clock, default="is gpsd running?") as stream:
            await stream.send(_WATCH)
            bad = 0
            while True:
                bad = 0 if self.take(await stream.line(), latest) else bad + 1
                if bad > _BAD_LINES_MAX:
                    raise SourceError("what answers is not gpsd")

    def take(self, line: bytes, latest: Latest) -> bool:
        """Take what a line reports into `latest`; return whether it was a report at all."""
        report = _read_report(line)
        if report is None:
            return False
        if self._is_ours(report):
            for name, value in self._values(report).items():
                if name in self.settings.channels:
                    latest.put(self.settings.channels.index(name), value)
        return True

    def _is_ours(self, report: dict[str, Any]) -> bool:
        return self.settings.receiver is None or report.get("device") == self.settings.receiver

    def _values(self, report: dict[str, Any]) -> dict[str, int | None]:
        if report.get("class") == "SKY":
            used = read_number(report.get("uSat"))
            if used is None and isinstance(report.get("satellites"), list):
                used = sum(isinstance(each, dict) and each.get("used") is True for each in report["satellites"])
            return {} if used is None else {"satellites": scaled(used, 1, 0, 500)}
        if report.get("class") != "TPV":
            return {}
        mode = read_number(report.get("mode"))
        fix = read_fix(report) if mode in (2.0, 3.0) else None
        if fix is not None:
            self._held = hold(self._held, fix, self.settings.hold_m)
            fix = self._held
        speed_m_s = read_number(report.get("speed")) if fix is not None else None
        speed_kmh = None if speed_m_s is None else speed_m_s * 3.6
        if speed_kmh is not None and speed_kmh < _SPEED_NOISE_KMH:
            speed_kmh = 0.0
        return {
            "lat": None if fix is None else scaled(fix.lat, _SPECS["lat"].scale),
            "lon": None if fix is None else scaled(fix.lon, _SPECS["lon"].scale),
            "altitude": None if fix is None or fix.altitude_m is None else scaled(fix.altitude_m, 1, -500, 9000),
            "speed": None if speed_kmh is None else scaled(speed_kmh, 1, 0, 300),
            "fix": None if mode is None else scaled(mode, 1, 0, 3),
        }


def read_fix(report: dict[str, Any]) -> Fix | None:
    """Return the position of a TPV report; None if it is not on Earth, or the 0, 0 of a receiver without one."""
    lat, lon = read_number(report.get("lat")), read_number(report.get("lon"))
    if lat is None or lon is None or not (abs(lat) <= 90 and abs(lon) <= 180) or (lat, lon) == (0.0, 0.0):
        return None
    altitude = read_number(report.get("altMSL", report.get("alt")))
    return Fix(lat, lon, altitude if altitude is not None and math.isfinite(altitude) else None)


def hold(held: Fix | None, fix: Fix, hold_m: float) -> Fix:
    """Return the fix held so far if the new one is within `hold_m` of it, else the new one."""
    if held is None or (held.altitude_m is None and fix.altitude_m is not None):
        return fix
    return held if distance_m(held, fix) <= hold_m else fix


def distance_m(one: Fix, other: Fix) -> float:
    """Return the distance over ground; on a flat map, which is exact enough where it decides."""
    east_deg = abs(one.lon - other.lon)
    east_deg = min(east_deg, 360.0 - east_deg) * math.cos(math.radians((one.lat + other.lat) / 2))
    return math.hypot(one.lat - other.lat, east_deg) * _METRES_A_DEGREE


def _read_report(line: bytes) -> dict[str, Any] | None:
    try:
        report = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return report if isinstance(report, dict) else None
