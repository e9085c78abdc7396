"""Deflate streams (RFC 1951) taken apart and made again, byte for byte.

Inflating gives the same bytes everywhere. Deflating does not: a stream is made again only with settings of zlib that
were found, by trying, to give the very same bytes. Streams of other compressors (7-Zip, zopfli) stay closed.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec

from protocol.errors import MalformedError

_PROBE_BYTES = 1 << 16
_STEP_BYTES = 1 << 18


class Deflation(msgspec.Struct, frozen=True):
    """The settings of zlib's deflate; `window_bits` is 9 to 15."""

    level: int
    mem_level: int = 8
    strategy: int = 0
    window_bits: int = 15

    @property
    def code(self) -> int:
        """The settings as one number above 0, as recipes carry it."""
        return 1 + self.level + 10 * (self.mem_level + 10 * (self.strategy + 5 * (15 - self.window_bits)))

    @classmethod
    def from_code(cls, code: int) -> Deflation:
        """Return the settings of a recipe's number; raise `MalformedError`."""
        rest, level = divmod(code - 1, 10)
        rest, mem_level = divmod(rest, 10)
        rest, strategy = divmod(rest, 5)
        if not (0 <= rest <= 6 and 1 <= mem_level <= 9):
            raise MalformedError("a recipe asks for deflate settings that do not exist")
        return cls(level, mem_level, strategy, 15 - rest)


CODE_MAX = Deflation(9, 9, 4, 9).code
_COMMON = (
    *(Deflation(level, mem) for mem in (8, 9) for level in (6, 9, 1, 5, 7, 8, 4, 3, 2)),
    *(Deflation(level, mem, 1) for mem in (8, 9) for level in (6, 9, 1, 3, 7, 8, 5, 4, 2)),
    Deflation(0, 8),
    *(Deflation(level, mem, strategy) for strategy in (2, 3) for mem in (8, 9) for level in (6, 9)),
)


def deflate(pieces: Iterable[bytes], how: Deflation) -> Iterator[bytes]:
    """Yield the raw deflate stream of some content."""
    packer = zlib.compressobj(how.level, zlib.DEFLATED, -how.window_bits, how.mem_level, how.strategy)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def inflate(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield what a raw deflate stream holds; raise `MalformedError` unless that is exactly `size` bytes and its end."""
    unpacker = zlib.decompressobj(-15)
    left = size
    for piece in pieces:
        waiting = piece
        while True:
            try:
                # One byte more than is due: a stream that goes on is found out without holding what it says.
                part = unpacker.decompress(waiting, min(_STEP_BYTES, left + 1))
            except zlib.error as error:
                raise MalformedError("a deflate stream is broken") from error
            left -= len(part)
            if left < 0:
                raise MalformedError("a deflate stream is longer than was said")
            if part:
                yield part
            waiting = unpacker.unconsumed_tail
            if unpacker.eof or (not waiting and not part):
                break
        if unpacker.unused_data:
            raise MalformedError("bytes follow a deflate stream")
    if left or not unpacker.eof:
        raise MalformedError("a deflate stream is shorter than was said")


class DeflationSearch:
    """Finds the settings that make given streams again; what worked last is tried first."""

    def __init__(self) -> None:
        self._order = list(_COMMON)

    def find(self, content: bytes, packed: bytes, *, window_bits: int = 15) -> Deflation | None:
        """Return the settings that turn `content` into exactly `packed`, or None."""
        for how in list(self._order):
            tried = msgspec.structs.replace(how, window_bits=window_bits)
            if _makes(content, packed, tried):
                self._order.remove(how)
                self._order.insert(0, how)
                return tried
        return None


def _makes(content: bytes, packed: bytes, how: Deflation) -> bool:
    packer = zlib.compressobj(how.level, zlib.DEFLATED, -how.window_bits, how.mem_level, how.strategy)
    made = 0
    for start in range(0, len(content), _PROBE_BYTES):
        piece = packer.compress(content[start : start + _PROBE_BYTES])
        if packed[made : made + len(piece)] != piece:
            return False
        made += len(piece)
    rest = packer.flush()
    return packed[made:] == rest
