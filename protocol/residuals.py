"""The context model of residuals: from an integer to modelled bits, and back, learning as it goes.

A residual is written as: zero flag; sign; exponent in unary; the top mantissa bits; the rest raw. The zero flag and the
exponent have a probability in each of two contexts, averaged by how often each was seen:
- activity: how large the residual is expected to be, in half octaves, from the recent residuals of the channel and its
  neighbours in the row (see `activity`). These cells start from the shape that telemetry was measured to have, or from
  the channel's `prior`, which was learnt from its own recorded data.
- echo: the class of the channel's last absolute residual. These cells start, when first seen, as a copy of the other's.

All arithmetic is on integers, so that every machine writes and reads the same bytes. How fast cells settle and how many
mantissa bits are modelled is the codec's `Tuning`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

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
_MANTISSA_CELLS: Final = 8  # of one exponent


class Tuning(NamedTuple):
    """How a codec learns: sightings of a cell count up to `count_max`; so many mantissa bits are modelled."""

    count_max: int
    mantissa_bits: int
    mantissa_shift: int


CONTEXT: Final = Tuning(count_max=60, mantissa_bits=2, mantissa_shift=5)
CARRIED: Final = Tuning(count_max=40, mantissa_bits=3, mantissa_shift=4)

# A cell seen n times (from 1) moves towards each bit by 1 / (n + 0.5) of the way: a source that drifts slowly.
_STEP: Final = tuple(2 * PROBABILITY_ONE // (2 * count + 1) for count in range(CONTEXT.count_max + 1))
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
# By the modelled bits before, the leading one included: the first bit, the second after 0 and 1, the third.
_MANTISSA_SHAPE: Final = (0, 24_000, 26_500, 28_500, 31_000, 31_000, 31_000, 31_000)
_SIGN_SHIFT: Final = 4
_MASK: Final = 0xFFFF_FFFF
_TOP: Final = 0x0100_0000


class ResidualModel:
    """Codes the residuals of one channel; `prior` is the channel's (see `read_prior`).

    A context is a list: the chances of its cells, then their counts. Contexts are made when first met.
    """

    __slots__ = ("_activities", "_echo", "_echoes", "_mantissas", "_prior", "_sign", "_signs", "_tuning")

    def __init__(self, prior: bytes = b"", tuning: Tuning = CONTEXT) -> None:
        self._prior = prior
        self._tuning = tuning
        self._activities: list[list[int] | None] = [None] * ACTIVITY_CLASSES
        self._echoes = [_UNSEEN.copy()] + [None] * (len(_ECHO_STARTS) - 1)  # type: list[list[int] | None]
        self._echo: list[int] = self._echoes[0]  # type: ignore[assignment]
        self._sign = 0
        self._signs = [_HALF, _HALF, _HALF]
        self._mantissas = list(_MANTISSA_SHAPE) * (EXPONENT_CAP + 1)

    def copy(self) -> ResidualModel:
        """Return a model that has learnt the same and learns on by itself."""
        other = ResidualModel.__new__(ResidualModel)
        other._prior, other._tuning, other._sign = self._prior, self._tuning, self._sign
        other._activities = [None if each is None else each.copy() for each in self._activities]
        other._echoes = [None if each is None else each.copy() for each in self._echoes]
        now = next(at for at, each in enumerate(self._echoes) if each is self._echo)
        other._echo = other._echoes[now]  # type: ignore[assignment]
        other._signs, other._mantissas = self._signs.copy(), self._mantissas.copy()
        return other

    def code(self, coder: Coder, residual: int, activity: int) -> int:
        """Code one residual, below 2**66 in size, where `activity` / 256 is expected (see `Coder`).

        This is where a truck's processor spends its time, so the coder's steps (`RangeEncoder.bit`, `RangeDecoder.bit`)
        are written out at each kind of bit, on local variables: half of the time was spent on calls.
        """
        if activity < ACTIVITY_ONE >> 4:
            of = 0
        else:
            length = activity.bit_length()
            of = 2 * length + (activity >> length - 2 & 1) - _CLASS_OFFSET
            if of >= ACTIVITY_CLASSES:
                of = ACTIVITY_CLASSES - 1
        far = self._activities[of]
        if far is None:
            far = self._activities[of] = list(_first_context(self._prior, of))
        near = self._echo
        count_max, modelled, shift = self._tuning
        low, high, code = coder.low, coder.high, coder.code
        reading, out, step, top, mask = coder.reading, coder.out, _STEP, _TOP, _MASK
        size = residual if residual >= 0 else -residual
        wanted = size.bit_length() - 1
        cell = 0
        count_at = CELLS
        negative = False
        bit = not size
        while True:
            far_chance = far[cell]
            far_count = far[count_at]
            near_count = near[count_at]
            if near_count:
                near_chance = near[cell]
                middle = low + (
                    (high - low) * ((near_chance * near_count + far_chance * far_count) // (near_count + far_count))
                    >> 16
                )
            else:
                near_chance = far_chance
                near_count = 1
                middle = low + ((high - low) * far_chance >> 16)
            if reading:
                bit = code <= middle
            if bit:
                high = middle
                near[cell] = near_chance + ((_HIGH - near_chance) * step[near_count] >> 16)
                far[cell] = far_chance + ((_HIGH - far_chance) * step[far_count] >> 16)
            else:
                low = middle + 1
                near[cell] = near_chance + ((_LOW - near_chance) * step[near_count] >> 16)
                far[cell] = far_chance + ((_LOW - far_chance) * step[far_count] >> 16)
            if near_count < count_max:
                near[count_at] = near_count + 1
            if far_count < count_max:
                far[count_at] = far_count + 1
            while low ^ high < top:
                if reading:
                    code = code << 8 & mask | coder.next_byte()
                else:
                    out.append(high >> 24)
                low = low << 8 & mask
                high = high << 8 & mask | 0xFF
            if cell:
                if not bit:
                    cell -= 1
                    break
                if cell == EXPONENT_CAP:
                    break
                cell += 1
                count_at += 1
                bit = wanted >= cell
                continue
            if bit:
                coder.low, coder.high, coder.code = low, high, code
                self._echo = self._echoes[0]  # type: ignore[assignment]
                return 0
            # The sign.
            signs, sign = self._signs, self._sign
            chance = signs[sign]
            middle = low + ((high - low) * chance >> 16)
            negative = code <= middle if reading else residual < 0
            if negative:
                high = middle
                signs[sign] = chance + (_HIGH - chance >> _SIGN_SHIFT)
                self._sign = 2
            else:
                low = middle + 1
                signs[sign] = chance + (_LOW - chance >> _SIGN_SHIFT)
                self._sign = 1
            while low ^ high < top:
                if reading:
                    code = code << 8 & mask | coder.next_byte()
                else:
                    out.append(high >> 24)
                low = low << 8 & mask
                high = high << 8 & mask | 0xFF
            cell = 1
            count_at += 1
            bit = wanted >= 1
        left = cell
        value = 1
        if left:
            if cell == EXPONENT_CAP:
                coder.low, coder.high, coder.code = low, high, code
                left += coder.raw(wanted - cell, _RAW_EXPONENT_BITS)
                low, high, code = coder.low, coder.high, coder.code
            # The mantissa: its first bits are modelled, by the exponent and the bits before; the others are raw.
            mantissas, at = self._mantissas, cell * _MANTISSA_CELLS
            while left:
                left -= 1
                if modelled:
                    chance = mantissas[at + value]
                    middle = low + ((high - low) * chance >> 16)
                else:
                    middle = low + (high - low >> 1)
                if code <= middle if reading else size >> left & 1:
                    high = middle
                    if modelled:
                        mantissas[at + value] = chance + (_HIGH - chance >> shift)
                        modelled -= 1
                    value += value + 1
                else:
                    low = middle + 1
                    if modelled:
                        mantissas[at + value] = chance + (_LOW - chance >> shift)
                        modelled -= 1
                    value += value
                while low ^ high < top:
                    if reading:
                        code = code << 8 & mask | coder.next_byte()
                    else:
                        out.append(high >> 24)
                    low = low << 8 & mask
                    high = high << 8 & mask | 0xFF
        coder.low, coder.high, coder.code = low, high, code
        of = _ECHO_OF[value if value < _ECHO_MAX else _ECHO_MAX]
        echo = self._echoes[of]
        if echo is None:
            echo = self._echoes[of] = _UNSEEN.copy()
        self._echo = echo
        return -value if negative else value


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


@lru_cache(maxsize=4_096)
def _first_context(prior: bytes, of: int) -> tuple[int, ...]:
    chances = [shape_chance(of, cell) for cell in range(CELLS)]
    counts = [_SHAPE_COUNT] * CELLS
    for activity, cell, chance in read_prior(prior):
        if activity == of:
            chances[cell] = min(max(chance, _LOW), _HIGH)
            counts[cell] = _PRIOR_COUNT
    return (*chances, *counts)


_UNSEEN: Final = [0] * (2 * CELLS)
