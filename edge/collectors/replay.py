"""A recorded trace played again as if its sensors were here: CSV or CSV.gz, faster or slower, once or for ever.

Format: the first row has the channels' names and begins with `t`; the second their decimal scales; then scaled
integers, empty for missing, with `t` in seconds. Times are shifted so that the first row is now; at `speed` 60 a
minute of the trace takes a second and is stamped so. Lines that do not read are skipped. Deliberately absent: units in
the file; they come from the settings.
"""

from __future__ import annotations

import gzip
import math
import os
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median_low
from typing import IO, Annotated, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, is_decimal_scale
from edge.collectors.blocking import BlockingCalls
from edge.collectors.units import SENML_UNITS
from protocol.schema import CHANNELS_MAX

LINE_BYTES_MAX: Final = 4096
_BAD_LINES_MAX: Final = 1000  # in a row: then it is no trace
_FIT_ROWS: Final = 1440
_BLOCK_ROWS: Final = 256
_INTEGER: Final = re.compile(rb"-?[0-9]{1,18}")


class ReplaySettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`units` names the unit of a channel (`bat_v = "V"`); `skip_rows` begins later in the trace.

    `period_s` is not used: the trace has its own, divided by `speed`. Names stay as the trace has them unless `prefix`
    is set.
    """

    file: str
    speed: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    loop: bool = False
    skip_rows: Annotated[int, msgspec.Meta(ge=0)] = 0
    prefix: Annotated[str, msgspec.Meta(max_length=32)] | None = ""
    units: dict[str, str] = msgspec.field(default_factory=dict)

    def check(self) -> None:
        """Refuse a speed that is no number and units that SenML does not have."""
        if not math.isfinite(self.speed):
            raise ValueError("speed: must be finite")
        for channel, unit in self.units.items():
            if unit not in SENML_UNITS:
                raise ValueError(f"units.{channel}: {unit[:20]!r} is no unit of RFC 8428 or RFC 8798")


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One row of a trace: its own time in seconds, and the scaled integers."""

    time_s: int
    values: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class TraceHead:
    """The first two rows: channel names and decimal scales, without the time column."""

    names: tuple[str, ...]
    scales: tuple[int, ...]


class ReplayCollector(Collector[ReplaySettings]):
    """Plays a trace; ends after the last row unless it loops."""

    settings_type: ClassVar[type[CollectorSettings]] = ReplaySettings

    def __init__(self, settings: ReplaySettings) -> None:
        super().__init__(settings)
        self._blocking = BlockingCalls(settings.name)
        with open_trace(settings.file) as trace:
            head = read_head(trace)
            sample = list(islice(read_rows(trace, head), _FIT_ROWS))
        if not sample:
            raise SourceError(f"{settings.file} has no rows")
        for channel in settings.units:
            if channel not in head.names:
                raise SourceError(f"units.{channel}: {settings.file} has no such channel")
        steps_s = [after.time_s - before.time_s for before, after in pairwise(sample)]
        self._step_s = median_low(steps_s) if steps_s else 60
        self._head = head
        try:
            self._channels = tuple(
                self._spec(name, scale, [row.values[index] for row in sample])
                for index, (name, scale) in enumerate(zip(head.names, head.scales, strict=True))
            )
        except ValueError as error:
            raise SourceError(f"{settings.file}: {error}") from error

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the trace's channels, nominal and change fitted to its first rows."""
        return self._channels

    @property
    def period_s(self) -> float:
        """Return the trace's usual step, as it is played."""
        return self._step_s / self.settings.speed

    @property
    def silence_s(self) -> float:
        """Return infinity: a gap in a trace may be as long as it was."""
        return math.inf

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield the trace's rows when they are due; `SourceError` if the file is gone, broken or another."""
        start_s = clock.monotonic()
        played_s, skip = 0.0, self.settings.skip_rows
        while True:
            first_s: int | None = None
            offset_s = 0.0
            async for row in self._trace(skip):
                first_s = row.time_s if first_s is None else first_s
                offset_s = played_s + (row.time_s - first_s) / self.settings.speed
                await clock.sleep(max(0.0, start_s + offset_s - clock.monotonic()))
                yield Row(row.values, start_s + offset_s)
            if first_s is None and skip == 0:
                raise SourceError(f"{self.settings.file} has no rows")
            if not self.settings.loop:
                return
            played_s = offset_s + self.period_s if first_s is not None else played_s
            skip = 0

    async def _trace(self, skip: int) -> AsyncGenerator[TraceRow, None]:
        trace = await self._blocking.call(lambda: open_trace(self.settings.file))
        try:
            if await self._blocking.call(lambda: read_head(trace)) != self._head:
                raise SourceError(f"{self.settings.file} now has other channels")
            rows = islice(read_rows(trace, self._head), skip, None)
            while block := await self._blocking.call(lambda: list(islice(rows, _BLOCK_ROWS))):
                for row in block:
                    yield row
        finally:
            trace.close()

    def _spec(self, name: str, scale: int, column: list[int | None]) -> ChannelSpec:
        known = [value for value in column if value is not None]
        changes = [abs(after - before) for before, after in pairwise(known)]
        return ChannelSpec(
            name=self.channel_name(name),
            unit=self.settings.units.get(name, ""),
            scale=scale,
            nominal=median_low(known) if known else 0,
            typical_change=median_low(changes) if changes else 1,
        )


def open_trace(path: str) -> IO[bytes]:
    """Open a CSV or, by its name, a CSV.gz; raise `SourceError` if that fails."""
    try:
        if not os.path.isfile(path):  # a pipe would hang, a directory says something odd
            raise SourceError(f"{path} is not a file")
        if path.endswith(".gz"):
            return gzip.open(path, "rb")  # type: ignore[return-value]  # GzipFile reads like a binary file
        return open(path, "rb")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def read_head(trace: IO[bytes]) -> TraceHead:
    """Read names and scales; raise `SourceError` that says which of them does not hold."""
    names = _line(trace).decode("utf-8", "replace").strip().split(",")
    scales = _line(trace).strip().split(b",")
    if names[0] != "t" or len(names) < 2:
        raise SourceError("the first row must have names and begin with t")
    if len(names) > CHANNELS_MAX + 1:
        raise SourceError(f"a trace has at most {CHANNELS_MAX} channels, not {len(names) - 1}")
    if len(set(names)) != len(names):
        raise SourceError("the first row has a name twice")
    if len(scales) != len(names) or not all(
        _INTEGER.fullmatch(scale) and is_decimal_scale(int(scale)) for scale in scales
    ):
        raise SourceError("the second row must have a decimal scale (1, 10, 100 ...) for each name")
    if int(scales[0]) != 1:
        raise SourceError("the scale of t must be 1: it counts seconds")
    return TraceHead(names=tuple(names[1:]), scales=tuple(int(scale) for scale in scales[1:]))


def read_rows(trace: IO[bytes], head: TraceHead) -> Iterator[TraceRow]:
    """Yield rows whose time rises; skip others; raise `SourceError` if the file breaks off or is no trace at all."""
    last_s: int | None = None
    bad = 0
    while line := _line(trace):
        row = _row(line, len(head.names))
        if row is None or (last_s is not None and row.time_s <= last_s):
            bad += 1
            if bad > _BAD_LINES_MAX:
                raise SourceError(f"{bad} lines in a row do not read")
            continue
        bad, last_s = 0, row.time_s
        yield row


def _line(trace: IO[bytes]) -> bytes:
    try:
        line = trace.readline(LINE_BYTES_MAX)
    except (OSError, EOFError, ValueError) as error:  # a broken gzip raises the first two, zlib's error is neither
        raise SourceError(f"the trace breaks off: {error}") from error
    except Exception as error:
        raise SourceError(f"the trace is damaged: {error}") from error
    return line


def _row(line: bytes, count: int) -> TraceRow | None:
    cells = line.strip().split(b",")
    if len(cells) != count + 1 or not _INTEGER.fullmatch(cells[0]):
        return None
    if any(cell and not _INTEGER.fullmatch(cell) for cell in cells[1:]):
        return None
    return TraceRow(int(cells[0]), tuple(int(cell) if cell else None for cell in cells[1:]))
