"""What the truck knows of itself that bears on spending: where it is, its battery, its lessons, and its usual contacts.

Position, network and battery are read from the rows of its own collectors as they pass (`watch`); once an hour it is
noted which links were heard and how far the battery moved (`observe`), and the profiles are kept as settings.
Deliberately absent: any decision; `protocol.scheduler` makes those.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from edge.clock import Clock
from protocol.billing import NOWHERE, Place
from protocol.profiles import DAY_H, HOUR_S, WEEK_H, Profile, hour_of, lowest_ahead, next_contact_s
from protocol.scheduler import BULK_HORIZON_S, FINE, Conditions
from protocol.schema import Channel
from protocol.tariffs import Power, Timetable
from protocol.windows import closing, is_open, utc
from store.settings import Settings
from store.zones import offset_of

# Older than that, what was measured says nothing of now.
_FRESH_S: Final = 6 * 3_600.0
_BATTERY_FRESH_S: Final = 1_800.0
_CONTACTS, _BATTERY = "contacts:", "battery-by-hour:"
_OPERATOR: Final = "operator"  # the channel of a modem: MCC and MNC as one number
_HUNDREDTHS, _MILLI = 100, 1_000
# An MNC has two digits, or three where the whole number has six.
_SIX_DIGITS: Final = 100_000

OnRow = Callable[[str, float, tuple[int | None, ...]], Awaitable[None]]


class Heard(Protocol):
    """A link, as far as its habits are concerned."""

    name: str
    usable: bool
    last_contact: float | None


class Habits:
    """The truck's own conditions, now and as they usually are."""

    def __init__(self, settings: Settings, clock: Clock, links: Iterable[str]) -> None:
        """Load the profiles; on the thread that owns the database, as `observe`."""
        self._settings = settings
        self._clock = clock
        self._contacts = {link: Profile.decode(settings.get(_CONTACTS + link), WEEK_H) for link in links}
        self._battery: Profile = Profile.empty(DAY_H)
        self._power: Power | None = None
        self._timetable: Timetable | None = None
        self._channels: dict[str, tuple[Channel, ...]] = {}
        self._seen: dict[str, tuple[float, float]] = {}  # by what it is: value, when (monotonic)
        self._hour: int | None = None
        self._battery_at_hour: int | None = None

    def set_rules(self, power: Power | None, timetable: Timetable | None) -> None:
        """Take what a configuration says; raise `UnknownZoneError`."""
        if timetable is not None:
            offset_of(timetable.zone)
        if power is not None and (self._power is None or power.channel != self._power.channel):
            self._battery = Profile.decode(self._settings.get(_BATTERY + power.channel), DAY_H)
            self._seen.pop(power.channel, None)
        self._power, self._timetable = power, timetable

    # -- what passes --------------------------------------------------------------------------------------------------

    def watch(self, on_row: OnRow, channels: Mapping[str, Sequence[Channel]]) -> OnRow:
        """Return `on_row` with a look at each row first; `channels` are those of each collector."""
        self._channels = {name: tuple(each) for name, each in channels.items()}

        async def look(name: str, monotonic_s: float, cells: tuple[int | None, ...]) -> None:
            for channel, value in zip(self._channels.get(name, ()), cells, strict=False):
                if value is not None:
                    self._look(channel, value / channel.scale, monotonic_s)
            await on_row(name, monotonic_s, cells)

        return look

    def _look(self, channel: Channel, value: float, at_s: float) -> None:
        if self._power is not None and channel.name == self._power.channel:
            self._seen[channel.name] = value, at_s
        if channel.unit in ("lat", "lon"):
            self._seen[channel.unit] = value, at_s
        elif channel.name.rpartition(".")[2] == _OPERATOR:
            self._seen[_OPERATOR] = value, at_s

    def _fresh(self, name: str, within_s: float) -> float | None:
        value, at_s = self._seen.get(name, (0.0, float("-inf")))
        return value if self._clock.monotonic() - at_s <= within_s else None

    # -- how it is now ------------------------------------------------------------------------------------------------

    def place(self) -> Place:
        """Return where the truck is, as far as its modem and its receiver say."""
        network = self._fresh(_OPERATOR, _FRESH_S)
        north, east = self._fresh("lat", _FRESH_S), self._fresh("lon", _FRESH_S)
        if network is None and (north is None or east is None):
            return NOWHERE
        country = None if not network else int(network) // (1_000 if network >= _SIX_DIGITS else 100)
        if north is None or east is None:
            return Place(country)
        return Place(country, round(north * _HUNDREDTHS), round(east * _HUNDREDTHS))

    def conditions(self) -> Conditions:
        """Return what the truck can afford now: the battery, and the lessons."""
        now = self._clock.wall_s()
        lessons_left_s = None
        if self._timetable is not None and now is not None:
            offset = offset_of(self._timetable.zone)
            if is_open(self._timetable.lessons, int(now), offset):
                ends = closing(self._timetable.lessons, int(now), offset)
                lessons_left_s = None if ends is None else ends - now
        battery = self._battery_milli()
        power = self._power
        if power is None or battery is None:
            if lessons_left_s is None:
                return FINE
            return Conditions(lessons=True, lessons_left_s=lessons_left_s)
        lowest = None if now is None or not power.floor_milli else lowest_ahead(battery, self._battery, now, utc)
        falls = lowest is not None and lowest < power.floor_milli
        return Conditions(
            lessons=lessons_left_s is not None,
            lessons_left_s=lessons_left_s,
            low_for_bulk=battery < power.bulk_below_milli or falls,
            low_for_normal=battery < power.normal_below_milli,
            channel=power.channel,
        )

    def _battery_milli(self) -> int | None:
        if self._power is None:
            return None
        value = self._fresh(self._power.channel, _BATTERY_FRESH_S)
        return None if value is None else round(value * _MILLI)

    # -- how it usually is --------------------------------------------------------------------------------------------

    def contact_s(self, link: str) -> float | None:
        """Return in how many seconds a link is usually up next, None if it usually is not within a week."""
        now = self._clock.wall_s()
        profile = self._contacts.get(link)
        return None if now is None or profile is None else next_contact_s(profile, now, utc, BULK_HORIZON_S)

    def observe(self, links: Iterable[Heard]) -> dict[str, bytes]:
        """Note the hour that has ended, at most once; return the settings that changed, for `keep`."""
        now = self._clock.wall_s()
        if now is None:
            return {}
        hour, battery = hour_of(now, utc), self._battery_milli()
        before, battery_before = self._hour, self._battery_at_hour
        if before == hour:
            return {}
        self._hour, self._battery_at_hour = hour, battery
        if before != hour - 1:
            return {}  # the first of this life: the daemon did not see the whole hour before
        changed = {}
        for link in links:
            last = link.last_contact
            heard = last is not None and self._clock.monotonic() - last <= HOUR_S + now % HOUR_S
            # A link that nobody tried says nothing: only one that was heard, or that failed, is learnt from.
            if link.name in self._contacts and (heard or not link.usable):
                learnt = self._contacts[link.name].learn(before, _MILLI if heard else 0)
                self._contacts[link.name] = learnt
                changed[_CONTACTS + link.name] = learnt.encode()
        if self._power is not None and battery is not None and battery_before is not None:
            self._battery = self._battery.learn(before, battery - battery_before)
            changed[_BATTERY + self._power.channel] = self._battery.encode()
        return changed

    def keep(self, changed: Mapping[str, bytes]) -> None:
        """Write profiles down; on the thread that owns the database."""
        for name, value in changed.items():
            self._settings.put(name, value)
