"""Which sequences of an epoch are committed: a contiguous high-water mark and the ranges above it.

This is the whole of deduplication, and it never expires: a parcel sent again after a year is still known. The number
of gaps is bounded, so that a truck cannot make the state grow without end. Pure; the epochs table keeps it as text.
"""

from __future__ import annotations

import json
from bisect import bisect_right

from protocol.numbers import GAPS_MAX


class SequenceSet:
    """A set of sequences from 1 on, with at most `GAPS_MAX` gaps below its highest."""

    def __init__(self, cumulative: int = 0, ranges: tuple[tuple[int, int], ...] = ()) -> None:
        """Start with everything up to `cumulative` and ascending, disjoint, non-adjacent `ranges` above it."""
        self.cumulative = cumulative
        self._firsts = [first for first, _ in ranges]
        self._lasts = [last for _, last in ranges]

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The ranges above the high-water mark, ascending: (first, last)."""
        return tuple(zip(self._firsts, self._lasts, strict=True))

    @property
    def highest(self) -> int:
        """The highest sequence in the set, 0 if it is empty."""
        return self._lasts[-1] if self._lasts else self.cumulative

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """What is missing below the highest: (first, last)."""
        ends = [self.cumulative, *self._lasts]
        return tuple((end + 1, first - 1) for end, first in zip(ends, self._firsts, strict=False))

    def covers(self, sequence: int) -> bool:
        """Return whether the sequence is in the set."""
        if sequence <= self.cumulative:
            return True
        index = bisect_right(self._firsts, sequence) - 1
        return index >= 0 and sequence <= self._lasts[index]

    def add(self, first: int, last: int) -> bool:
        """Add first..last; return False, changing nothing, if that would make one gap more than there may be."""
        if first <= self.cumulative + 1:
            self._raise_to(last)
            return True
        low = bisect_right(self._firsts, first) - 1
        if low < 0 or self._lasts[low] + 1 < first:
            low += 1
        high = low
        while high < len(self._firsts) and self._firsts[high] <= last + 1:
            high += 1
        if low == high:
            if len(self._firsts) >= GAPS_MAX:
                return False
            self._firsts.insert(low, first)
            self._lasts.insert(low, last)
            return True
        self._firsts[low:high] = [min(first, self._firsts[low])]
        self._lasts[low:high] = [max(last, self._lasts[high - 1])]
        return True

    def _raise_to(self, last: int) -> None:
        self.cumulative = max(self.cumulative, last)
        swallowed = 0
        while swallowed < len(self._firsts) and self._firsts[swallowed] <= self.cumulative + 1:
            self.cumulative = max(self.cumulative, self._lasts[swallowed])
            swallowed += 1
        del self._firsts[:swallowed]
        del self._lasts[:swallowed]


def ranges_to_text(ranges: tuple[tuple[int, int], ...]) -> str:
    """Return ranges as the text that the database keeps: "" for none, else a flat JSON array."""
    return json.dumps([end for pair in ranges for end in pair], separators=(",", ":")) if ranges else ""


def ranges_from_text(kept: str) -> tuple[tuple[int, int], ...]:
    """Return what `ranges_to_text` wrote."""
    if not kept:
        return ()
    ends = json.loads(kept)
    return tuple(zip(ends[::2], ends[1::2], strict=True))
