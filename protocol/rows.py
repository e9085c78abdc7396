"""Rows to residuals: prediction, missing values and times; drives a coder in either direction.

Each present value is predicted by the channel's previous value, plus the schema's integer-weighted sum of the changes
of channels coded earlier in the same row (`weights`) and of any channel one row ago (`history`); a time by the previous
time plus the period. The first row is predicted by the nominals, or by a base row that the gateway acknowledged.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from protocol.context import ContextModel
from protocol.errors import LocalError, MalformedError
from protocol.rangecoder import PROBABILITY_ONE, Coder
from protocol.schema import VALUE_MAX, VALUE_MIN, WEIGHT_SHIFT, Channel, Schema

Row: TypeAlias = tuple[int, tuple[int | None, ...]]

TIME_MIN: Final = -(1 << 53)
TIME_MAX: Final = 1 << 53
# The first time is written as periods since 2026-01-01 UTC, so that it takes about three bytes.
_EPOCH_S: Final = 1_767_225_600
_LENGTH_BITS: Final = 6
_HALF_WEIGHT: Final = 1 << WEIGHT_SHIFT >> 1
_RARE: Final = PROBABILITY_ONE >> 8


def check_row(schema: Schema, row: Row) -> None:
    """Raise `LocalError` if `row` does not fit `schema`."""
    time, values = row
    if not TIME_MIN <= time <= TIME_MAX:
        raise LocalError(f"a row's time {time} is out of bounds")
    if len(values) != len(schema.channels):
        raise LocalError(f"a row has {len(values)} values where its schema has {len(schema.channels)} channels")
    for channel, value in zip(schema.channels, values, strict=True):
        if value is not None and not VALUE_MIN <= value <= VALUE_MAX:
            raise LocalError(f"{channel.name}: {value} has more than 64 bits")


class RowModel:
    """Everything a batch has learnt so far; `code` codes the next row."""

    __slots__ = ("_absent", "_changes", "_last", "_models", "_order", "_schema", "_sparse", "_time", "_time_model")

    def __init__(self, schema: Schema, base: Row | None = None) -> None:
        self._schema = schema
        self._order = [(index, schema.channels[index]) for index in schema.coding_order]
        self._models = [ContextModel(channel.typical) for channel in schema.channels]
        self._time_model = ContextModel(0)
        self._last = [channel.nominal for channel in schema.channels]
        self._changes = [0] * len(schema.channels)
        self._time: int | None = None
        self._sparse = _Flag()
        self._absent = [_Flag() for _ in schema.channels]
        if base is not None:
            check_row(schema, base)
            self._time = base[0]
            self._last = [last if value is None else value for last, value in zip(self._last, base[1], strict=True)]

    def code(self, coder: Coder, row: Row) -> Row:
        """Code one row (see `Coder`: a decoder ignores what it is given, but its length must fit)."""
        time, values = row
        time = self._code_time(coder, time)
        sparse = self._sparse.code(coder, None in values)
        last, changes, models = self._last, self._changes, self._models
        row_changes = [0] * len(last)
        decoded: list[int | None] = [None] * len(last)
        for index, channel in self._order:
            value = values[index]
            if sparse and self._absent[index].code(coder, value is None):
                continue
            before = expected = last[index]
            if channel.weights or channel.history:
                expected += _forecast(channel, row_changes, changes)
            known = expected + models[index].code(coder, (value or 0) - expected)
            if not VALUE_MIN <= known <= VALUE_MAX:
                raise MalformedError("a decoded value has more than 64 bits")
            row_changes[index] = known - before
            last[index] = known
            decoded[index] = known
        if sparse and None not in decoded:
            raise MalformedError("a row is flagged for missing values and misses none")
        self._changes = row_changes
        return time, tuple(decoded)

    def _code_time(self, coder: Coder, time: int) -> int:
        if self._time is None:
            time = self._code_first_time(coder, time)
        else:
            expected = self._time + self._schema.period_ticks
            time = expected + self._time_model.code(coder, time - expected)
        if not TIME_MIN <= time <= TIME_MAX:
            raise MalformedError("a decoded time is out of bounds")
        self._time = time
        return time

    def _code_first_time(self, coder: Coder, time: int) -> int:
        period = self._schema.period_ticks
        periods, phase = divmod(time - _EPOCH_S * self._schema.ticks_per_s, period)
        size = abs(periods)
        length = coder.raw(size.bit_length(), _LENGTH_BITS)
        if length:
            size = 1 << length - 1 | coder.raw(size & (1 << length - 1) - 1, length - 1)
            periods = -size if coder.bit(periods < 0, _RARE) else size
        else:
            periods = 0
        if coder.bit(phase != 0, PROBABILITY_ONE >> 1):
            phase = coder.raw(phase, period.bit_length())
            if not 0 < phase < period:
                raise MalformedError("a decoded time has an impossible phase")
        else:
            phase = 0
        return _EPOCH_S * self._schema.ticks_per_s + periods * period + phase


def _forecast(channel: Channel, row_changes: list[int], changes: list[int]) -> int:
    total = _HALF_WEIGHT
    for index, weight in channel.weights:
        total += row_changes[index] * weight
    for index, weight in channel.history:
        total += changes[index] * weight
    return total >> WEIGHT_SHIFT


class _Flag:
    """One adaptive bit that starts out unlikely."""

    __slots__ = ("chance",)

    def __init__(self) -> None:
        self.chance = _RARE

    def code(self, coder: Coder, bit: bool) -> int:
        coded = coder.bit(bit, self.chance)
        self.chance += (PROBABILITY_ONE - _RARE - self.chance >> 3) if coded else (_RARE - self.chance >> 5)
        return coded
