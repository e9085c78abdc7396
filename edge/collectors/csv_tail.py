"""A CSV file that another program keeps writing to: the last whole line of it, each period.

The file may grow, be rotated (another file takes its name), be truncated, vanish and come back, and end in half a line
at any moment. With a header the channels name their columns and a new file may have others order; without one they
number them from 1. Deliberately absent: times in the file; the clock that wrote them may be anybody's.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import AsyncGenerator
from typing import IO, Annotated, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError
from edge.collectors.blocking import BlockingCalls
from edge.collectors.declared import ChannelSettings, check_channels
from edge.collectors.latest import Latest, rows_of
from protocol.schema import CHANNELS_MAX

LINE_BYTES_MAX: Final = 8192
BLOCK_BYTES: Final = 64 * 1024
_LOOK_S_MAX: Final = 2.0
_BEHIND_BYTES_MAX: Final = 1024 * 1024  # a writer that is faster than this is sampled, not followed
_BLOCKS_MAX: Final = 2 * _BEHIND_BYTES_MAX // BLOCK_BYTES


class CsvChannel(ChannelSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A channel from a column: its name in the header, by default the channel's own, or its number."""

    column: str | Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None


class CsvTailSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`header` says that the first line of each file names its columns."""

    file: Annotated[str, msgspec.Meta(min_length=1)]
    delimiter: Annotated[str, msgspec.Meta(pattern=r"^[,;\t| ]\Z")] = ","
    header: bool = True
    fresh_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0
    channels: Annotated[tuple[CsvChannel, ...], msgspec.Meta(min_length=1, max_length=CHANNELS_MAX)]

    def check(self) -> None:
        """Refuse names where there is no header to have them."""
        check_channels(self.channels)
        for index, channel in enumerate(self.channels):
            if not self.header and not isinstance(channel.column, int):
                raise ValueError(f"channels[{index}].column: must be a number, as the file has no header")


class CsvTailCollector(Collector[CsvTailSettings]):
    """Follows one file by its name."""

    settings_type: ClassVar[type[CollectorSettings]] = CsvTailSettings

    def __init__(self, settings: CsvTailSettings) -> None:
        super().__init__(settings)
        self._blocking = BlockingCalls(settings.name)

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return the channels declared."""
        return tuple(channel.spec(self.channel_name(channel.name)) for channel in self.settings.channels)

    @property
    def silence_hint(self) -> str:
        """Return what to look at if nothing comes."""
        return "no whole line was added, and the last one is older than fresh_s"

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield the last line's values each period while lines come; `SourceError` when the file is gone or none."""
        latest = Latest(len(self.settings.channels), fresh_s=self.settings.fresh_s, clock=clock)
        async for row in rows_of(self._follow(latest, clock), latest, period_s=self.period_s, clock=clock):
            yield row

    async def _follow(self, latest: Latest, clock: Clock) -> None:
        tail = Tail(self.settings.file, header=self.settings.header)
        try:
            age_s = await self._blocking.call(tail.open)
            fresh = age_s <= self.settings.fresh_s
            while True:
                line = await self._blocking.call(tail.last_line)
                if line is not None and fresh:
                    self.take(line, tail.head, latest)
                fresh = True  # whatever comes after the first look is new
                await clock.sleep(min(_LOOK_S_MAX, self.period_s))
        finally:
            tail.close()

    def take(self, line: bytes, head: bytes, latest: Latest) -> None:
        """Take a line's cells into `latest`; `SourceError` if the header `head` lacks a column."""
        cells, names = self._cells(line), self._cells(head)
        if self.settings.header and len(cells) != len(names):
            return  # written by halves, or over an old line
        for index, channel in enumerate(self.settings.channels):
            wanted = channel.name if channel.column is None else channel.column
            if isinstance(wanted, int):
                latest.put(index, channel.read(cells[wanted - 1]) if wanted <= len(cells) else None)
            elif wanted in names:
                latest.put(index, channel.read(cells[names.index(wanted)]))
            else:
                raise SourceError(f"{self.settings.file} has no column {wanted!r}; it has: {', '.join(names)[:200]}")

    def _cells(self, line: bytes) -> list[str]:
        text = line.decode("utf-8-sig", "replace").replace("\0", "")
        try:
            return [cell.strip() for cell in next(csv.reader([text], delimiter=self.settings.delimiter), [])]
        except csv.Error:
            return []


class Tail:
    """Reads what was added to a file; every call may block and belongs off the loop."""

    def __init__(self, path: str, *, header: bool) -> None:
        self.head = b""
        self._path = path
        self._header = header
        self._file: IO[bytes] | None = None
        self._rest = b""

    def open(self) -> float:
        """Open the file as it is now; return the age in seconds of what it ends with."""
        file = self._reopen()
        status = os.fstat(file.fileno())
        self._skip_to(status.st_size - BLOCK_BYTES)
        # Both by the wall clock of this computer: if that jumped between, the first line is judged wrongly, once.
        return max(0.0, time.time() - status.st_mtime)

    def last_line(self) -> bytes | None:
        """Return the last whole line that was added since the last call, None if none was."""
        if self._file is None:
            self._reopen()
        last = self._read_on()
        if self._was_rotated():
            # What was added between the two looks at the old file is in it, and is read first.
            self._reopen()
            last = self._read_on() or last
        return last

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _reopen(self) -> IO[bytes]:
        self.close()
        try:
            if not os.path.isfile(self._path):  # a pipe would hang
                raise SourceError(f"{self._path} is not there, or not a file")
            self._file = open(self._path, "rb")  # noqa: SIM115  # it stays open
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {error.strerror}") from error
        self.head, self._rest = b"", b""
        return self._file

    def _read_on(self) -> bytes | None:
        file = self._file
        assert file is not None
        try:
            size = os.fstat(file.fileno()).st_size
            if size < file.tell():
                file.seek(0)  # truncated: what is there now is new
                self.head, self._rest = b"", b""
            self._skip_to(size - _BEHIND_BYTES_MAX)
            last: bytes | None = None
            for _ in range(_BLOCKS_MAX):
                if not (block := file.read(BLOCK_BYTES)):
                    break
                last = self._last_of(block) or last
            return last
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {error.strerror}") from error

    def _skip_to(self, position: int) -> None:
        """Go on at `position`, if that is ahead, with the first line that begins there."""
        file = self._file
        assert file is not None
        if position <= file.tell() + BLOCK_BYTES:
            return
        if self._header and not self.head:
            self.head = file.readline(LINE_BYTES_MAX)
        file.seek(position)
        file.readline(LINE_BYTES_MAX)
        self._rest = b""

    def _last_of(self, block: bytes) -> bytes | None:
        *lines, rest = (self._rest + block).split(b"\n")
        # A line that never ends is kept as long as any line may be, and then counts as what it is: too long.
        self._rest = rest[: LINE_BYTES_MAX + 1]
        if lines and self._header and not self.head:
            self.head = lines.pop(0)
        whole = [line for line in lines if line.strip() and len(line) <= LINE_BYTES_MAX]
        return whole[-1] if whole else None

    def _was_rotated(self) -> bool:
        assert self._file is not None
        try:
            now, mine = os.stat(self._path), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return False  # between the two renames of a rotation; a file that stays away falls silent
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {error.strerror}") from error
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino)
