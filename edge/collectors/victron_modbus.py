"""Solar, battery and loads from a Victron GX (Cerbo, Venus OS) by Modbus TCP.

Registers of com.victronenergy.system at unit 100, from Victron's "CCGX Modbus-TCP register list" 3.00. What the
installation does not have reads as missing. Deliberately absent: single chargers and inverters, whose unit ids differ
from one installation to the next; for them there is VE.Direct or MQTT.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Final

import msgspec

from edge.collectors.base import (
    ChannelSpec,
    Clock,
    Collector,
    CollectorSettings,
    Row,
    SourceError,
    each_period,
    round_ratio,
)
from edge.collectors.declared import check_picked
from edge.collectors.modbus import ModbusReader
from edge.collectors.stream import connect


@dataclass(frozen=True, slots=True)
class Register:
    """A channel made of one register: times `step`, over `per`, it is a scaled integer within a plausible range."""

    address: int
    signed: bool
    unit: str
    scale: int
    step: int
    minimum: int
    maximum: int
    nominal: int = 0
    typical_change: int = 1
    per: int = 1


_W: Final = (-32_700, 32_700)
_W_UP: Final = (0, 65_000)

# The register list has battery power too; it is voltage times current, and is left out unless asked for.
REGISTERS: Final[Mapping[str, Register]] = MappingProxyType(
    {
        "battery_v": Register(840, False, "V", 10, 1, 0, 10_000, 264),
        "battery_a": Register(841, True, "A", 10, 1, -30_000, 30_000, 0, 5),
        "battery_w": Register(842, True, "W", 1, 1, *_W, 0, 20),
        "soc": Register(843, False, "%EL", 1, 1, 0, 100, 90, 0),
        "battery_state": Register(844, False, "", 1, 1, 0, 16, 1, 0),
        "consumed_ah": Register(845, False, "Ah", 10, -1, -65_000, 0),
        # In steps of 100 s on the wire.
        "time_to_go": Register(846, False, "min", 1, 100, 0, 100_000, 0, 5, per=60),
        "pv_w": Register(850, False, "W", 1, 1, *_W_UP, 0, 20),
        "pv_a": Register(851, True, "A", 10, 1, -30_000, 30_000, 0, 5),
        "charger_w": Register(855, False, "W", 1, 1, *_W_UP, 0, 20),
        "dc_load_w": Register(860, True, "W", 1, 1, *_W, 0, 20),
        "ac_load_l1_w": Register(817, False, "W", 1, 1, *_W_UP, 0, 20),
        "ac_load_l2_w": Register(818, False, "W", 1, 1, *_W_UP, 0, 20),
        "ac_load_l3_w": Register(819, False, "W", 1, 1, *_W_UP, 0, 20),
        "grid_l1_w": Register(820, True, "W", 1, 1, *_W, 0, 20),
        "genset_l1_w": Register(823, True, "W", 1, 1, *_W, 0, 20),
        "ac_source": Register(826, False, "", 1, 1, 0, 240, 240, 0),
        "relay1_on": Register(806, False, "", 1, 1, 0, 1, 0, 0),
        "relay2_on": Register(807, False, "", 1, 1, 0, 1, 0, 0),
    }
)
_USUAL: Final = ("battery_v", "battery_a", "soc", "battery_state", "pv_w", "ac_load_l1_w", "dc_load_w")


class VictronModbusSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`host` is the GX's address; `channels` picks some."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 502
    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] = 100
    channels: tuple[str, ...] = _USUAL

    def check(self) -> None:
        """Refuse channels without a register."""
        check_picked(self.channels, tuple(REGISTERS))


class VictronModbusCollector(Collector[VictronModbusSettings]):
    """Asks one GX."""

    settings_type: ClassVar[type[CollectorSettings]] = VictronModbusSettings

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels asked for."""
        return tuple(
            ChannelSpec(self.channel_name(name), of.unit, of.scale, of.nominal, of.typical_change)
            for name, of in ((name, REGISTERS[name]) for name in self.settings.channels)
        )

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period; `SourceError` when the GX is gone, speaks something else or has none of it."""
        hint = "switch Modbus TCP on in the GX: Settings, Services"
        async with connect(self.settings.host, self.settings.port, clock=clock, default=hint) as stream:
            reader = ModbusReader(stream, self.settings.unit)
            async for _ in each_period(clock, self.period_s):
                # One register a question: a GX refuses a whole range when one register in it is not there.
                read = [await reader.read(REGISTERS[name].address) for name in self.settings.channels]
                if not any(read):
                    raise SourceError(f"unit {self.settings.unit} has none of these registers; a GX is unit 100")
                pairs = zip(self.settings.channels, read, strict=True)
                yield Row(tuple(read_register(words[0], REGISTERS[name]) if words else None for name, words in pairs))


def read_register(word: int, of: Register) -> int | None:
    """Return the scaled integer of a register's 16 bits, None for "not available" and what cannot be."""
    if word == (0x7FFF if of.signed else 0xFFFF):
        return None
    value = round_ratio(word - 0x1_0000 if of.signed and word & 0x8000 else word, of.step, of.per)
    return value if of.minimum <= value <= of.maximum else None
