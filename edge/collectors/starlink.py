"""The satellite terminal's own view of its link: Starlink's local gRPC service, which describes itself by reflection.

Needs the extra `starlink`, which brings gRPC: about 15 MB of memory, only on trucks that use it. Throughput and latency
are the moment's; averages belong to whoever looks at many rows. Deliberately absent: stowing, rebooting, location.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, each_period
from edge.collectors.blocking import BlockingCalls
from edge.collectors.declared import check_picked, read_number, scaled
from edge.collectors.extras import import_extra

STATES: Final[Mapping[str, int]] = MappingProxyType(
    {
        name: code
        for code, name in enumerate(
            (
                *("UNKNOWN", "CONNECTED", "BOOTING", "SEARCHING", "STOWED", "THERMAL_SHUTDOWN"),
                *("NO_SATS", "OBSTRUCTED", "NO_DOWNLINK", "NO_PINGS"),
            )
        )
    }
)


@dataclass(frozen=True, slots=True)
class _Figure:
    """A channel made of a field of the status; `factor` brings it into the unit, `decimals` are what it is good to."""

    field: str
    unit: str
    decimals: int
    factor: float
    minimum: float
    maximum: float
    nominal: int = 0
    typical_change: int = 1


_FIGURES: Final[Mapping[str, _Figure]] = MappingProxyType(
    {
        "state": _Figure("state", "", 0, 1, 0, 1000, 1, 0),
        "latency": _Figure("pop_ping_latency_ms", "ms", 0, 1, 0, 60_000, 40, 8),
        "ping_drop": _Figure("pop_ping_drop_rate", "%", 0, 100, 0, 100, 0, 0),
        "down": _Figure("downlink_throughput_bps", "Mbit/s", 1, 1e-6, 0, 10_000, 1, 2),
        "up": _Figure("uplink_throughput_bps", "Mbit/s", 1, 1e-6, 0, 10_000, 1, 2),
        "obstructed": _Figure("fraction_obstructed", "%", 1, 100, 0, 100, 0, 0),
        "alerts": _Figure("alerts", "", 0, 1, 0, 1 << 52, 0, 0),
        "satellites": _Figure("gps_sats", "count", 0, 1, 0, 500, 12, 1),
        "azimuth": _Figure("direction_azimuth", "deg", 0, 1, -360, 360, 0, 0),
        "elevation": _Figure("direction_elevation", "deg", 0, 1, -90, 90, 60, 0),
        "uptime": _Figure("uptime", "h", 1, 1 / 3600, 0, 1_000_000, 0, 0),
    }
)
_USUAL: Final = ("state", "latency", "ping_drop", "down", "up", "obstructed", "alerts")


class StarlinkSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`address` is where every terminal answers; it must be routed there. `channels` picks some."""

    address: Annotated[str, msgspec.Meta(pattern=r"^[^/\s]{1,253}:[0-9]{1,5}\Z")] = "192.168.100.1:9200"
    channels: tuple[str, ...] = _USUAL

    def check(self) -> None:
        """Refuse channels that a terminal does not have."""
        check_picked(self.channels, tuple(_FIGURES))


class StarlinkCollector(Collector[StarlinkSettings]):
    """Asks one terminal."""

    settings_type: ClassVar[type[CollectorSettings]] = StarlinkSettings

    def __init__(self, settings: StarlinkSettings) -> None:
        super().__init__(settings)
        self._blocking = BlockingCalls(settings.name)

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels asked for."""
        return tuple(
            ChannelSpec(self.channel_name(name), of.unit, 10**of.decimals, of.nominal, of.typical_change)
            for name, of in ((name, _FIGURES[name]) for name in self.settings.channels)
        )

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period; `SourceError` when the terminal does not answer or answers something else."""
        starlink = await import_extra("starlink_grpc", "starlink")
        terminal = starlink.ChannelContext(self.settings.address)
        try:
            async for _ in each_period(clock, self.period_s):
                try:
                    status, _, _ = await self._blocking.call(lambda: starlink.status_data(terminal))
                except (
                    Exception
                ) as error:  # what it calls its messages, it says itself: anything may be wrong with them
                    raise SourceError(f"{self.settings.address} does not answer as a terminal: {error}") from error
                yield Row(tuple(read_figure(name, status) for name in self.settings.channels))
        finally:
            terminal.close()


def read_figure(name: str, status: Mapping[str, Any]) -> int | None:
    """Return a channel's scaled integer from the status, None where the terminal does not say or cannot mean it."""
    of = _FIGURES[name]
    value = read_number(status.get(of.field), STATES)
    return None if value is None else scaled(value * of.factor, 10**of.decimals, of.minimum, of.maximum)
