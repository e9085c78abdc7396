"""Fit the expected error of a channel: non-negative weights that make its recorded residuals likeliest.

The residual's size is taken as exponential about a weighted sum of what is known before it (its last size, a fast and
a slow average, the size of the predicted change, the sizes of other channels' residuals in the same row). The weights
are found by multiplicative updates (those of Itakura-Saito factorisation; Fevotte, Bertin and Durrieu, 2009), which
keep them positive and need no step size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from protocol.regression import Column, dot, predict
from protocol.rows import FAST, SLOW
from protocol.schema import VALUE_MAX, WEIGHT_MAX, WEIGHT_SHIFT, Channel

_ROUNDS: Final = 12
_ROUNDS_LAST: Final = 30
_NEIGHBOURS_MAX: Final = 3
_SHARE_MIN: Final = 0.04  # a term that explains less of the expected size than this is left out
_OWN_TERMS: Final = 5
_STEP_FLOOR: Final = 0.15  # a residual of 0 still has the size of rounding
_ROWS_MAX: Final = 5_000


def fit_activity(
    channel: Channel, residual: Column, ahead: Column, earlier: Sequence[int], residuals: Sequence[Column]
) -> Channel:
    """Return `channel` with `typical`, `activity` and `neighbours` fitted to its residuals."""
    sizes = [abs(value) for value in residual[:_ROWS_MAX]]
    cap = sorted(sizes)[len(sizes) * 99 // 100]
    typical = sum(min(size, cap) for size in sizes) / len(sizes)
    terms = [[1.0] * len(sizes), [typical, *sizes[:-1]], _average(sizes, typical, FAST), _average(sizes, typical, SLOW)]
    terms.append([abs(value) for value in ahead[: len(sizes)]])
    names = list(range(_OWN_TERMS))
    for other in earlier:
        terms.append([abs(value) for value in residuals[other][: len(sizes)]])
        names.append(_OWN_TERMS + other)
    terms = [_capped(term) for term in terms]
    kept = [at for at, term in enumerate(terms) if any(term)]
    target = [size + _STEP_FLOOR for size in sizes]
    weights = _likeliest([terms[at] for at in kept], target, _ROUNDS)
    shares = [weight * sum(terms[at]) for at, weight in zip(kept, weights, strict=True)]
    total = sum(shares) or 1.0
    ranked = sorted(zip(shares, kept, strict=True), reverse=True)
    neighbours = [at for share, at in ranked if names[at] >= _OWN_TERMS and share > _SHARE_MIN * total]
    final = [at for at in kept if names[at] < _OWN_TERMS] + neighbours[:_NEIGHBOURS_MAX]
    weights = _likeliest([terms[at] for at in final], target, _ROUNDS_LAST)
    fitted = {names[at]: weight for at, weight in zip(final, weights, strict=True)}
    shift = 1 << WEIGHT_SHIFT
    pairs = [
        (name - _OWN_TERMS, min(round(weight * shift), WEIGHT_MAX))
        for name, weight in fitted.items()
        if name >= _OWN_TERMS
    ]
    return replace(
        channel,
        typical=min(round(typical), VALUE_MAX),
        activity=tuple(min(round(fitted.get(name, 0.0) * 256), WEIGHT_MAX) for name in range(_OWN_TERMS)),
        neighbours=tuple(sorted((index, weight) for index, weight in pairs if weight)),
    )


def _average(sizes: Column, start: float, weight: int) -> Column:
    average = start
    averages = []
    for size in sizes:
        averages.append(average)
        average += (size - average) * weight / 256
    return averages


def _capped(term: Column) -> Column:
    cap = sorted(term)[len(term) * 999 // 1000] + 1.0
    return [min(value, cap) for value in term]


def _likeliest(terms: Sequence[Column], target: Column, rounds: int) -> list[float]:
    mean = sum(target) / len(target)
    weights = [mean * len(term) / (sum(term) or 1.0) / len(terms) for term in terms]
    for _ in range(rounds):
        inverse = [1.0 / (value + 1e-6) for value in predict(terms, weights, len(target))]
        wanted = [value * inv * inv for value, inv in zip(target, inverse, strict=True)]
        weights = [
            weight * (dot(term, wanted) / (dot(term, inverse) + 1e-12)) ** 0.5
            for weight, term in zip(weights, terms, strict=True)
        ]
    return weights
