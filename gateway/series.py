"""What a truck measured, decoded, between those who read it from the store and those who write it out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """One channel's values in a period, oldest first. `t_ms` is the row's time, or the start of its step.

    `v` are physical values in `unit`: the readings themselves, or means over a step. `low`, `high`, `last` and `count`
    are only there for steps, each as long as `v`. `repaired` (as long as `v`, or empty if it would hold zeros only)
    counts the values whose clock was not set when they were taken. `gaps_ms` are the spans without a value.
    """

    name: str
    unit: str
    t_ms: Sequence[int]
    v: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    last: Sequence[float] = ()
    count: Sequence[int] = ()
    repaired: Sequence[int] = ()
    gaps_ms: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export: a channel's readings or means (`figure` ""), or the min, max, last or count of steps."""

    name: str
    unit: str
    figure: str = ""

    @property
    def full_name(self) -> str:
        """Return the name without a unit: `bat_v`, `bat_v.min`."""
        return f"{self.name}.{self.figure}" if self.figure else self.name

    @property
    def label(self) -> str:
        """Return the column's name in a file: `bat_v [V]`, `bat_v.min [V]`, `bat_v.count`."""
        return f"{self.full_name} [{self.unit}]" if self.unit and self.figure != "count" else self.full_name


@dataclass(frozen=True, slots=True)
class TableRow:
    """One time (or start of a step) and a cell for each column; `repaired` as in `Series`, over all cells.

    Among steps, a row without any value stands where a gap begins.
    """

    time_ms: int
    values: tuple[float | None, ...]
    repaired: int


@dataclass(frozen=True, slots=True)
class Table:
    """A whole period: the columns, known beforehand, and pages of rows in the order of time."""

    columns: Sequence[Column]
    pages: AsyncIterator[list[TableRow]]


@dataclass(frozen=True, slots=True)
class SamplesPage:
    """Series of one truck and, when there is more, the time (Unix ms) from which to ask next."""

    series: Sequence[Series]
    next_ms: int | None
