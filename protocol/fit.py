"""Fit a schema to recorded rows: what `digitruck-edge schema suggest` and `measure` register.

Steps: nominals and periods from medians; an order of coding, found from the back (the channel that the others explain
best goes last); linear weights by robust least squares, kept only where they save bits on rows that they were not
fitted to; expected errors by maximum likelihood; at last the chances of the commonest cells, by running the codec's own
row model over the sample. The cost is a few seconds; the result is integers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Final

from protocol.fit_activity import fit_activity
from protocol.fit_prior import fit_priors
from protocol.regression import Column, dot, predict, residual_bits, robust_fits
from protocol.rows import Row
from protocol.schema import VALUE_MAX, WEIGHT_MAX, WEIGHT_SHIFT, Channel, Codec, Schema

SAMPLE_ROWS_MAX: Final = 6_000
_BLOCK_ROWS: Final = 500
_FIT_ROWS_MIN: Final = 120
_SAME_ROW_MAX: Final = 6
_HISTORY_MAX: Final = 4
_GAIN_BITS_MIN: Final = 0.02
_ORDER_GAIN_BITS_MIN: Final = 0.05
_ORDER_LUCK_ROWS: Final = 40
_DROP_BITS_MAX: Final = 0.003  # a weight that saves less a value is not worth its place
_DROP_SHARES: Final = (0.02, 0.05, 0.1, 0.2)  # of the strongest term; the weaker ones are tried without, by steps
_ONE: Final = 1 << WEIGHT_SHIFT


@dataclass(frozen=True, slots=True)
class Field:
    """What a recording says of a channel by itself."""

    name: str
    unit: str = ""
    scale: int = 1


@dataclass(frozen=True, slots=True)
class _Term:
    """One candidate of a channel's prediction: "w" same row, "h" one row ago, "t" own trend, "p" pull."""

    kind: str
    index: int


def fit_schema(fields: Sequence[Field], rows: Sequence[Row], *, prior_bytes_max: int, ticks_per_s: int = 1) -> Schema:
    """Return a schema for rows like `rows`; `prior_bytes_max` bounds the learnt chances (0: none)."""
    plain = _plain_schema(fields, rows, ticks_per_s)
    sample = sample_rows(rows)
    if len(sample) < _FIT_ROWS_MIN:
        return plain
    columns = _Columns(plain, sample)
    order = _coding_order(columns)
    channels = list(plain.channels)
    residuals: list[Column] = [[] for _ in channels]
    forecasts: list[Column] = [[] for _ in channels]
    for at, index in enumerate(order):
        terms, weights = columns.fit(index, order[:at])
        channels[index] = _with_terms(channels[index], terms, weights)
        forecasts[index] = columns.forecast(index, terms, weights)
        residuals[index] = [
            value - ahead for value, ahead in zip(columns.changes[index], forecasts[index], strict=True)
        ]
    for at, index in enumerate(order):
        channels[index] = fit_activity(channels[index], residuals[index], forecasts[index], order[:at], residuals)
    schema = replace(plain, channels=tuple(channels), order=() if order == sorted(order) else tuple(order))
    return fit_priors(schema, sample, bytes_max=prior_bytes_max)


def sample_rows(rows: Sequence[Row]) -> list[Row]:
    """Return at most `SAMPLE_ROWS_MAX` rows: whole stretches, spread evenly, so that nights and days are both seen."""
    if len(rows) <= SAMPLE_ROWS_MAX:
        return list(rows)
    blocks = SAMPLE_ROWS_MAX // _BLOCK_ROWS
    starts = [at * (len(rows) - _BLOCK_ROWS) // (blocks - 1) for at in range(blocks)]
    return [row for start in starts for row in rows[start : start + _BLOCK_ROWS]]


def _plain_schema(fields: Sequence[Field], rows: Sequence[Row], ticks_per_s: int) -> Schema:
    times = [time for time, _ in rows]
    steps = sorted(after - before for before, after in pairwise(times))
    period_ticks = steps[len(steps) // 2] if steps else 60 * ticks_per_s
    channels = []
    for index, field in enumerate(fields):
        column = [value for _, values in rows if (value := values[index]) is not None]
        nominal = sorted(column)[len(column) // 2] if column else 0
        changes = [abs(after - before) for before, after in pairwise(column)]
        channels.append(
            Channel(
                name=field.name,
                unit=field.unit,
                scale=field.scale,
                nominal=nominal,
                spread=min(sum(abs(value - nominal) for value in column) // max(len(column), 1), VALUE_MAX),
                typical=min(sum(changes) // max(len(changes), 1), VALUE_MAX),
            )
        )
    period_s = min(max(round(period_ticks / ticks_per_s), 1), 86_400)
    return Schema(tuple(channels), period_s=period_s, codec=Codec.CONTEXT, ticks_per_s=ticks_per_s)


class _Columns:
    """The sample by columns: each channel's changes now and up to three rows ago, and its distance to nominal."""

    def __init__(self, schema: Schema, sample: list[Row]) -> None:
        self.changes: list[Column] = []
        self.before: list[Column] = []
        self._trend: list[list[Column]] = []
        self._pull: list[Column] = []
        for index, channel in enumerate(schema.channels):
            filled: Column = []
            last = float(channel.nominal)
            for _, values in sample:
                value = values[index]
                last = last if value is None else float(value)
                filled.append(last)
            changes = [0.0, *(after - before for before, after in pairwise(filled))]
            # Where stretches of the sample meet, the change is not one that a batch would see.
            for seam in range(0, len(changes), _BLOCK_ROWS):
                changes[seam] = 0.0
            self.changes.append(changes)
            self.before.append([0.0, *changes[:-1]])
            self._trend.append([self.before[-1], [0.0, 0.0, *changes[:-2]], [0.0, 0.0, 0.0, *changes[:-3]]])
            self._pull.append([0.0, *(channel.nominal - value for value in filled[:-1])])
        count = len(sample)
        # Weights are fitted to even stretches and judged on odd ones.
        self._fitted = [at for at in range(count) if at // (_BLOCK_ROWS // 2) % 2 == 0]
        self._judged = [at for at in range(count) if at // (_BLOCK_ROWS // 2) % 2 == 1] or self._fitted
        self._base_bits: dict[int, float] = {}
        self._ranked: dict[int, tuple[list[int], list[int]]] = {}  # others, the likest first: same row, one row ago

    def gain_bits(self, index: int, available: Sequence[int]) -> float:
        """Return the bits a value that the available channels save of this one, beyond its own past."""
        if index not in self._base_bits:
            self._base_bits[index] = self._best(index, self._terms(index, []))[0]
        return self._base_bits[index] - self._best(index, self._terms(index, available))[0]

    def fit(self, index: int, available: Sequence[int]) -> tuple[list[_Term], list[int]]:
        """Return the terms and integer weights that save bits, the fewest that save nearly all."""
        plain_bits = self._bits(index, [], [])
        terms = self._terms(index, available)
        bits, weights = self._best(index, terms)
        if bits > plain_bits - _GAIN_BITS_MIN:
            return [], []
        for share in _DROP_SHARES:
            strength = [
                abs(weight) * sum(map(abs, self._column(index, term)))
                for term, weight in zip(terms, weights, strict=True)
            ]
            fewer = [term for term, size in zip(terms, strength, strict=True) if size > share * max(strength)]
            if 0 < len(fewer) < len(terms):
                fewer_bits, fewer_weights = self._best(index, fewer)
                if fewer_bits > bits + _DROP_BITS_MAX * (len(terms) - len(fewer)):
                    break
                bits, terms, weights = fewer_bits, fewer, fewer_weights
        if bits > plain_bits - _GAIN_BITS_MIN:
            return [], []
        return terms, weights

    def forecast(self, index: int, terms: Sequence[_Term], weights: Sequence[int]) -> Column:
        """Return the predicted change of each row, rounded as the codec rounds."""
        total = predict([self._column(index, term) for term in terms], weights, len(self.changes[index]))
        return [float((round(value) + _ONE // 2) // _ONE) for value in total]

    def _terms(self, index: int, available: Sequence[int]) -> list[_Term]:
        own = [_Term("t", lag) for lag in range(3)] + [_Term("p", 0)]
        target = self.changes[index]
        if index not in self._ranked:
            others = [other for other in range(len(self.changes)) if other != index]
            self._ranked[index] = (
                sorted(others, key=lambda other: -_likeness(self.changes[other], target)),
                sorted(others, key=lambda other: -_likeness(self.before[other], target)),
            )
        same, past = self._ranked[index]
        same = [other for other in same if other in available]
        terms = own + [_Term("w", other) for other in same[:_SAME_ROW_MAX]]
        terms += [_Term("h", other) for other in past[:_HISTORY_MAX]] if available else []
        return [term for term in terms if any(self._column(index, term))]

    def _column(self, index: int, term: _Term) -> Column:
        if term.kind == "w":
            return self.changes[term.index]
        if term.kind == "h":
            return self.before[term.index]
        return self._trend[index][term.index] if term.kind == "t" else self._pull[index]

    def _best(self, index: int, terms: Sequence[_Term]) -> tuple[float, list[int]]:
        columns = [self._column(index, term) for term in terms]
        fitted = [[column[at] for at in self._fitted] for column in columns]
        sizes = [(dot(column, column) / len(column)) ** 0.5 or 1.0 for column in fitted]
        scaled = [[value / size for value in column] for column, size in zip(fitted, sizes, strict=True)]
        target = [self.changes[index][at] for at in self._fitted]
        best = (float("inf"), [0] * len(terms))
        for weights in robust_fits(scaled, target) if terms else []:
            rounded = [
                max(min(round(weight / size * _ONE), WEIGHT_MAX), -WEIGHT_MAX)
                for weight, size in zip(weights, sizes, strict=True)
            ]
            best = min(best, (self._bits(index, terms, rounded), rounded))
        return best if terms else (self._bits(index, [], []), [])

    def _bits(self, index: int, terms: Sequence[_Term], weights: Sequence[int]) -> float:
        columns = [self._column(index, term) for term in terms]
        judged = [[column[at] for at in self._judged] for column in columns]
        ahead = predict(judged, weights, len(self._judged))
        target = self.changes[index]
        return residual_bits(
            [
                round(target[at]) - (round(value) + _ONE // 2) // _ONE
                for at, value in zip(self._judged, ahead, strict=True)
            ]
        )


def _coding_order(columns: _Columns) -> list[int]:
    rest = list(range(len(columns.changes)))
    last: list[int] = []
    # With few rows a gain is partly luck, so it has to be larger.
    gain_bits_min = max(_ORDER_GAIN_BITS_MIN, _ORDER_LUCK_ROWS / len(columns.changes[0]))
    # A channel's gain only shrinks as others leave: an old figure is a bound, and only the largest has to be renewed.
    bounds = [(-columns.gain_bits(index, rest), index) for index in rest]
    heapify(bounds)
    while bounds:
        _, index = heappop(bounds)
        gain = columns.gain_bits(index, rest)
        if gain < gain_bits_min:
            continue
        if bounds and -gain > bounds[0][0]:
            heappush(bounds, (-gain, index))
            continue
        rest.remove(index)
        last.insert(0, index)
    return rest + last


def _likeness(column: Column, target: Column) -> float:
    # Signs and square roots tame the few largest changes, which would otherwise decide alone.
    pairs = [(a, b) for a, b in zip(column, target, strict=True) if a and b]
    if not pairs:
        return 0.0
    return abs(sum((1.0 if (a > 0) == (b > 0) else -1.0) * math.sqrt(abs(b)) for a, b in pairs))


def _with_terms(channel: Channel, terms: Sequence[_Term], weights: Sequence[int]) -> Channel:
    trend = [0, 0, 0]
    pull = 0
    same: list[tuple[int, int]] = []
    history: list[tuple[int, int]] = []
    for term, weight in zip(terms, weights, strict=True):
        if term.kind == "t":
            trend[term.index] = weight
        elif term.kind == "p":
            pull = weight
        elif weight:
            (same if term.kind == "w" else history).append((term.index, weight))
    while trend and not trend[-1]:
        trend.pop()
    return replace(channel, weights=tuple(sorted(same)), history=tuple(sorted(history)), trend=tuple(trend), pull=pull)
