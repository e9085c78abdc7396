"""The mobile modem's state and signal, from ModemManager over D-Bus.

Interfaces org.freedesktop.ModemManager1.Modem, .Modem3gpp and .Signal. Needs the extra `modem`. Figures that this modem
or its technology does not have are missing. Deliberately absent: connecting, and the numbers of SIM card and modem.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, each_period
from edge.collectors.declared import check_picked, read_number, scaled
from edge.collectors.extras import import_extra

_SERVICE: Final = "org.freedesktop.ModemManager1"
_ROOT: Final = "/org/freedesktop/ModemManager1"
_MODEM: Final = f"{_SERVICE}.Modem"
_3GPP: Final = f"{_MODEM}.Modem3gpp"
_SIGNAL: Final = f"{_MODEM}.Signal"
_ANSWER_S_MAX: Final = 10.0
_UNKNOWN_LEVEL: Final = -32768.0  # what some modems say for "not known"

# MMModemAccessTechnology: the generation of each bit, so that one number says what the truck is on.
_GENERATIONS: Final = ((0x8000, 5), (0x3_4000, 4), (0x3E0, 3), (0x1E, 2))
# The newest technology that the modem measures is the one that it is on.
_TECHNOLOGIES: Final = ("Nr5g", "Lte", "Umts", "Gsm")

Interfaces = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Figure:
    """A channel with its resolution and plausible range; `signal` names a key of the Signal interface."""

    unit: str
    minimum: float
    maximum: float
    nominal: int
    typical_change: int = 0
    signal: str = ""


_FIGURES: Final[Mapping[str, _Figure]] = MappingProxyType(
    {
        "state": _Figure("", -1, 11, 11),
        "quality": _Figure("%", 0, 100, 60, 3),
        "generation": _Figure("", 0, 9, 4),
        "registration": _Figure("", 0, 20, 1),
        "operator": _Figure("", 0, 999_999, 0),
        # Reports are steady to a decibel or two: more digits would be noise.
        "rssi": _Figure("dBm", -150, 0, -70, 2, "rssi"),
        "rsrp": _Figure("dBm", -200, 0, -100, 2, "rsrp"),
        "rsrq": _Figure("dB", -60, 30, -10, 1, "rsrq"),
        "snr": _Figure("dB", -60, 80, 10, 2, "snr"),
    }
)
_USUAL: Final = ("state", "quality", "generation", "rsrp", "rsrq", "snr")


class ModemSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`modem` is the number in `mmcli -L`, by default the first; `bus` another message bus than the system's."""

    modem: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None
    bus: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    channels: tuple[str, ...] = _USUAL

    def check(self) -> None:
        """Refuse channels that no modem has."""
        check_picked(self.channels, tuple(_FIGURES))


class ModemCollector(Collector[ModemSettings]):
    """Asks one modem."""

    settings_type: ClassVar[type[CollectorSettings]] = ModemSettings

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels asked for."""
        return tuple(
            ChannelSpec(self.channel_name(name), of.unit, 1, of.nominal, of.typical_change)
            for name, of in ((name, _FIGURES[name]) for name in self.settings.channels)
        )

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period; `SourceError` when ModemManager or the modem is gone."""
        dbus = await import_extra("dbus_fast", "modem")
        aio = await import_extra("dbus_fast.aio", "modem")
        bus = await self._open(dbus, aio)
        try:
            measuring: str | None = None
            async for _ in each_period(clock, self.period_s):
                path, interfaces = self._pick(await self._ask(dbus, bus, _ROOT, "org.freedesktop.DBus.ObjectManager"))
                if _SIGNAL in interfaces and path != measuring:
                    # Asks the modem to measure at all; without the right to, the other figures still come.
                    await self._ask_signal(dbus, bus, path)
                    measuring = path
                yield Row(tuple(read_figure(name, interfaces) for name in self.settings.channels))
        finally:
            bus.disconnect()

    async def _open(self, dbus: Any, aio: Any) -> Any:
        try:
            async with asyncio.timeout(_ANSWER_S_MAX):
                return await aio.MessageBus(self.settings.bus, bus_type=dbus.BusType.SYSTEM).connect()
        except (OSError, ValueError, EOFError, TimeoutError, dbus.AuthError, dbus.InvalidAddressError) as error:
            raise SourceError(f"no D-Bus here: {error}; is dbus running?") from error

    async def _ask(self, dbus: Any, bus: Any, path: str, interface: str) -> Any:
        message = dbus.Message(destination=_SERVICE, path=path, interface=interface, member="GetManagedObjects")
        reply = await self._call(bus, message)
        if reply.message_type is not dbus.MessageType.METHOD_RETURN or reply.signature != "a{oa{sa{sv}}}":
            raise SourceError(f"ModemManager does not answer: {str(reply.body)[:100]}; is it running?")
        return reply.body[0]

    async def _ask_signal(self, dbus: Any, bus: Any, path: str) -> None:
        period = max(1, round(self.period_s))
        await self._call(
            bus,
            dbus.Message(
                destination=_SERVICE, path=path, interface=_SIGNAL, member="Setup", signature="u", body=[period]
            ),
        )

    async def _call(self, bus: Any, message: Any) -> Any:
        try:
            async with asyncio.timeout(_ANSWER_S_MAX):
                return await bus.call(message)
        except (OSError, EOFError, TimeoutError) as error:
            raise SourceError(f"D-Bus broke off: {error or 'no answer'}") from error

    def _pick(self, objects: Mapping[str, Interfaces]) -> tuple[str, Interfaces]:
        modems = {path: found for path, found in objects.items() if _MODEM in found}
        if not modems:
            raise SourceError("ModemManager sees no modem: mmcli -L")
        if self.settings.modem is None:
            path = min(modems, key=lambda path: (len(path), path))
        else:
            number = str(self.settings.modem)
            path = next((path for path in modems if path.rpartition("/")[2] == number), "")
            if not path:
                raise SourceError(f"ModemManager has no modem {number}: mmcli -L")
        return path, modems[path]


def read_figure(name: str, interfaces: Interfaces) -> int | None:
    """Return a channel's value from a modem's D-Bus properties, None where it does not say or cannot mean it."""
    of = _FIGURES[name]
    modem, g3pp = interfaces.get(_MODEM, {}), interfaces.get(_3GPP, {})
    if of.signal:
        said = _level(of.signal, interfaces.get(_SIGNAL, {}))
    elif name == "quality":
        quality = _plain(modem.get("SignalQuality"))
        said = quality[0] if isinstance(quality, Sequence) and quality else None
    elif name == "generation":
        bits = _plain(modem.get("AccessTechnologies"))
        known = isinstance(bits, int)
        said = next((number for mask, number in _GENERATIONS if bits & mask), 0) if known else None
    elif name == "operator":
        said = _plain(g3pp.get("OperatorCode"))
    else:
        said = _plain(modem.get("State") if name == "state" else g3pp.get("RegistrationState"))
    value = read_number(said)
    return None if value is None else scaled(value, 1, of.minimum, of.maximum)


def _level(key: str, signal: Mapping[str, Any]) -> object:
    for technology in _TECHNOLOGIES:
        levels = _plain(signal.get(technology))
        level = _plain(levels.get(key)) if isinstance(levels, Mapping) else None
        if isinstance(level, float) and level != _UNKNOWN_LEVEL:
            return level
    return None


def _plain(value: Any) -> Any:
    """Return what a D-Bus variant holds."""
    return getattr(value, "value", value)
