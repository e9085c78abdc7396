"""The context model of residuals: from an integer to modelled bits, and back, learning as it goes.

A residual is written as: zero flag; sign; exponent in unary; the top two mantissa bits; the rest raw. Each modelled bit
has its own probability in each context. The context is the class of the channel's last absolute residual (calm stays
calm), averaged with a cell that has no context, each weighted by how often it was seen. All arithmetic is on integers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from protocol.rangecoder import PROBABILITY_ONE, Coder

# Classes of the last absolute residual: 0, 1, 2, 3-4, 5-8, 9-16, 17-39, 40-119, 120-499, 500 and more.
_CLASS_STARTS: Final = (0, 1, 2, 3, 5, 9, 17, 40, 120, 500)
_CLASS_OF: Final = tuple(sum(start <= size for start in _CLASS_STARTS) - 1 for size in range(_CLASS_STARTS[-1] + 1))
_CLASS_SIZE_MAX: Final = _CLASS_STARTS[-1]
_CLASSES: Final = len(_CLASS_STARTS)

_EXPONENT_CAP: Final = 20  # beyond, six raw bits say the exponent: a jump, not a distribution
_RAW_EXPONENT_BITS: Final = 6
# Cells of one context: zero flag, sign, a "larger" bit an exponent, three mantissa nodes an exponent.
_ZERO: Final = 0
_SIGN: Final = 1
_LARGER: Final = 2
_MANTISSA: Final = _LARGER + _EXPONENT_CAP
_STRIDE: Final = _MANTISSA + 3 * (_EXPONENT_CAP + 1)

_COUNT_MAX: Final = 60
# A cell moves towards each bit by 1 / (n + 1.5) of the way: the estimator of a source that drifts slowly.
_STEP: Final = tuple(2 * PROBABILITY_ONE // (2 * count + 3) for count in range(_COUNT_MAX + 1))
_LOW: Final = 64
_HIGH: Final = PROBABILITY_ONE - 64
_HALF: Final = PROBABILITY_ONE >> 1


class ContextModel:
    """Codes the residuals of one channel; `typical` is the absolute residual that the schema expects."""

    __slots__ = ("_chances", "_context", "_counts")

    def __init__(self, typical: int) -> None:
        self._chances = list(_first_cells(typical))
        self._counts = [0] * len(self._chances)
        self._context = _CLASS_OF[min(typical, _CLASS_SIZE_MAX)] * _STRIDE

    def code(self, coder: Coder, residual: int) -> int:
        """Code one residual, below 2**66 in size (see `Coder`)."""
        if self._bit(coder, _ZERO, residual == 0):
            self._context = 0
            return 0
        negative = self._bit(coder, _SIGN, residual < 0)
        size = -residual if residual < 0 else residual
        wanted = size.bit_length() - 1
        exponent = 0
        while exponent < _EXPONENT_CAP and self._bit(coder, _LARGER + exponent, wanted > exponent):
            exponent += 1
        cells = _MANTISSA + 3 * exponent
        if exponent == _EXPONENT_CAP:
            exponent += coder.raw(wanted - exponent, _RAW_EXPONENT_BITS)
        size = self._mantissa(coder, cells, exponent, size)
        self._context = _CLASS_OF[size if size < _CLASS_SIZE_MAX else _CLASS_SIZE_MAX] * _STRIDE
        return -size if negative else size

    def _mantissa(self, coder: Coder, cells: int, exponent: int, wanted: int) -> int:
        size = 1
        left = exponent
        if left:
            left -= 1
            size = 2 | self._bit(coder, cells, wanted >> left & 1)
        if left:
            left -= 1
            size = size << 1 | self._bit(coder, cells + 1 + (size & 1), wanted >> left & 1)
        return size << left | coder.raw(wanted & (1 << left) - 1, left) if left else size

    def _bit(self, coder: Coder, cell: int, bit: int) -> int:
        chances, counts = self._chances, self._counts
        near, far = self._context + cell, _CLASSES * _STRIDE + cell
        near_chance, far_chance = chances[near], chances[far]
        near_count, far_count = counts[near], counts[far]
        bit = coder.bit(
            bit,
            (near_chance * (near_count + 1) + far_chance * (far_count + 1)) // (near_count + far_count + 2),
        )
        goal = _HIGH if bit else _LOW
        chances[near] = near_chance + ((goal - near_chance) * _STEP[near_count] >> 16)
        chances[far] = far_chance + ((goal - far_chance) * _STEP[far_count] >> 16)
        if near_count < _COUNT_MAX:
            counts[near] = near_count + 1
        if far_count < _COUNT_MAX:
            counts[far] = far_count + 1
        return bit


@lru_cache(maxsize=256)
def _first_cells(typical: int) -> tuple[int, ...]:
    cells: list[int] = []
    for start in _CLASS_STARTS:
        cells += _first_guess((start + typical + 1) // 2 if start else typical)
    return tuple(cells + _first_guess(typical))


def _first_guess(typical: int) -> list[int]:
    # Before anything was seen: a two-sided geometric distribution of this mean, by integers only.
    # P(zero) = 1 / (1 + 2 T); P(larger | at least 2**e) falls through one half where 2**e passes 0.7 T.
    zero = PROBABILITY_ONE * 2 // (3 if typical == 0 else 2 + 4 * typical)
    larger = [
        PROBABILITY_ONE * (typical + 1) // (typical + 1 + (3 << exponent >> 1)) for exponent in range(_EXPONENT_CAP)
    ]
    cells = [zero, _HALF, *larger] + [_HALF, _HALF, _HALF] * (_EXPONENT_CAP + 1)
    return [min(max(cell, _LOW), _HIGH) for cell in cells]
