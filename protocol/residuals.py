"""The context model of residuals: from an integer to modelled bits, and back, learning as it goes.

A residual is written as: zero flag; sign; exponent in unary; the top two mantissa bits; the rest raw. The zero flag and
the exponent have a probability in each of two contexts, averaged by how often each was seen:
- activity: how large the residual is expected to be, in half octaves, from the recent residuals of the channel and its
  neighbours in the row (see `activity`). These cells start from the shape that telemetry was measured to have, or from
  the channel's `prior`, which was learnt from its own recorded data.
- echo: the class of the channel's last absolute residual. These cells start, when first seen, as a copy of the other's.

All arithmetic is on integers, so that every machine writes and reads the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from protocol.rangecoder import PROBABILITY_ONE, Coder

# Activities are absolute residuals in 1/256 of a step; their classes are half octaves from 1/16 of a step upwards.
ACTIVITY_ONE: Final = 256
ACTIVITY_CLASSES: Final = 56
_CLASS_OFFSET: Final = 10

# Classes of the last absolute residual: 0, 1, 2, 3-4, 5-8, 9-16, 17-39, 40-119, 120-499, 500 and more.
_ECHO_STARTS: Final = (0, 1, 2, 3, 5, 9, 17, 40, 120, 500)
_ECHO_MAX: Final = _ECHO_STARTS[-1]
_ECHO_OF: Final = tuple(sum(start <= size for start in _ECHO_STARTS) - 1 for size in range(_ECHO_MAX + 1))

EXPONENT_CAP: Final = 20  # beyond, raw bits say the exponent: a jump, not a distribution
_RAW_EXPONENT_BITS: Final = 6
# Cells of one context: the zero flag, then "larger than this exponent" for each exponent.
CELLS: Final = 1 + EXPONENT_CAP
_ECHOES_AT: Final = ACTIVITY_CLASSES * CELLS

_COUNT_MAX: Final = 60
# A cell moves towards each bit by 1 / (n + 1.5) of the way: the estimator of a source that drifts slowly.
_STEP: Final = tuple(2 * PROBABILITY_ONE // (2 * count + 3) for count in range(_COUNT_MAX + 1))
_LOW: Final = 32
_HIGH: Final = PROBABILITY_ONE - 32
_HALF: Final = PROBABILITY_ONE >> 1
# How many sightings a starting probability is worth: one of the general shape, one learnt from the channel's own data.
_SHAPE_COUNT: Final = 6
_PRIOR_COUNT: Final = 14

# The shape of telemetry, pooled over recorded channels (in 1/1024): the chance of a zero by activity class, and the
# chance that a residual is larger than exponent e by activity class less 2 e (tails are heavier than a Laplacian's).
_ZERO_SHAPE: Final = (
    1022, 1022, 1020, 992, 905, 748, 573, 481, 369, 307, 250, 184, 133, 130, 123, 102, 82, 80, 62, 58, 56, 54, 51, 48,
)  # fmt: skip
_ZERO_SHAPE_TAIL: Final = 38
_LARGER_SHAPE_FIRST: Final = 2
_LARGER_SHAPE: Final = (
    350, 320, 260, 245, 275, 340, 430, 520, 660, 745, 835, 870, 915, 932, 955, 968, 980, 988, 994, 998, 1003, 1008,
)  # fmt: skip
_MANTISSA_SHAPE: Final = (24_000, 26_500, 28_500)
_MANTISSA_COUNT: Final = 8


class ResidualModel:
    """Codes the residuals of one channel; `prior` is the channel's (see `read_prior`)."""

    __slots__ = ("_chances", "_counts", "_echo", "_mantissas", "_sign", "_signs")

    def __init__(self, prior: bytes = b"") -> None:
        chances, counts = _first_cells(prior)
        self._chances = list(chances)
        self._counts = list(counts)
        self._echo = _ECHOES_AT
        self._sign = 0
        self._signs = [_HALF, _HALF, _HALF]
        self._mantissas = list(_MANTISSA_SHAPE) * (EXPONENT_CAP + 1)

    def code(self, coder: Coder, residual: int, activity: int) -> int:
        """Code one residual, below 2**66 in size, where `activity` / 256 is expected (see `Coder`)."""
        far = activity_class(activity) * CELLS
        if self._bit(coder, far, self._echo, residual == 0):
            self._echo = _ECHOES_AT
            return 0
        negative = self._code_sign(coder, residual < 0)
        size = -residual if negative else residual
        wanted = size.bit_length() - 1
        exponent = 0
        near = self._echo
        while exponent < EXPONENT_CAP:
            exponent += 1
            if not self._bit(coder, far + exponent, near + exponent, wanted >= exponent):
                exponent -= 1
                break
        cells = 3 * exponent
        if exponent == EXPONENT_CAP:
            exponent += coder.raw(wanted - exponent, _RAW_EXPONENT_BITS)
        size = self._code_mantissa(coder, cells, exponent, size)
        self._echo = _ECHOES_AT + _ECHO_OF[size if size < _ECHO_MAX else _ECHO_MAX] * CELLS
        return -size if negative else size

    def _bit(self, coder: Coder, far: int, near: int, bit: int) -> int:
        chances, counts = self._chances, self._counts
        far_chance, far_count, near_count = chances[far], counts[far], counts[near]
        if near_count:
            near_chance = chances[near]
            one = (near_chance * near_count + far_chance * far_count) // (near_count + far_count)
        else:
            one = near_chance = far_chance
            near_count = 1
        goal = _HIGH if coder.bit(bit, one) else _LOW
        chances[near] = near_chance + ((goal - near_chance) * _STEP[near_count - 1] >> 16)
        chances[far] = far_chance + ((goal - far_chance) * _STEP[far_count - 1] >> 16)
        if near_count < _COUNT_MAX:
            counts[near] = near_count + 1
        if far_count < _COUNT_MAX:
            counts[far] = far_count + 1
        return goal == _HIGH

    def _code_sign(self, coder: Coder, bit: int) -> int:
        chance = self._signs[self._sign]
        bit = coder.bit(bit, chance)
        self._signs[self._sign] = chance + ((_HIGH if bit else _LOW) - chance >> 4)
        self._sign = 1 + bit
        return bit

    def _code_mantissa(self, coder: Coder, cells: int, exponent: int, wanted: int) -> int:
        size = 1
        left = exponent
        if left:
            left -= 1
            size = 2 | self._code_mantissa_bit(coder, cells, wanted >> left & 1)
        if left:
            left -= 1
            size = size << 1 | self._code_mantissa_bit(coder, cells + 1 + (size & 1), wanted >> left & 1)
        return size << left | coder.raw(wanted & (1 << left) - 1, left) if left else size

    def _code_mantissa_bit(self, coder: Coder, cell: int, bit: int) -> int:
        chance = self._mantissas[cell]
        bit = coder.bit(bit, chance)
        self._mantissas[cell] = chance + ((_HIGH if bit else _LOW) - chance >> 5)
        return bit


def code_afresh(coder: Coder, residual: int, activity: int) -> int:
    """Code one residual by the general shape alone, learning nothing: a channel's first value (see `ResidualModel`)."""
    of = activity_class(activity)
    if coder.bit(residual == 0, shape_chance(of, 0)):
        return 0
    negative = coder.bit(residual < 0, _HALF)
    size = abs(residual)
    wanted = size.bit_length() - 1
    exponent = 0
    while exponent < EXPONENT_CAP and coder.bit(wanted > exponent, shape_chance(of, exponent + 1)):
        exponent += 1
    if exponent == EXPONENT_CAP:
        exponent += coder.raw(wanted - exponent, _RAW_EXPONENT_BITS)
    size = 1 << exponent | coder.raw(size & (1 << exponent) - 1, exponent)
    return -size if negative else size


def activity_class(activity: int) -> int:
    """Return the half octave of an expected absolute residual in 1/256 of a step."""
    if activity < ACTIVITY_ONE >> 4:
        return 0
    length = activity.bit_length()
    half_octave = 2 * length + (activity >> length - 2 & 1) - _CLASS_OFFSET
    return half_octave if half_octave < ACTIVITY_CLASSES else ACTIVITY_CLASSES - 1


def read_prior(prior: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (activity class, cell, chance in 1/65536) for each cell that a channel's prior names.

    A prior is runs of: class, first cell << 4 | number of cells less one (of the first 16), then a byte a cell.
    Runs that are cut short or out of range name fewer cells: it comes in a signed schema, and any bytes are valid.
    """
    at = 0
    while at + 2 < len(prior):
        activity, first, count = prior[at] % ACTIVITY_CLASSES, prior[at + 1] >> 4, (prior[at + 1] & 15) + 1
        for offset, byte in enumerate(prior[at + 2 : at + 2 + count]):
            if first + offset < CELLS:
                yield activity, first + offset, chance_of(byte)
        at += 2 + count


def chance_of(byte: int) -> int:
    """Return the chance (in 1/65536) that a byte of a prior stands for, finer towards both ends."""
    small = (8 + (byte & 7)) << min(byte >> 3 & 15, 11)
    return PROBABILITY_ONE - small if byte & 128 else small


def shape_chance(activity: int, cell: int) -> int:
    """Return the chance (in 1/65536) that the general shape gives to a cell of an activity class."""
    if cell == 0:
        return (_ZERO_SHAPE[activity] if activity < len(_ZERO_SHAPE) else _ZERO_SHAPE_TAIL) << 6
    at = activity - 2 * (cell - 1) - _LARGER_SHAPE_FIRST
    return _LARGER_SHAPE[min(max(at, 0), len(_LARGER_SHAPE) - 1)] << 6


@lru_cache(maxsize=512)
def _first_cells(prior: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    chances = [shape_chance(activity, cell) for activity in range(ACTIVITY_CLASSES) for cell in range(CELLS)]
    counts = [_SHAPE_COUNT] * len(chances)
    for activity, cell, chance in read_prior(prior):
        chances[activity * CELLS + cell] = min(max(chance, _LOW), _HIGH)
        counts[activity * CELLS + cell] = _PRIOR_COUNT
    echoes = [0] * (len(_ECHO_STARTS) * CELLS)
    return tuple(chances + echoes), tuple(counts + echoes)
