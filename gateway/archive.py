"""The stream inside a backup: an uncompressed tar (POSIX.1-1988 ustar) of regular files, and nothing that surprises.

Where only `age` and `tar` are at hand, a backup opens with them. Reading is our own few lines and not `tarfile`, whose
extraction has been escaped: a member is a regular file with a name from the caller's list, or the archive is refused.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from protocol.errors import LocalError

BLOCK_BYTES: Final = 512
_CHUNK_BYTES: Final = 1 << 20


class ArchiveError(LocalError):
    """The stream is no archive of ours, or ends too early."""


class Sink(Protocol):
    """Takes the bytes of one member; `close` comes once all of them have."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""

    def close(self) -> None:
        """Know that the member is whole."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file to write: its name, its size in bytes, and how to open it."""

    name: str
    size: int
    open: Callable[[], BinaryIO]


class ArchiveReader:
    """An archive of members as a file to read from, made while it is read."""

    def __init__(self, members: Iterable[Member], on_bytes: Callable[[int], None]) -> None:
        """`on_bytes` hears how many bytes of members went by."""
        self._chunks = _chunks(members, on_bytes)
        self._chunk = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Return some of the next bytes, at most `size`; none at the end."""
        while not self._chunk:
            try:
                self._chunk = memoryview(next(self._chunks))
            except StopIteration:
                return b""
        size = len(self._chunk) if size < 0 else size
        data, self._chunk = bytes(self._chunk[:size]), self._chunk[size:]
        return data


def _chunks(members: Iterable[Member], on_bytes: Callable[[int], None]) -> Iterator[bytes]:
    for member in members:
        info = tarfile.TarInfo(member.name)
        info.size, info.mode = member.size, 0o600
        yield info.tobuf(tarfile.GNU_FORMAT)
        left = member.size
        with member.open() as file:
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise ArchiveError(f"{member.name} became shorter while it was read")
                left -= len(chunk)
                yield chunk
                on_bytes(len(chunk))
        yield bytes(-member.size % BLOCK_BYTES)
    yield bytes(2 * BLOCK_BYTES)


class ArchiveWriter:
    """A file to write an archive to, which hands each member to the sink that `open_member(name, size)` gives for it.

    `open_member` refuses a member by raising. Call `finish` when all was written.
    """

    def __init__(self, open_member: Callable[[str, int], Sink]) -> None:
        self._open_member = open_member
        self._buffer = bytearray()
        self._sink: Sink | None = None
        self._left = self._padding = 0
        self._names: set[str] = set()
        self._ended = False

    def write(self, data: bytes) -> int:
        """Take the next bytes."""
        self._buffer += data
        while self._step():
            pass
        return len(data)

    def flush(self) -> None:
        """Have nothing to flush: sinks are closed by their members' ends."""

    def finish(self) -> None:
        """Raise `ArchiveError` unless the archive came to its end."""
        if not self._ended:
            raise ArchiveError("the archive ends too early")

    def _step(self) -> bool:
        """Use some of the buffer; return whether more of it can be used."""
        if self._sink is not None:
            if self._left:
                taken = bytes(self._buffer[: self._left])
                del self._buffer[: len(taken)]
                self._left -= len(taken)
                self._sink.write(taken)
            if self._left:
                return False
            self._sink.close()
            self._sink = None
            return True
        if self._padding:
            taken = bytes(self._buffer[: self._padding])
            del self._buffer[: len(taken)]
            self._padding -= len(taken)
            return self._padding == 0
        if len(self._buffer) < BLOCK_BYTES:
            return False
        header = bytes(self._buffer[:BLOCK_BYTES])
        del self._buffer[:BLOCK_BYTES]
        if not any(header):
            self._ended = True
        elif self._ended:
            raise ArchiveError("the archive goes on after its end")
        else:
            self._begin(header)
        return True

    def _begin(self, header: bytes) -> None:
        try:
            info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
            raise ArchiveError("there is no archive in it") from error
        if info.type != tarfile.REGTYPE or info.size < 0 or info.name in self._names:
            raise ArchiveError(f"{info.name[:80]!r} is not a member that a backup has")
        self._names.add(info.name)
        self._sink = self._open_member(info.name, info.size)
        self._left, self._padding = info.size, -info.size % BLOCK_BYTES
