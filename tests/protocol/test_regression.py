"""The small solvers find what they are known to find."""

import random

import pytest

from protocol.regression import least_squares, residual_bits, robust_fits, solve


def test_a_linear_system_is_solved() -> None:
    assert solve([[4.0, 1.0], [1.0, 3.0]], [1.0, 2.0]) == pytest.approx([1 / 11, 7 / 11])


def test_a_dependent_column_gets_no_say() -> None:
    assert solve([[0.0, 0.0], [0.0, 2.0]], [0.0, 4.0]) == [0.0, 2.0]


def test_least_squares_finds_exact_weights() -> None:
    first, second = [1.0, 2.0, 3.0, 5.0], [2.0, -1.0, 0.0, 4.0]
    target = [3 * a - 2 * b for a, b in zip(first, second, strict=True)]
    assert least_squares([first, second], target, [1.0] * 4) == pytest.approx([3, -2], rel=1e-4)


def test_robust_fits_ignore_a_few_wild_rows() -> None:
    source = random.Random(1)
    column = [source.gauss(0, 10) for _ in range(400)]
    target = [2 * value + source.gauss(0, 0.5) for value in column]
    target[::50] = [9_000.0] * 8
    for weights in robust_fits([column], target):
        assert weights[0] == pytest.approx(2, abs=0.3)


def test_bits_grow_with_the_residuals() -> None:
    source = random.Random(2)
    small, large = ([round(source.gauss(0, step)) for _ in range(3000)] for step in (2, 64))
    assert residual_bits([]) == 0.0
    assert residual_bits([0] * 1000) < 0.01
    assert residual_bits(large) - residual_bits(small) == pytest.approx(5, abs=0.4)
