"""A UPS by Network UPS Tools: asks upsd for the variables of one UPS, in its text protocol.

From "Network UPS Tools developer guide", chapter 9. The status flags become one channel each, so that a chart and a
limit can use them. Deliberately absent: passwords and commands; reading needs none, and a truck does not switch.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, each_period
from edge.collectors.declared import check_picked, read_number, scaled
from edge.collectors.stream import ANSWER_S_MAX, Stream, connect

_VARIABLES_MAX: Final = 300
_VARIABLE: Final = re.compile(r'VAR \S+ (?P<name>\S+) "(?P<value>(?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class _Variable:
    """A channel made of a NUT variable: `divisor` of its units make the channel's, within a plausible range."""

    variable: str
    unit: str
    decimals: int
    divisor: int
    minimum: float
    maximum: float
    nominal: int = 0


# A UPS' own sensors are good to a volt and a percent; more digits are noise that is paid for.
_VARIABLES: Final[Mapping[str, _Variable]] = MappingProxyType(
    {
        "charge": _Variable("battery.charge", "%EL", 0, 1, 0, 100, 100),
        "runtime": _Variable("battery.runtime", "min", 0, 60, 0, 100_000, 30),
        "battery_v": _Variable("battery.voltage", "V", 1, 1, 0, 1000, 270),
        "input_v": _Variable("input.voltage", "V", 0, 1, 0, 1000, 230),
        "output_v": _Variable("output.voltage", "V", 0, 1, 0, 1000, 230),
        "load": _Variable("ups.load", "%", 0, 1, 0, 500, 20),
        "temperature": _Variable("ups.temperature", "Cel", 0, 1, -60, 150, 30),
    }
)
# "Status data" of the same guide: OB is on battery, LB low battery, RB replace battery.
_FLAGS: Final[Mapping[str, str]] = MappingProxyType({"on_battery": "OB", "low_battery": "LB", "replace_battery": "RB"})
_KNOWN: Final = (*_VARIABLES, *_FLAGS)


class NutSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`ups` is the name in ups.conf; `channels` picks some."""

    ups: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")] = "ups"
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 3493
    channels: tuple[str, ...] = ("charge", "runtime", "input_v", "load", "on_battery", "low_battery")

    def check(self) -> None:
        """Refuse channels that no UPS has."""
        check_picked(self.channels, _KNOWN)


class NutCollector(Collector[NutSettings]):
    """Asks one UPS."""

    settings_type: ClassVar[type[CollectorSettings]] = NutSettings

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels asked for."""
        return tuple(self._spec(name) for name in self.settings.channels)

    def _spec(self, name: str) -> ChannelSpec:
        if name in _FLAGS:
            return ChannelSpec(self.channel_name(name), typical_change=0)
        of = _VARIABLES[name]
        return ChannelSpec(self.channel_name(name), of.unit, 10**of.decimals, of.nominal, 1)

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period; `SourceError` when upsd is gone, does not know the UPS or has lost it."""
        place = self.settings.host, self.settings.port
        async with connect(*place, clock=clock, default="is upsd running? see LISTEN in upsd.conf") as stream:
            async for _ in each_period(clock, self.period_s):
                try:
                    async with asyncio.timeout(ANSWER_S_MAX):
                        said = await self.ask(stream)
                except TimeoutError as error:
                    raise SourceError(f"upsd did not answer within {ANSWER_S_MAX:g} s") from error
                yield Row(tuple(read_channel(name, said) for name in self.settings.channels))

    async def ask(self, stream: Stream) -> dict[str, str]:
        """Return upsd's variables of the UPS by name; `SourceError` if it refuses or never ends."""
        await stream.send(f"LIST VAR {self.settings.ups}\n".encode())
        said: dict[str, str] = {}
        for _ in range(_VARIABLES_MAX):
            line = (await stream.line()).decode("utf-8", "replace")
            if line.startswith("END LIST"):
                return said
            if line.startswith("ERR "):
                raise SourceError(explain(line[4:].strip(), self.settings.ups))
            if found := _VARIABLE.fullmatch(line):
                said[found["name"]] = found["value"]
        raise SourceError(f"upsd listed more than {_VARIABLES_MAX} variables")


def read_channel(name: str, said: Mapping[str, str]) -> int | None:
    """Return a channel's scaled integer from upsd's variables, None where they do not tell."""
    if name in _FLAGS:
        status = said.get("ups.status", "").split()
        # Without OL or OB upsd has not heard from the driver yet (WAIT), or the driver not from the UPS.
        return int(_FLAGS[name] in status) if {"OL", "OB"} & set(status) else None
    of = _VARIABLES[name]
    value = read_number(said.get(of.variable))
    return None if value is None else scaled(value / of.divisor, 10**of.decimals, of.minimum, of.maximum)


def explain(code: str, ups: str) -> str:
    """Return what an error of upsd means for the one who set this up."""
    return {
        "UNKNOWN-UPS": f"upsd has no UPS called {ups!r}: take the name in brackets of ups.conf",
        "DATA-STALE": f"upsd hears nothing from {ups!r} any more: is its cable in, its driver running?",
        "DRIVER-NOT-CONNECTED": f"the driver of {ups!r} is not running: upsdrvctl start",
        "ACCESS-DENIED": "upsd denies access from here",
    }.get(code, f"upsd answered {code[:40]!r}")
