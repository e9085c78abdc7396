"""Where a truck stands that has no GPS receiver: a position that somebody wrote down, told once an hour.

Its row equals the schema's nominal values, so it costs next to nothing, and maps show the truck where it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, ClassVar, Final

import msgspec

from edge.collectors.base import PERIOD_S_MAX, ChannelSpec, Clock, Collector, CollectorSettings, Row, each_period

_SCALE: Final = 10_000  # 11 m, as good as a place that was written down


class PlaceSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`latitude` and `longitude` in degrees (WGS 84), north and east positive."""

    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    period_s: Annotated[float, msgspec.Meta(gt=0, le=PERIOD_S_MAX)] = 3600.0


class PlaceCollector(Collector[PlaceSettings]):
    """Tells a written position."""

    settings_type: ClassVar[type[CollectorSettings]] = PlaceSettings

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return `lat` and `lon`."""
        latitude, longitude = self._scaled()
        return (
            ChannelSpec(self.channel_name("lat"), "lat", _SCALE, latitude, 0),
            ChannelSpec(self.channel_name("lon"), "lon", _SCALE, longitude, 0),
        )

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield the position each period."""
        async for _ in each_period(clock, self.period_s):
            yield Row(self._scaled())

    def _scaled(self) -> tuple[int, int]:
        return round(self.settings.latitude * _SCALE), round(self.settings.longitude * _SCALE)
