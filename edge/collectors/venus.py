"""Solar, battery and loads from a Victron GX by the MQTT broker that it runs (Venus OS, "dbus-mqtt").

`N/<portal id>/system/0/...` carries `{"value": x}`, and only while somebody keeps asking: `R/<portal id>/keepalive`.
The portal id is learnt from the broker. Deliberately absent: `W/...`, which would switch things.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row
from edge.collectors.declared import check_picked, json_at, read_number, scaled
from edge.collectors.latest import Latest, rows_of
from edge.collectors.mqtt import BrokerSettings, open_broker, read_payload
from edge.collectors.mqtt_client import Message, MqttClient

_SERIAL: Final = "N/+/system/0/Serial"


@dataclass(frozen=True, slots=True)
class _Path:
    """A channel made of a D-Bus path below system/0: `divisor` of its units make one, in a plausible range."""

    path: str
    unit: str
    decimals: int
    minimum: float
    maximum: float
    nominal: int = 0
    typical_change: int = 1
    divisor: int = 1


_PATHS: Final[Mapping[str, _Path]] = MappingProxyType(
    {
        "battery_v": _Path("Dc/Battery/Voltage", "V", 2, 0, 1000, 2640, 2),
        "battery_a": _Path("Dc/Battery/Current", "A", 1, -5000, 5000, 0, 5),
        "battery_w": _Path("Dc/Battery/Power", "W", 0, -200_000, 200_000, 0, 20),
        "soc": _Path("Dc/Battery/Soc", "%EL", 1, 0, 100, 900, 1),
        "battery_t": _Path("Dc/Battery/Temperature", "Cel", 0, -60, 150, 25, 0),
        "battery_state": _Path("Dc/Battery/State", "", 0, 0, 16, 1, 0),
        "time_to_go": _Path("Dc/Battery/TimeToGo", "min", 0, 0, 100_000, 0, 5, divisor=60),
        "pv_w": _Path("Dc/Pv/Power", "W", 0, 0, 200_000, 0, 20),
        "pv_a": _Path("Dc/Pv/Current", "A", 1, -5000, 5000, 0, 5),
        "dc_load_w": _Path("Dc/System/Power", "W", 0, -200_000, 200_000, 0, 20),
        "ac_load_l1_w": _Path("Ac/Consumption/L1/Power", "W", 0, 0, 200_000, 0, 20),
        "ac_load_l2_w": _Path("Ac/Consumption/L2/Power", "W", 0, 0, 200_000, 0, 20),
        "ac_load_l3_w": _Path("Ac/Consumption/L3/Power", "W", 0, 0, 200_000, 0, 20),
        "grid_l1_w": _Path("Ac/Grid/L1/Power", "W", 0, -200_000, 200_000, 0, 20),
        "genset_l1_w": _Path("Ac/Genset/L1/Power", "W", 0, -200_000, 200_000, 0, 20),
        "system_state": _Path("SystemState/State", "", 0, 0, 1000, 0, 0),
    }
)
_USUAL: Final = ("battery_v", "battery_a", "soc", "battery_state", "pv_w", "ac_load_l1_w", "dc_load_w")


class VenusSettings(BrokerSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`host` is the GX's address; `portal` its VRM portal id, if the broker serves several; `channels` picks some."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)] = "venus.local"
    portal: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z_-]{1,64}\Z")] | None = None
    channels: tuple[str, ...] = _USUAL

    def check(self) -> None:
        """Refuse channels that a GX does not publish."""
        super().check()
        check_picked(self.channels, tuple(_PATHS))


class VenusCollector(Collector[VenusSettings]):
    """Listens to one GX."""

    settings_type: ClassVar[type[CollectorSettings]] = VenusSettings

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels asked for."""
        return tuple(
            ChannelSpec(self.channel_name(name), of.unit, 10**of.decimals, of.nominal, of.typical_change)
            for name, of in ((name, _PATHS[name]) for name in self.settings.channels)
        )

    @property
    def silence_hint(self) -> str:
        """Return what to look at if nothing comes."""
        return "the GX published nothing: is MQTT on in Settings, Services? does it have the channels picked?"

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield the latest values each period; `SourceError` when the GX is gone or refuses."""
        latest = Latest(len(self.settings.channels), fresh_s=self.settings.fresh_s, clock=clock)
        async for row in rows_of(self._listen(latest, clock), latest, period_s=self.period_s, clock=clock):
            yield row

    async def _listen(self, latest: Latest, clock: Clock) -> None:
        async with open_broker(self.settings, clock) as client:
            portal = self.settings.portal
            if portal is None:
                await client.subscribe([_SERIAL])
            else:
                await self._follow(client, portal)
            async for message in client.messages():
                if portal is None and message is not None:
                    portal = _portal_of(message.topic)
                    if portal is not None:
                        await self._follow(client, portal)
                elif message is not None:
                    self._take(message, f"N/{portal}/system/0/", latest)
                elif portal is not None:
                    await _keep_awake(client, portal)

    async def _follow(self, client: MqttClient, portal: str) -> None:
        await client.subscribe([f"N/{portal}/system/0/{_PATHS[name].path}" for name in self.settings.channels])
        await _keep_awake(client, portal)

    def _take(self, message: Message, prefix: str, latest: Latest) -> None:
        for index, name in enumerate(self.settings.channels):
            of = _PATHS[name]
            if message.topic == prefix + of.path:
                value = read_number(json_at(read_payload(message.payload), "/value"))
                in_unit = None if value is None else value / of.divisor
                latest.put(index, None if in_unit is None else scaled(in_unit, 10**of.decimals, of.minimum, of.maximum))


async def _keep_awake(client: MqttClient, portal: str) -> None:
    """Ask for what changes, and at once for all of it: a GX falls silent a minute after the last time."""
    await client.publish(Message(f"R/{portal}/keepalive", b""))


def _portal_of(topic: str) -> str | None:
    parts = topic.split("/")
    wanted = len(parts) == 5 and parts[0] == "N" and parts[2:] == ["system", "0", "Serial"]
    return parts[1] if wanted and parts[1].replace("-", "").replace("_", "").isalnum() else None
