"""Flap damping: a link that falls again and again is left alone for longer and longer, and forgiven with time.

As in RFC 2439, each fall adds to a penalty that halves with time. Here the penalty does not suppress a link outright,
which would cut off a truck that has no other: it says for how long the link rests after a fall.
"""

from __future__ import annotations

import math

_HALF_LIFE_S = 120.0
_REST_FIRST_S, _REST_MAX_S = 1.0, 300.0
_PENALTY_MAX = 16.0


class Damping:
    """The falls of one link; `now` is monotonic seconds."""

    def __init__(self, *, rest_max_s: float = _REST_MAX_S) -> None:
        self._rest_max_s = rest_max_s
        self._penalty = 0.0
        self._at = 0.0

    def penalty(self, now: float) -> float:
        """Return how many falls are not forgiven yet."""
        return self._penalty * math.exp2(-max(0.0, now - self._at) / _HALF_LIFE_S)

    def fell(self, now: float) -> float:
        """Note a fall; return for how many seconds the link should rest."""
        before = self.penalty(now)
        self._penalty, self._at = min(_PENALTY_MAX, before + 1.0), now
        return min(self._rest_max_s, _REST_FIRST_S * math.exp2(before))
