"""Learn a schema's chances: run the row model over recorded rows, count bits, keep what pays for its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log2
from typing import Final

from protocol.rangecoder import PROBABILITY_ONE, RangeEncoder
from protocol.residuals import CELLS, EXPONENT_CAP, activity_class, chance_of, shape_chance
from protocol.rows import Row, RowModel
from protocol.schema import PRIOR_BYTES_MAX, Schema

_SEEN_MIN: Final = 30
_RUN_CELLS_MAX: Final = 16
_RUN_HEAD_BYTES: Final = 2
# The byte for each chance: nearest of the 256 chances that a byte can stand for.
_BYTES_BY_CHANCE: Final = sorted((chance_of(byte), byte) for byte in range(256) if 32 <= chance_of(byte) <= 65504)


def fit_priors(schema: Schema, rows: Sequence[Row], *, bytes_max: int) -> Schema:
    """Return `schema` with priors of at most `bytes_max` in total, the most useful runs first."""
    tallies = [_Tally() for _ in schema.channels]
    model = RowModel(schema, models=tallies)
    nowhere = RangeEncoder()
    for row in rows:
        model.code(nowhere, row)
    runs = [
        (saved / len(run), index, run) for index, tally in enumerate(tallies) for saved, run in tally.runs(len(rows))
    ]
    runs.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    priors = [b""] * len(tallies)
    left = bytes_max
    for _, index, run in runs:
        if len(run) <= left and len(priors[index]) + len(run) <= PRIOR_BYTES_MAX:
            priors[index] += run
            left -= len(run)
    channels = (replace(channel, prior=prior) for channel, prior in zip(schema.channels, priors, strict=True))
    return replace(schema, channels=tuple(channels))


class _Tally:
    """Stands in for a residual model and counts what it would have coded."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], list[int]] = {}

    def code(self, coder: object, residual: int, activity: int) -> int:
        """Count the bits of one residual."""
        of = activity_class(activity)
        size = abs(residual)
        self._count(of, 0, size == 0)
        if size:
            wanted = size.bit_length() - 1
            for exponent in range(min(wanted + 1, EXPONENT_CAP)):
                self._count(of, 1 + exponent, wanted > exponent)
        return residual

    def copy(self) -> _Tally:
        """Return itself: nothing goes on from a fit."""
        return self

    def _count(self, of: int, cell: int, bit: bool) -> None:
        self._seen.setdefault((of, cell), [0, 0])[bit] += 1

    def runs(self, rows: int) -> list[tuple[float, bytes]]:
        """Return (bits saved a row, run) for each activity class that was seen often enough."""
        runs = []
        for of in sorted({of for of, _ in self._seen}):
            cells = [cell for cell in range(CELLS) if sum(self._seen.get((of, cell), (0, 0))) >= _SEEN_MIN]
            if not cells:
                continue
            first, last = cells[0], min(cells[-1], cells[0] + _RUN_CELLS_MAX - 1)
            saved = 0.0
            data = bytearray([of, first << 4 | last - first])
            for cell in range(first, last + 1):
                zeros, ones = self._seen.get((of, cell), (0, 0))
                chance = (ones + 0.4) / (zeros + ones + 0.8)
                data.append(_byte_of(round(chance * PROBABILITY_ONE)))
                saved += _saved_bits(zeros, ones, chance, shape_chance(of, cell) / PROBABILITY_ONE)
            runs.append((saved / rows, bytes(data)))
        return runs


def _byte_of(chance: int) -> int:
    return min(_BYTES_BY_CHANCE, key=lambda entry: abs(log2(_odds(entry[0]) / _odds(chance))))[1]


def _odds(chance: int) -> float:
    bounded = min(max(chance, 16), PROBABILITY_ONE - 16)
    return bounded / (PROBABILITY_ONE - bounded)


def _saved_bits(zeros: int, ones: int, chance: float, before: float) -> float:
    return ones * log2(chance / before) + zeros * log2((1 - chance) / (1 - before))
