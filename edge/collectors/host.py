"""The truck's own computer, by psutil: processor, memory, disk, temperature, network bytes, uptime.

Network and processor figures are differences between two rows, so the first row has none. Resolutions are coarse on
purpose: each digit of noise costs bytes on the satellite. Deliberately absent: per-process and per-core figures.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import msgspec
import psutil

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, each_period
from edge.collectors.blocking import BlockingCalls

HostChannel = Literal[
    "cpu", "load", "memory_used", "disk_used", "disk_used_size", "temperature", "net_received", "net_sent", "uptime"
]
# RFC 8798 has KiB and GB but no kB and MB: the network counts KiB, the disk thousandths of a GB.
_SPECS: Final = (
    ChannelSpec("cpu", "%", nominal=10, typical_change=4),
    ChannelSpec("load", "count", scale=10, nominal=5, typical_change=1),
    ChannelSpec("memory_used", "%", nominal=40),
    ChannelSpec("disk_used", "%", nominal=50, typical_change=0),
    ChannelSpec("disk_used_size", "GB", scale=1000, nominal=20_000, typical_change=2),
    ChannelSpec("temperature", "Cel", nominal=50),
    ChannelSpec("net_received", "KiB", nominal=50, typical_change=40),
    ChannelSpec("net_sent", "KiB", nominal=10, typical_change=8),
    # Steps of six minutes: a reboot shows, and most rows repeat the last value, which is nearly free.
    ChannelSpec("uptime", "h", scale=10, typical_change=0),
)
_LOOPBACK: Final = "lo"


class HostSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`disk` is a path on the disk to watch; `interfaces` are all but loopback if not named; `channels` picks some."""

    disk: str = "/"
    interfaces: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = ()
    channels: tuple[HostChannel, ...] = ()

    def check(self) -> None:
        """Refuse a channel that is named twice."""
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: names one twice")


@dataclass(frozen=True, slots=True)
class Counters:
    """One look at the counters that only make sense as differences; seconds and bytes since boot."""

    cpu_busy_s: float
    cpu_total_s: float
    received: tuple[tuple[str, int], ...]
    sent: tuple[tuple[str, int], ...]


class HostCollector(Collector[HostSettings]):
    """Reads the computer that it runs on."""

    settings_type: ClassVar[type[CollectorSettings]] = HostSettings

    def __init__(self, settings: HostSettings) -> None:
        super().__init__(settings)
        wanted: tuple[str, ...] = settings.channels
        if not wanted:
            hot = hottest_cel() is not None
            wanted = tuple(spec.name for spec in _SPECS if hot or spec.name != "temperature")
        self._wanted = tuple(spec for spec in _SPECS if spec.name in wanted)
        self._blocking = BlockingCalls(settings.name)
        self._spill = {"net_received": 0, "net_sent": 0}

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels asked for; by default all, temperature only where there is a sensor."""
        return tuple(
            ChannelSpec(self.channel_name(spec.name), spec.unit, spec.scale, spec.nominal, spec.typical_change)
            for spec in self._wanted
        )

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period; `SourceError` if the disk cannot be asked."""
        previous: Counters | None = None
        async for _ in each_period(clock, self.period_s):
            try:
                current = await self._blocking.call(self._look)
                levels = await self._blocking.call(self._levels)
            except (OSError, psutil.Error) as error:
                raise SourceError(f"the host does not answer: {error}") from error
            values = levels | self._differences(previous, current)
            previous = current
            yield Row(tuple(values.get(spec.name) for spec in self._wanted))

    def _look(self) -> Counters:
        times = psutil.cpu_times()
        # Linux counts a guest's time in user time as well.
        guest_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        total_s = sum(times) - guest_s
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        chosen = self.settings.interfaces
        interfaces = {
            name: counter
            for name, counter in psutil.net_io_counters(pernic=True).items()
            if (name in chosen if chosen else name != _LOOPBACK)
        }
        return Counters(
            cpu_busy_s=total_s - idle_s,
            cpu_total_s=total_s,
            received=tuple((name, counter.bytes_recv) for name, counter in interfaces.items()),
            sent=tuple((name, counter.bytes_sent) for name, counter in interfaces.items()),
        )

    def _levels(self) -> dict[str, int | None]:
        disk = psutil.disk_usage(self.settings.disk)
        temperature_cel = hottest_cel()
        return {
            "load": round(psutil.getloadavg()[0] * 10),
            "memory_used": round(psutil.virtual_memory().percent),
            "disk_used": round(disk.percent),
            "disk_used_size": disk.used // 1_000_000,
            "temperature": None if temperature_cel is None else round(temperature_cel),
            "uptime": self._uptime_tenths(),
        }

    @staticmethod
    def _uptime_tenths() -> int | None:
        # Not wall time less boot time: a clock that is set later would show as a jump.
        try:
            with open("/proc/uptime", encoding="ascii") as file:
                return int(float(file.read(64).split()[0]) / 360)
        except (OSError, ValueError, IndexError):
            return None

    def _differences(self, previous: Counters | None, current: Counters) -> dict[str, int | None]:
        if previous is None:
            return {}
        total_s = current.cpu_total_s - previous.cpu_total_s
        busy_s = current.cpu_busy_s - previous.cpu_busy_s
        return {
            "cpu": round(100 * min(1.0, max(0.0, busy_s / total_s))) if total_s > 0 else None,
            "net_received": self._kib("net_received", moved(previous.received, current.received)),
            "net_sent": self._kib("net_sent", moved(previous.sent, current.sent)),
        }

    def _kib(self, channel: str, moved_bytes: int) -> int:
        # The rest of a KiB is carried over, so that a month's rows add up to the month's bytes.
        kib, self._spill[channel] = divmod(self._spill[channel] + moved_bytes, 1024)
        return kib


def moved(previous: tuple[tuple[str, int], ...], current: tuple[tuple[str, int], ...]) -> int:
    """Return the bytes between two looks; an interface that is new or began again counts from zero."""
    before = dict(previous)
    return sum(count - before.get(name, 0) if count >= before.get(name, 0) else count for name, count in current)


def hottest_cel() -> float | None:
    """Return the highest plausible temperature of any sensor in degrees Celsius, or None where there is none."""
    read = getattr(psutil, "sensors_temperatures", None)  # absent on some systems
    if read is None:
        return None
    try:
        groups = read()
    except (OSError, psutil.Error, ValueError):
        return None
    found = [sensor.current for sensors in groups.values() for sensor in sensors if sensor.current is not None]
    # Unconnected sensors report 0, -273 or some hundreds.
    return max((celsius for celsius in found if -40 <= celsius <= 150 and celsius != 0), default=None)
