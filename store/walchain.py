"""The chain of checksums in SQLite's write-ahead log, mended where a frame in its middle has rotted.

SQLite reads a WAL up to the first frame whose checksum does not hold, and takes that for the end: right for what a
power cut tore, fatal for a rotted bit, which silently undoes every later commit although each was fsynced. So before a
database is opened its WAL is read once:

- a bit that flipped is flipped back where the checksum says which (it leaves open some of a word's highest bits), in a
  page, in a frame's own header or in the WAL's;
- a frame in which more has rotted stays as it is, and the frames behind it are chained to it, so that later commits
  count. That needs a proof that it was whole once: a later frame that continues a commit at or behind it, since no
  frame is written before the commit in front of it was fsynced. Without that proof it is a torn end, and stays one.

The format is https://sqlite.org/fileformat2.html#the_write_ahead_log: a header of 32 bytes, then frames of 24 bytes and
a page; each checksum goes on from that of the frame before. What is mended is written beside the WAL and renamed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.files import publish

_HEADER: Final = struct.Struct(">8I")  # magic, version, page size, checkpoints, two salts, two checksums
_FRAME: Final = struct.Struct(">6I")  # page, pages after a commit (0: none), two salts, two checksums
_SUMMED_OF_HEADER, _SUMMED_OF_FRAME = 24, 8
_MAGIC_LITTLE, _MAGIC_BIG, _VERSION = 0x377F0682, 0x377F0683, 3_007_000
_MASK: Final = 0xFFFF_FFFF
# SQLite keeps it far below; a file that is larger is not one of ours.
_WAL_BYTES_MAX: Final = 64 << 20
_PAGES_MAX: Final = 1 << 20

Sum = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done to a WAL: how many frames (the header counts as one) are as they were, and how many still rot."""

    repaired: int
    rotted: int


def mend(wal: Path, page_bytes: int) -> Mended | None:
    """Mend a WAL that nobody has open; return None when there was nothing to mend. Raises `OSError`."""
    if not wal.exists() or not 0 < wal.stat().st_size <= _WAL_BYTES_MAX:
        return None
    log = _Log(bytearray(wal.read_bytes()), page_bytes)
    log.mend()
    if not log.repaired and not log.rotted:
        return None
    publish(wal, bytes(log.data))
    return Mended(log.repaired, log.rotted)


class _Log:
    """A WAL in memory, mended in place."""

    def __init__(self, data: bytearray, page_bytes: int) -> None:
        self.data = data
        self.repaired = self.rotted = 0
        self._page_bytes = page_bytes
        self._frame_bytes = _FRAME.size + page_bytes
        self._count = max(0, len(data) - _HEADER.size) // self._frame_bytes
        self._salts = 0, 0
        self._words = ""
        self._proved = -1

    def mend(self) -> None:
        """Go through the chain; what is behind its end is left alone."""
        begun = self._settle_header() if self._count else None
        if begun is None:
            return
        was, now = begun
        for frame in range(self._count):
            found = self._settle(frame, was)
            if found is None:
                return
            # Only behind rot that stays the chain is another than it was.
            was, now = found, self._sum(frame, now) if self.rotted else found
            page, pages, *_ = _FRAME.unpack_from(self.data, self._at(frame))
            _FRAME.pack_into(self.data, self._at(frame), page, pages, *self._salts, *now)

    # -- the header ----------------------------------------------------------------------------------------------------

    def _settle_header(self) -> tuple[Sum, Sum] | None:
        """Make the header hold; return the checksum that it had and the one that it has, None: this is no WAL."""
        magic, version, page_bytes, checkpoints, *salts, first, second = _HEADER.unpack_from(self.data)
        self._words, self._salts, stored = ">" if magic == _MAGIC_BIG else "<", (salts[0], salts[1]), (first, second)
        if self._header_sum() == stored and magic in (_MAGIC_LITTLE, _MAGIC_BIG):
            return (stored, stored) if page_bytes == self._page_bytes and version == _VERSION else None
        for self._words, number in (("<", _MAGIC_LITTLE), (">", _MAGIC_BIG)):
            # All of it is known but how many checkpoints there were, of which a bit may have flipped.
            known = self._salts_of_frames(stored)
            if known is None:
                continue
            for flip in (0, *(1 << bit for bit in range(32))):
                values = number, _VERSION, self._page_bytes, checkpoints ^ flip, *known, *stored
                _HEADER.pack_into(self.data, 0, *values)
                self._salts, true = known, self._header_sum()
                is_other = not flip and (self._holds(0, true) or self._only_sum_rotted(-1, stored, true))
                if true == stored or is_other:
                    return self._put_header_sum(true), true
            # Nothing depends on that count; whether the first frame is whole cannot be told any more.
            _HEADER.pack_into(self.data, 0, number, _VERSION, self._page_bytes, checkpoints, *known, *stored)
            return stored, self._put_header_sum(self._header_sum())
        return None

    def _header_sum(self) -> Sum:
        return _summed((0, 0), self._numbers(0, _SUMMED_OF_HEADER))

    def _put_header_sum(self, true: Sum) -> Sum:
        self.repaired += 1
        struct.pack_into(">2I", self.data, _SUMMED_OF_HEADER, *true)
        return true

    def _salts_of_frames(self, header_sum: Sum) -> Sum | None:
        """Return the salts of the first frame that goes on from what is in front of it."""
        for frame in range(self._count):
            if self._holds(frame, self._stored(frame - 1) if frame else header_sum):
                return self._salts_at(frame)
        return None

    # -- frames --------------------------------------------------------------------------------------------------------

    def _settle(self, frame: int, was: Sum) -> Sum | None:
        """Mend a frame if it can be; return the checksum that the next one goes on from, None: the log ends here."""
        stored, true = self._stored(frame), self._sum(frame, was)
        if stored == true:
            self.repaired += self._salts_at(frame) != self._salts
            return stored
        if self._holds(frame + 1, true) or self._only_sum_rotted(frame, stored, true):
            self.repaired += 1
            return true
        if self._flip_back(frame, was):
            self.repaired += 1
            return stored
        if not self._was_whole(frame):
            return None
        self.rotted += 1
        self._name_a_page(frame)
        return stored

    def _only_sum_rotted(self, frame: int, stored: Sum, true: Sum) -> bool:
        """Return whether a checksum itself lacks one bit: the next frame does not go on from it as it is."""
        different = (stored[0] ^ true[0]) << 32 | (stored[1] ^ true[1])
        return different.bit_count() == 1 and not self._holds(frame + 1, stored)

    def _was_whole(self, frame: int) -> bool:
        """Return whether a later frame goes on from a commit at or behind this one."""
        if self._proved >= frame:
            return True
        for commit in range(frame, self._count - 1):
            is_commit = _FRAME.unpack_from(self.data, self._at(commit))[1] != 0
            ours = self._salts_at(commit) == self._salts == self._salts_at(commit + 1)
            if is_commit and ours and self._holds(commit + 1, self._stored(commit)):
                self._proved = commit
                return True
        return False

    def _name_a_page(self, frame: int) -> None:
        # A frame of page 0 would end the log: as one of the next frame's page it is passed over.
        if _FRAME.unpack_from(self.data, self._at(frame))[0] == 0:
            self.data[self._at(frame) : self._at(frame) + 4] = self.data[self._at(frame + 1) : self._at(frame + 1) + 4]

    def _at(self, frame: int) -> int:
        return _HEADER.size + frame * self._frame_bytes

    def _salts_at(self, frame: int) -> Sum:
        found = _FRAME.unpack_from(self.data, self._at(frame))
        return found[2], found[3]

    def _stored(self, frame: int) -> Sum:
        found = _FRAME.unpack_from(self.data, self._at(frame))
        return found[4], found[5]

    def _sum(self, frame: int, seed: Sum) -> Sum:
        at = self._at(frame)
        begun = _summed(seed, self._numbers(at, _SUMMED_OF_FRAME))
        return _summed(begun, self._numbers(at + _FRAME.size, self._page_bytes))

    def _holds(self, frame: int, seed: Sum) -> bool:
        """Return whether a frame goes on from a checksum; one of page 0 is none (nothing but zeros goes on from 0)."""
        if frame >= self._count or _FRAME.unpack_from(self.data, self._at(frame))[0] == 0:
            return False
        return self._sum(frame, seed) == self._stored(frame)

    def _numbers(self, at: int, size: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._words}{size // 4}I", self.data, at)

    # -- one flipped bit -----------------------------------------------------------------------------------------------

    def _flip_back(self, frame: int, seed: Sum) -> bool:
        """Flip the one bit of a frame that makes its checksum hold, if there is one and only one.

        The checksum is linear in its words: a word that is larger by d moves the sums by d times two Fibonacci
        numbers. Of a word's ten highest bits several may fit; then nobody can tell.
        """
        places = [*range(self._at(frame), self._at(frame) + _SUMMED_OF_FRAME, 4)]
        places += range(self._at(frame) + _FRAME.size, self._at(frame + 1), 4)
        words = [struct.unpack_from(f"{self._words}I", self.data, place)[0] for place in places]
        found, stored = _summed(seed, words), self._stored(frame)
        missing = (stored[0] - found[0]) & _MASK, (stored[1] - found[1]) & _MASK
        fits = []
        for index, (first, second) in enumerate(_weights(len(words))):
            word = words[-1 - index]
            for bit in range(32):
                more = -(1 << bit) if word >> bit & 1 else 1 << bit
                if (more * first) & _MASK == missing[0] and (more * second) & _MASK == missing[1]:
                    fits.append((places[-1 - index], word ^ 1 << bit))
        header = self._at(frame), self._at(frame) + 4
        fits = [each for each in fits if self._is_plausible(frame, dict([each] if each[0] in header else []))]
        if len(fits) != 1:
            return False
        place, word = fits[0]
        struct.pack_into(f"{self._words}I", self.data, place, word)
        return True

    def _is_plausible(self, frame: int, changed: dict[int, int]) -> bool:
        """Return whether a frame would name pages of a small database if words of its header were changed."""
        header = bytearray(self.data[self._at(frame) : self._at(frame) + _SUMMED_OF_FRAME])
        for place, word in changed.items():
            struct.pack_into(f"{self._words}I", header, place - self._at(frame), word)
        page, pages = struct.unpack(">2I", header)
        return bool(0 < page <= _PAGES_MAX and pages <= _PAGES_MAX)


def _summed(seed: Sum, numbers: tuple[int, ...] | list[int]) -> Sum:
    first, second = seed
    pairs = iter(numbers)
    for one, other in zip(pairs, pairs, strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second


def _weights(count: int) -> Iterator[Sum]:
    """Yield by how much a word moves each of the two sums, from the last word back to the first."""
    one, other = (1, 1), (0, 1)
    for _ in range(count // 2):
        yield other
        yield one
        one = (one[0] + one[1]) & _MASK, (one[0] + 2 * one[1]) & _MASK
        other = (other[0] + other[1]) & _MASK, (other[0] + 2 * other[1]) & _MASK
