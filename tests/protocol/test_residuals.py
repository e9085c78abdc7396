"""A residual model gives every residual back, and what it learnt or was taught makes the next one cheaper."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.rangecoder import PROBABILITY_ONE, RangeDecoder, RangeEncoder
from protocol.residuals import (
    ACTIVITY_CLASSES,
    CELLS,
    ResidualModel,
    activity_class,
    chance_of,
    code_afresh,
    read_prior,
    shape_chance,
)

residuals = st.one_of(st.integers(-40, 40), st.integers(-(1 << 65), 1 << 65))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(residuals, st.integers(0, 1 << 70)), max_size=40), st.binary(max_size=40))
def test_residuals_come_back(steps: list[tuple[int, int]], prior: bytes) -> None:
    encoder = RangeEncoder()
    model = ResidualModel(prior)
    for residual, activity in steps:
        assert model.code(encoder, residual, activity) == residual
        assert code_afresh(encoder, residual, activity) == residual
    decoder = RangeDecoder(encoder.finish())
    model = ResidualModel(prior)
    for residual, activity in steps:
        assert model.code(decoder, 0, activity) == residual
        assert code_afresh(decoder, 0, activity) == residual
    decoder.finish()


def size_bytes(values: list[int], activity: int, prior: bytes = b"") -> int:
    encoder = RangeEncoder()
    model = ResidualModel(prior)
    for value in values:
        model.code(encoder, value, activity)
    return encoder.size_bytes


def test_what_repeats_becomes_cheap() -> None:
    assert size_bytes([5] * 200, 0) < 40
    assert size_bytes([0] * 400, 256) < 10


def test_the_right_activity_is_cheaper_than_a_wrong_one() -> None:
    values = [(-1) ** at * (700 + 37 * at % 300) for at in range(8)]
    assert size_bytes(values, 800 << 8) < size_bytes(values, 1 << 4)


def test_a_prior_that_says_never_zero_pays() -> None:
    never_zero = bytes([activity_class(256), 0x00, 0])
    assert list(read_prior(never_zero)) == [(activity_class(256), 0, chance_of(0))]
    assert size_bytes([1, -1, 1], 256, never_zero) <= size_bytes([1, -1, 1], 256)
    assert size_bytes([0, 0, 0], 256, never_zero) > size_bytes([0, 0, 0], 256)


def test_activity_classes_are_half_octaves() -> None:
    assert [activity_class(activity) for activity in (0, 15, 16, 24, 32, 48, 64)] == [0, 0, 0, 1, 2, 3, 4]
    assert activity_class(1 << 200) == ACTIVITY_CLASSES - 1


@given(st.binary(max_size=100))
def test_any_bytes_are_a_prior(prior: bytes) -> None:
    for activity, cell, chance in read_prior(prior):
        assert 0 <= activity < ACTIVITY_CLASSES
        assert 0 <= cell < CELLS
        assert 0 < chance < PROBABILITY_ONE


@pytest.mark.parametrize("activity", range(ACTIVITY_CLASSES))
def test_the_shape_has_a_chance_for_each_cell(activity: int) -> None:
    for cell in range(CELLS):
        assert 0 < shape_chance(activity, cell) < PROBABILITY_ONE
