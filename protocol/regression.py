"""Weighted least squares and entropy estimates for fitting schemas: small, dependency-free, and never on the wire.

Floating point is fine here: a fit only proposes the integers of a schema, which both sides then use exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log2
from operator import mul
from typing import Final, TypeAlias

Column: TypeAlias = list[float]

_RIDGE: Final = 1e-6
_ITERATIONS: Final = 2
_LOCAL_ROWS: Final = 4
_ECHOES: Final = (1, 2, 3, 5, 9, 17, 40, 120, 500)


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the sum of products."""
    return float(sum(map(mul, left, right)))


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a symmetric positive definite system by Gaussian elimination; a dependent row gets weight 0."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for at in range(size):
        pivot = rows[at][at]
        if pivot <= 0.0:
            rows[at] = [0.0] * (size + 1)
            rows[at][at] = 1.0
            continue
        for below in range(at + 1, size):
            factor = rows[below][at] / pivot
            if factor:
                rows[below] = [a - factor * b for a, b in zip(rows[below], rows[at], strict=True)]
    weights = [0.0] * size
    for at in range(size - 1, -1, -1):
        known = sum(rows[at][other] * weights[other] for other in range(at + 1, size))
        weights[at] = (rows[at][size] - known) / rows[at][at]
    return weights


def least_squares(features: Sequence[Column], target: Column, importance: Column) -> list[float]:
    """Return the weights that minimise the sum of importance times squared error (with a slight ridge)."""
    weighted = [list(map(mul, feature, importance)) for feature in features]
    size = len(features)
    matrix = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            matrix[i][j] = matrix[j][i] = dot(weighted[i], features[j])
        matrix[i][i] = matrix[i][i] * (1 + _RIDGE) + 1e-12
    return solve(matrix, [dot(feature, target) for feature in weighted])


def predict(features: Sequence[Column], weights: Sequence[float], length: int) -> Column:
    """Return the weighted sum of features, row by row."""
    total = [0.0] * length
    for feature, weight in zip(features, weights, strict=True):
        if weight:
            total = [so_far + weight * value for so_far, value in zip(total, feature, strict=True)]
    return total


def robust_fits(features: Sequence[Column], target: Column) -> list[list[float]]:
    """Return two candidate fits: one that trusts calm stretches most, one that minimises absolute errors.

    Bits grow with the logarithm of an error, so plain least squares, which fits the few largest errors, would not do.
    """
    fits = []
    for importance_of in (_calm_importance, _absolute_importance):
        residual = target
        weights: list[float] = []
        for _ in range(_ITERATIONS):
            weights = least_squares(features, target, importance_of(residual))
            ahead = predict(features, weights, len(target))
            residual = [value - guess for value, guess in zip(target, ahead, strict=True)]
        fits.append(weights)
    return fits


def _calm_importance(residual: Column) -> Column:
    sizes = [abs(value) for value in residual]
    floor = 0.3 + 0.05 * sum(sizes) / len(sizes)
    sums = [0.0]
    for size in sizes:
        sums.append(sums[-1] + size)
    count = len(sizes)
    importance = []
    for at, size in enumerate(sizes):
        first, last = max(at - _LOCAL_ROWS, 0), min(at + _LOCAL_ROWS + 1, count)
        scale = 0.7 * (sums[last] - sums[first]) / (last - first) + 0.3 * size + floor
        importance.append(1.0 / (scale * scale))
    return importance


def _absolute_importance(residual: Column) -> Column:
    floor = 0.3 + 0.1 * sorted(map(abs, residual))[len(residual) // 2]
    return [1.0 / (abs(value) + floor) for value in residual]


def residual_bits(residual: Sequence[int]) -> float:
    """Estimate the codec's bits a value for a column of residuals: exponents given the echo, and their mantissas."""
    count = len(residual)
    if not count:
        return 0.0
    pairs: Counter[tuple[int, int]] = Counter()
    mantissa_bits = 0
    echo = 0
    for value in residual:
        size = abs(value)
        length = size.bit_length()
        if length > 1:
            mantissa_bits += length - 1
        pairs[echo, length if value >= 0 else -length] += 1
        echo = length if length < 4 else 4 + sum(size >= start for start in _ECHOES[4:])
    totals: Counter[int] = Counter()
    for (echo, _), seen in pairs.items():
        totals[echo] += seen
    bits = sum(seen * log2(totals[echo] / seen) for (echo, _), seen in pairs.items())
    # Each distinct pair has to be learnt: a charge that keeps a fit from winning by scattering its residuals.
    return (bits + mantissa_bits + 0.15 * len(pairs) * log2(count + 1)) / count
