"""What every part of a pack reads from: bytes at a place (`Source`), and bytes in their order (`Cursor`, `Reader`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from protocol.errors import MalformedError

READ_BYTES = 1 << 18
_VARINT_BYTES_MAX = 9


class Source(Protocol):
    """Bytes that can be read at any place, such as a file's."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`; the caller keeps within `size`."""


class BytesSource:
    """A source in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`."""
        return self._data[offset : offset + length]


class Reader:
    """Numbers and byte strings in their order, from a function that returns the next n bytes (fewer at the end)."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read

    def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes; raise `MalformedError` when there are fewer."""
        data = self._read(count) if count else b""
        if len(data) != count:
            raise MalformedError("the pack ends early")
        return data

    def pieces(self, count: int) -> Iterator[bytes]:
        """Yield the next `count` bytes in pieces of bounded size."""
        while count:
            piece = self.exactly(min(count, READ_BYTES))
            count -= len(piece)
            yield piece

    def byte(self) -> int:
        """Return the next byte."""
        return self.exactly(1)[0]

    def varint(self, most: int) -> int:
        """Return the next number, which is at most `most`."""
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES_MAX, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > most:
                    raise MalformedError(f"a number of the pack is {value} where at most {most} is allowed")
                return value
        raise MalformedError("a number of the pack is too long")

    def blob(self, most: int) -> bytes:
        """Return the next byte string that carries its own length, at most `most` bytes."""
        return self.exactly(self.varint(most))


class Cursor(Reader):
    """A reader of bytes in memory that knows where it stands."""

    def __init__(self, data: bytes) -> None:
        super().__init__(self._take)
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def _take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece


def varint(value: int) -> bytes:
    """Return a number as little-endian groups of 7 bits, the last one below 128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """Return a signed number as one that is not: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def unzigzag(value: int) -> int:
    """Return the signed number that `zigzag` made `value` of."""
    return -(value >> 1) - 1 if value & 1 else value >> 1


def blob(data: bytes) -> bytes:
    """Return a byte string with its length in front."""
    return varint(len(data)) + data


def source_pieces(source: Source, offset: int, length: int) -> Iterator[bytes]:
    """Yield a range of a source in pieces of bounded size."""
    while length:
        piece = source.read(offset, min(length, READ_BYTES))
        if not piece:
            raise MalformedError("a held file is shorter than it was")
        offset += len(piece)
        length -= len(piece)
        yield piece
