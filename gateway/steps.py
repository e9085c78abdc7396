"""Steps: count, extremes, sum and last value of each channel in equal spans of time (UTC), added up from rows.

Kept for hours and days as rollups, and computed on query for any other span.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.decoding import DecodedBatch, physical
from protocol.summary import Piece
from store.fleet.evidence import DAY_MS, HOUR_MS, Rollup


@dataclass(slots=True)
class Step:
    """What one channel did in one step. `repaired` of its values were taken under a clock that was set later."""

    count: int = 0
    total: float = 0.0
    low: float = 0.0
    high: float = 0.0
    last: float = 0.0
    last_ms: int = -1
    repaired: int = 0
    period_s: int = 0

    def add(self, number: float, time_ms: int, *, is_repaired: bool, period_s: int) -> None:
        """Add one value."""
        self._merge(1, number, number, number, number, time_ms, int(is_repaired), period_s)

    def add_piece(
        self,
        count: int,
        total: float,
        low: float,
        high: float,
        last: float,
        last_ms: int,
        *,
        is_repaired: bool,
        period_s: int,
    ) -> None:
        """Add what a summary tells of some values."""
        self._merge(count, total, low, high, last, last_ms, count if is_repaired else 0, period_s)

    def add_rollup(self, rollup: Rollup) -> None:
        """Add the values of a shorter step."""
        self._merge(
            rollup.count,
            rollup.sum,
            rollup.minimum,
            rollup.maximum,
            rollup.last,
            rollup.last_ms,
            rollup.repaired,
            rollup.period_s,
        )

    def _merge(
        self,
        count: int,
        total: float,
        low: float,
        high: float,
        last: float,
        last_ms: int,
        repaired: int,
        period_s: int,
    ) -> None:
        first = self.count == 0
        self.low = low if first else min(self.low, low)
        self.high = high if first else max(self.high, high)
        self.period_s = period_s if first else min(self.period_s, period_s)
        self.count += count
        self.total += total
        self.repaired += repaired
        if first or last_ms >= self.last_ms:
            self.last, self.last_ms = last, last_ms

    @property
    def mean(self) -> float:
        """Return the mean of the values, without the noise of adding decimals up as binary fractions."""
        return float(f"{self.total / self.count:.12g}")


@dataclass(slots=True)
class Steps:
    """Steps of `step_ms` by (channel, unit) and start (Unix ms)."""

    step_ms: int
    found: dict[tuple[str, str], dict[int, Step]] = field(default_factory=dict)

    def at(self, name: str, unit: str, time_ms: int) -> Step:
        """Return the step of a channel that a time lies in."""
        return self.found.setdefault((name, unit), {}).setdefault(time_ms - time_ms % self.step_ms, Step())

    def add(
        self, batch: DecodedBatch, wanted: frozenset[str] = frozenset(), period_ms: tuple[int, int] | None = None
    ) -> None:
        """Add the rows of a batch: of the wanted channels (all if none is named) and within the period."""
        schema = batch.schema
        columns = [pair for pair in enumerate(schema.channels) if not wanted or pair[1].name in wanted]
        for time_ms, values in batch.rows:
            if period_ms is not None and not period_ms[0] <= time_ms < period_ms[1]:
                continue
            for index, channel in columns:
                value = values[index]
                if value is not None:
                    self.at(channel.name, channel.unit, time_ms).add(
                        physical(channel, value), time_ms, is_repaired=batch.is_repaired, period_s=schema.period_s
                    )

    def add_pieces(self, batch: DecodedBatch, pieces: Iterable[Piece]) -> None:
        """Add what a summary tells of a batch; a piece belongs into the step that it begins in."""
        for piece in pieces:
            for channel, each in zip(batch.schema.channels, piece.channels, strict=True):
                if each is not None:
                    low, high, last = (physical(channel, value) for value in (each.low, each.high, each.last))
                    self.at(channel.name, channel.unit, piece.first).add_piece(
                        each.count,
                        each.total / channel.scale,
                        low,
                        high,
                        last,
                        piece.last,
                        is_repaired=batch.is_repaired,
                        period_s=batch.schema.period_s,
                    )


def roll_up(batches: Iterable[tuple[str, DecodedBatch]]) -> list[Rollup]:
    """Return the hourly and daily rollups of decoded batches, each given with its truck."""
    found: dict[tuple[str, int], Steps] = {}
    for truck, each in batches:
        for step_ms in (HOUR_MS, DAY_MS):
            steps = found.setdefault((truck, step_ms), Steps(step_ms))
            steps.add(each)
            if each.summary is not None:
                for _, pieces in each.summary.batches:
                    steps.add_pieces(each, pieces)
    return [
        Rollup(
            truck=truck,
            channel=name,
            unit=unit,
            step_ms=step_ms,
            start_ms=start,
            count=step.count,
            minimum=step.low,
            maximum=step.high,
            sum=step.total,
            last=step.last,
            last_ms=step.last_ms,
            repaired=step.repaired,
            period_s=step.period_s,
        )
        for (truck, step_ms), steps in found.items()
        for (name, unit), starts in steps.found.items()
        for start, step in starts.items()
    ]
