"""A fitted schema finds the laws that rows obey, and is worth its bytes on rows that it has not seen."""

import math
import random

import pytest

from protocol.batch import decode, encode
from protocol.fit import SAMPLE_ROWS_MAX, Field, fit_schema, sample_rows
from protocol.rows import Row
from protocol.schema import Schema, decode_schema


def rows_of(columns: list[list[int | None]], period_s: int = 60) -> list[Row]:
    return [(1_780_272_000 + period_s * at, values) for at, values in enumerate(zip(*columns, strict=True))]


def walk(count: int, step: float, seed: int) -> list[int]:
    source = random.Random(seed)
    level = 10_000.0
    return [round(level := level + source.gauss(0, step)) for _ in range(count)]


def fit(rows: list[Row], prior_bytes_max: int = 300) -> Schema:
    return fit_schema([Field(f"c{at}") for at in range(len(rows[0][1]))], rows, prior_bytes_max=prior_bytes_max)


def batch_bytes(schema: Schema, rows: list[Row]) -> float:
    bodies = [encode(schema, rows[at : at + 60]) for at in range(0, len(rows), 60)]
    assert [row for body in bodies for row in decode(schema, body)] == rows
    return sum(map(len, bodies)) / len(rows)


def test_a_sum_of_two_channels_costs_next_to_nothing() -> None:
    first, second = walk(900, 50, 1), walk(900, 50, 2)
    pair = rows_of([first, second])
    triple = rows_of([first, second, [a + b for a, b in zip(first, second, strict=True)]])
    assert batch_bytes(fit(triple[:450]), triple[450:]) < batch_bytes(fit(pair[:450]), pair[450:]) + 0.4


def test_what_two_others_explain_together_is_coded_after_them() -> None:
    source = random.Random(3)
    sun = [40_000]
    load = [20_000]
    for at in range(1, 900):
        sun.append(sun[-1] + round(source.gauss(0, 300 if at // 60 % 2 else 0)))
        load.append(load[-1] + round(source.gauss(0, 0 if at // 60 % 2 else 300)))
    current = [(a - b) // 50 for a, b in zip(sun, load, strict=True)]
    schema = fit(rows_of([current, sun, load]))
    assert schema.coding_order == (1, 2, 0)
    assert [index for index, _ in schema.channels[0].weights] == [1, 2]


def test_a_smooth_curve_is_followed_by_its_trend() -> None:
    wave = [round(50_000 * math.sin(at / 20)) for at in range(900)]
    schema = fit(rows_of([wave]))
    assert schema.channels[0].trend
    assert batch_bytes(schema, rows_of([wave])) < 1.1


def test_noise_about_a_level_is_pulled_back() -> None:
    source = random.Random(4)
    noise = [500 + round(source.gauss(0, 40)) for _ in range(900)]
    schema = fit(rows_of([noise]))
    bound = math.log2(40 * math.sqrt(2 * math.pi * math.e)) / 8
    assert batch_bytes(schema, rows_of([noise])) < 1.12 * bound + 0.1


@pytest.mark.parametrize(
    "column",
    [
        [7] * 400,
        [at // 100 * 1000 for at in range(400)],
        list(range(0, 4000, 10)),
        [0 if at % 37 else 10**15 for at in range(400)],
        [None] * 400,
        [None if at % 3 else at for at in range(400)],
        [(-1) ** at * (1 << 62) for at in range(400)],
        [random.Random(at).getrandbits(62) for at in range(400)],
    ],
    ids=["constant", "steps", "counter", "spikes", "absent", "gaps", "extremes", "random"],
)
def test_any_column_can_be_fitted_and_comes_back(column: list[int | None]) -> None:
    rows = rows_of([column, walk(400, 3, 5)])
    schema = fit(rows)
    assert decode_schema(schema.encoded) == schema
    assert batch_bytes(schema, rows) < 25


@pytest.mark.parametrize("count", [1, 2, 3, 119, 121])
def test_short_recordings_are_fitted_as_far_as_they_go(count: int) -> None:
    rows = rows_of([walk(count, 3, 6), walk(count, 9, 7)], period_s=30)
    schema = fit(rows)
    assert batch_bytes(schema, rows) > 0
    assert schema.period_s == (60 if count == 1 else 30)


def test_priors_keep_to_their_budget() -> None:
    rows = rows_of([walk(600, 30, 8), walk(600, 2, 9)])
    sizes = [sum(len(channel.prior) for channel in fit(rows, budget).channels) for budget in (0, 20, 100)]
    assert sizes[0] == 0
    assert 0 < sizes[1] <= 20 < sizes[2] <= 100


def test_a_long_recording_is_sampled_in_stretches() -> None:
    rows = rows_of([list(range(50_000))])
    sample = sample_rows(rows)
    assert len(sample) == SAMPLE_ROWS_MAX
    assert sample[0] == rows[0]
    assert sample[-1] == rows[-1]


def test_many_channels_are_fitted() -> None:
    rows = rows_of([walk(130, 1 + at, at) for at in range(32)])
    assert batch_bytes(fit(rows), rows) < 65
