"""What a collector is: it declares channels, and yields one row of scaled integers at a time.

To add one: a frozen `CollectorSettings` struct for its TOML table, a `Collector` subclass in a file of its own, and an
entry point in the group `digitruck.collectors` whose name is the table's `kind`. A collector raises `SourceError` when
its source fails and is simply started again by the supervisor (edge/collectors/run.py), which also bounds silence,
floods and nonsense. Deliberately absent: retries, logging, queues; a collector has none of them.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Generic, Protocol, TypeVar

import msgspec

from edge.collectors.units import SENML_UNITS
from protocol.errors import PeerError
from protocol.schema import NAME_CHARS_MAX, SCALE_MAX, Channel

PERIOD_S_MAX: Final = 86_400.0
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,30}$"
# RFC 8428 section 4.5.1: the characters of a SenML name, and that it starts with a letter or digit.
_CHANNEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")


class SourceError(PeerError):
    """The source is absent, broke off or sent what no such source sends; trying again later may work."""


class Clock(Protocol):
    """Time as a collector sees it: never wall time, which a truck may not know. Tests give one that does not wait."""

    def monotonic(self) -> float:
        """Return seconds of this boot; they never jump."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""


@dataclass(frozen=True, slots=True)
class RealClock:
    """The clock outside tests; `read` is the daemon's monotonic clock."""

    read: Callable[[], float]

    def monotonic(self) -> float:
        """Return seconds of this boot."""
        return self.read()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One channel: a value is integer / `scale` (a power of ten) in `unit` (SenML).

    `nominal` is a likely value and `typical_change` a likely step between two rows, both as scaled integers; they only
    make the first batches smaller. Declare the step that the sensor honestly has: a digit of noise is paid in each row.
    """

    name: str
    unit: str = ""
    scale: int = 1
    nominal: int = 0
    typical_change: int = 1

    def __post_init__(self) -> None:
        """Refuse with ValueError what no schema could hold."""
        if len(self.name) > NAME_CHARS_MAX or _CHANNEL_NAME.fullmatch(self.name) is None:
            raise ValueError(f"{self.name[:80]!r} is no SenML name (RFC 8428 section 4.5.1)")
        if self.unit not in SENML_UNITS:
            raise ValueError(f"{self.name}: {self.unit[:20]!r} is no unit of RFC 8428 or RFC 8798")
        if not is_decimal_scale(self.scale):
            raise ValueError(f"{self.name}: the scale {self.scale} is not 1, 10, 100 ... {SCALE_MAX}")

    def to_channel(self) -> Channel:
        """Return the schema's channel, with nothing learnt yet."""
        return Channel(
            name=self.name, unit=self.unit, scale=self.scale, nominal=self.nominal, typical=self.typical_change
        )


@dataclass(frozen=True, slots=True)
class Row:
    """Scaled integers in the order of the collector's channels, None where the source said nothing.

    `monotonic_s` is when it was so, by the collector's clock; None means "now", and the supervisor stamps it.
    """

    values: tuple[int | None, ...]
    monotonic_s: float | None = None


class CollectorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What each `[[collector]]` table has. `prefix` starts its channels' names; by default the name and a dot."""

    kind: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    period_s: Annotated[float, msgspec.Meta(gt=0, le=PERIOD_S_MAX)] = 60.0
    prefix: Annotated[str, msgspec.Meta(max_length=32)] | None = None

    def check(self) -> None:
        """Raise ValueError, starting with the key, for what the types cannot say."""


S_co = TypeVar("S_co", bound=CollectorSettings, covariant=True)


class Collector(ABC, Generic[S_co]):
    """Base of all collectors; `settings_type` says how its table reads.

    The constructor may look at the source to learn its channels and raise `SourceError`; it must not wait for it.
    """

    settings_type: ClassVar[type[CollectorSettings]]

    def __init__(self, settings: S_co) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        """Return the name that the operator gave it."""
        return self.settings.name

    @property
    def period_s(self) -> float:
        """Return the usual time between two rows."""
        return self.settings.period_s

    @property
    def silence_s(self) -> float:
        """Return for how long no row may come before the source counts as hung."""
        return 2 * self.period_s + 30.0

    @property
    def silence_hint(self) -> str:
        """Return what to look at if no row comes although nothing failed."""
        return ""

    @property
    @abstractmethod
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels, the same for as long as this object lives."""

    @abstractmethod
    def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Open the source and yield a row each period; raise `SourceError` when it fails; end when it is used up.

        The first row comes as soon as there is one: `digitruck-edge check` shows it.
        """

    def channel_name(self, local: str) -> str:
        """Return the full name of the channel that this collector calls `local`."""
        prefix = self.settings.prefix
        return f"{self.name}.{local}" if prefix is None else f"{prefix}{local}"


async def each_period(clock: Clock, period_s: float) -> AsyncGenerator[None, None]:
    """Yield at once and then each `period_s`, on a fixed grid; periods that were missed are skipped, not made up."""
    due_s = clock.monotonic()
    while True:
        yield
        late_s = clock.monotonic() - due_s
        due_s += period_s * (1 + max(0, int(late_s / period_s)))
        await clock.sleep(max(0.0, due_s - clock.monotonic()))


def is_decimal_scale(scale: int) -> bool:
    """Tell whether `scale` is a power of ten that a schema can hold."""
    return 1 <= scale <= SCALE_MAX and str(scale).strip("0") == "1"


def round_ratio(value: int, numerator: int, denominator: int) -> int:
    """Return value * numerator / denominator to the nearest integer, halves upwards, without floats."""
    return (2 * value * numerator + denominator) // (2 * denominator)
