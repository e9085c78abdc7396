"""Where in the held content a frame's like is: sampled rolling hashes vote for blocks of 64 KiB.

A hash over 32 bytes is kept where its own bits say so (1 place in 256), so that the same content is sampled at the same
places wherever it lies. The blocks that cover most of a frame's hashes become its prefix. Renames, moves and other
bundles need no path logic.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from protocol.pack.index import Extent

BLOCK_BYTES = 1 << 16
_STEP_BYTES = 1 << 22
_WINDOW_DOUBLINGS = 5
_WINDOW_BYTES = 1 << _WINDOW_DOUBLINGS
_MULTIPLIER = 0x9E3779B97F4A7C15
_SAMPLED_SHIFT = np.uint64(40)
_SAMPLED_MASK = np.uint64(0xFF)
_PLACES_A_HASH_MAX = 64

Bytes = memoryview | bytes


def sample(data: Bytes) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the sampled hashes of some content and their places, repeats next to each other left out."""
    whole = np.frombuffer(data, dtype=np.uint8)
    hashes, places = [], []
    for start in range(0, max(0, len(whole) - _WINDOW_BYTES + 1), _STEP_BYTES):
        rolled = whole[start : start + _STEP_BYTES + _WINDOW_BYTES - 1].astype(np.uint64) + np.uint64(1)
        factor = _MULTIPLIER
        for doubling in range(_WINDOW_DOUBLINGS):
            width = 1 << doubling
            rolled = rolled[:-width] * np.uint64(factor) + rolled[width:]
            factor = factor * factor & 0xFFFFFFFFFFFFFFFF
        at = np.flatnonzero((rolled >> _SAMPLED_SHIFT) & _SAMPLED_MASK == 0)
        found = rolled[at]
        # A run of one byte is the same hash at every place: one of them says it all.
        fresh = np.ones(len(found), dtype=bool)
        fresh[1:] = found[1:] != found[:-1]
        hashes.append(found[fresh])
        places.append(at[fresh] + start)
    if not hashes:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(hashes), np.concatenate(places)


class BlockIndex:
    """The hashes of all held content, by block."""

    def __init__(self, base: Bytes) -> None:
        self._size = len(base)
        hashes, places = sample(base)
        blocks = places // BLOCK_BYTES
        order = np.lexsort((blocks, hashes))
        self._hashes, self._blocks = hashes[order], blocks[order]

    def extents(self, frame: Bytes, bytes_max: int) -> tuple[Extent, ...]:
        """Return the stretches of the base that have most in common with a frame, in the order of the base.

        A base that fits is taken whole: content that differs in every line has no window that votes.
        """
        if self._size <= bytes_max:
            return (Extent(0, self._size),) if self._size else ()
        covers: defaultdict[int, set[int]] = defaultdict(set)
        wanted = np.unique(sample(frame)[0])
        firsts = np.searchsorted(self._hashes, wanted, side="left")
        lasts = np.searchsorted(self._hashes, wanted, side="right")
        for number, (first, last) in enumerate(zip(firsts.tolist(), lasts.tolist(), strict=True)):
            for block in self._blocks[first : min(last, first + _PLACES_A_HASH_MAX)].tolist():
                covers[block].add(number)
        chosen = _greedy(covers, max(1, bytes_max // BLOCK_BYTES))
        return self._joined(sorted(self._widened(chosen, max(1, bytes_max // BLOCK_BYTES))))

    def _widened(self, chosen: list[int], count: int) -> set[int]:
        """Return the chosen blocks and, as far as there is room, what lies beside them."""
        blocks = set(chosen)
        last = (self._size - 1) // BLOCK_BYTES
        for step in (1, -1, 2, -2):
            for block in chosen:
                if len(blocks) >= count:
                    return blocks
                if 0 <= block + step <= last:
                    blocks.add(block + step)
        return blocks

    def _joined(self, blocks: list[int]) -> tuple[Extent, ...]:
        out: list[Extent] = []
        for block in blocks:
            start = block * BLOCK_BYTES
            length = min(BLOCK_BYTES, self._size - start)
            if out and out[-1].offset + out[-1].length == start:
                out[-1] = Extent(out[-1].offset, out[-1].length + length)
            else:
                out.append(Extent(start, length))
        return tuple(out)


def _greedy(covers: dict[int, set[int]], count: int) -> list[int]:
    """Return up to `count` blocks, each time the one that covers most hashes not covered yet."""
    queue = [(-len(numbers), block) for block, numbers in covers.items()]
    heapq.heapify(queue)
    covered: set[int] = set()
    chosen: list[int] = []
    while queue and len(chosen) < count:
        _, block = heapq.heappop(queue)
        fresh = len(covers[block] - covered)
        if not fresh:
            continue
        if queue and -queue[0][0] > fresh:
            heapq.heappush(queue, (-fresh, block))
            continue
        covered |= covers[block]
        chosen.append(block)
    return chosen
