"""Rows to residuals: prediction, missing values and times; drives a coder in either direction.

How a value and its expected error are predicted from what was coded before is written at `schema.Channel`; a time is
predicted by the previous time plus the period. A row is a flag for missing values (and a mask of them if set), the
time's residual, and each present value's residual, in the schema's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Final, Protocol, TypeAlias

from protocol.errors import LocalError, MalformedError
from protocol.rangecoder import PROBABILITY_ONE, Coder
from protocol.residuals import CARRIED, CONTEXT, ResidualModel, code_afresh
from protocol.schema import VALUE_MAX, VALUE_MIN, WEIGHT_SHIFT, Channel, Codec, Schema

Row: TypeAlias = tuple[int, tuple[int | None, ...]]

TIME_MIN: Final = -(1 << 53)
TIME_MAX: Final = 1 << 53
# The first time is written as periods since 2026-01-01 UTC, so that it takes about three bytes.
EPOCH_S: Final = 1_767_225_600
_LENGTH_BITS: Final = 6
_HALF_WEIGHT: Final = 1 << WEIGHT_SHIFT >> 1
_RARE: Final = PROBABILITY_ONE >> 8
_ACTIVITY_SHIFT: Final = 8
FAST: Final = 90  # an average over about three rows, in 1/256
SLOW: Final = 26  # an average over about ten rows
_MEANS: Final = (225, 128, 90, 70, 55, 45, 37, 32, 29)
_WARM: Final = len(_MEANS)
_TIME_ACTIVITY: Final = 32  # times keep to the period; the echo of the last deviation says when they do not


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


class ResidualCoder(Protocol):
    """What a row model needs of a channel's residual model; fitting puts a counter in its place."""

    def code(self, coder: Coder, residual: int, activity: int) -> int:
        """Code one residual where `activity` / 256 is expected."""
        ...

    def copy(self) -> ResidualCoder:
        """Return one that has learnt the same."""
        ...


class RowModel:
    """Everything a batch has learnt so far; `code` codes the next row.

    With `base`, a batch goes on from what another one had learnt when it ended (`Codec.CARRIED`); the base stays as it
    is. Only the first time is written as without a base, so that it can be read alone.
    """

    __slots__ = (
        *("_absent", "_changes", "_order", "_period", "_sparse", "_states", "_time", "_time_model"),
        "_time_zero",
    )

    def __init__(
        self, schema: Schema, base: RowModel | None = None, *, models: Sequence[ResidualCoder] | None = None
    ) -> None:
        self._period = schema.period_ticks
        self._time_zero = EPOCH_S * schema.ticks_per_s
        self._time: int | None = None
        tuning = CARRIED if schema.codec is Codec.CARRIED else CONTEXT
        self._states: list[ChannelState]
        self._changes: list[int] = [0] * len(schema.channels) if base is None else base._changes.copy()
        self._time_model: ResidualModel = ResidualModel(tuning=tuning) if base is None else base._time_model.copy()
        self._sparse: _Flag = _Flag() if base is None else base._sparse.copy()
        self._absent: list[_Flag] = [_Flag() for _ in schema.channels] if base is None else _copies(base._absent)
        if base is None:
            models = models or [ResidualModel(channel.prior, tuning) for channel in schema.channels]
            self._states = [ChannelState(each, model) for each, model in zip(schema.channels, models, strict=True)]
        else:
            self._states = [state.copy() for state in base._states]
        self._order = [(index, self._states[index]) for index in schema.coding_order]

    def code(self, coder: Coder, row: Row) -> Row:
        """Code one row (see `Coder`: a decoder ignores what it is given, but its length must fit)."""
        time, values = row
        time = self._code_time(coder, time)
        sparse = self._sparse.code(coder, None in values)
        before, changes, sizes = self._changes, [0] * len(values), [0] * len(values)
        decoded: list[int | None] = [None] * len(values)
        for index, state in self._order:
            value = values[index]
            if sparse and self._absent[index].code(coder, value is None):
                continue
            decoded[index] = state.code(coder, value or 0, changes, before, sizes)
            changes[index] = state.change
            sizes[index] = state.size
        if sparse and None not in decoded:
            raise MalformedError("a row is flagged for missing values and misses none")
        self._changes = changes
        return time, tuple(decoded)

    def _code_time(self, coder: Coder, time: int) -> int:
        if self._time is None:
            time = code_first_time(coder, time, self._period, self._time_zero)
        else:
            expected = self._time + self._period
            time = expected + self._time_model.code(coder, time - expected, _TIME_ACTIVITY)
        if not TIME_MIN <= time <= TIME_MAX:
            raise MalformedError("a decoded time is out of bounds")
        self._time = time
        return time


def first_time(coder: Coder, schema: Schema) -> int:
    """Return the time of the first row of a body; it is coded first, so nothing else is decoded."""
    time = code_first_time(coder, 0, schema.period_ticks, EPOCH_S * schema.ticks_per_s)
    if not TIME_MIN <= time <= TIME_MAX:
        raise MalformedError("a decoded time is out of bounds")
    return time


def code_first_time(coder: Coder, time: int, period: int, zero: int) -> int:
    """Code a time as periods since `zero`, and what is left of one."""
    periods, phase = divmod(time - zero, period)
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
    return zero + periods * period + phase


class ChannelState:
    """What one channel remembers: its last value and changes, and how large its residuals were (`schema.Channel`)."""

    __slots__ = (
        *("_activity", "_channel", "_echo", "_fast", "_linear", "_recent", "_slow", "_warmth"),
        *("change", "fresh", "last", "model", "size"),
    )

    def __init__(self, channel: Channel, model: ResidualCoder) -> None:
        self._channel = channel
        self._linear = bool(channel.weights or channel.history or channel.trend or channel.pull)
        self._activity = channel.activity
        self._echo = self._fast = self._slow = channel.typical << _ACTIVITY_SHIFT
        self._warmth = 0
        self._recent = (0, 0, 0)  # own changes one, two and three rows ago
        self.model = model
        self.last = channel.nominal
        self.fresh = True  # no value yet: the next one is the channel's first
        self.change = 0  # the last change; a first value is none
        self.size = 0  # the last absolute residual

    def copy(self) -> ChannelState:
        """Return a state that remembers the same and goes on by itself."""
        other = copy(self)
        other.model = self.model.copy()
        return other

    def code(self, coder: Coder, value: int, changes: list[int], before: list[int], sizes: list[int]) -> int:
        """Code one present value; `changes` and `sizes` are this row's so far, `before` the changes one row ago."""
        last = self.last
        if self.fresh:
            self.fresh = False
            known = last + code_afresh(coder, value - last, self._channel.spread << _ACTIVITY_SHIFT)
        else:
            ahead = self.forecast(changes, before) if self._linear else 0
            # The expected absolute residual in 1/256 of a step.
            constant, echo, fast, slow, predicted = self._activity
            total = constant + (echo * self._echo + fast * self._fast + slow * self._slow >> _ACTIVITY_SHIFT)
            if ahead:
                total += predicted * abs(ahead)
            for index, weight in self._channel.neighbours:
                total += sizes[index] * weight >> WEIGHT_SHIFT - _ACTIVITY_SHIFT
            residual = self.model.code(coder, value - last - ahead, total)
            known = last + ahead + residual
            self.size = size = residual if residual >= 0 else -residual
            self._echo = now = size << _ACTIVITY_SHIFT
            warmth = self._warmth
            if warmth < _WARM:
                # The first averages are plain means that count what the schema expects as one sighting.
                self._warmth = warmth + 1
                self._fast += (now - self._fast) * max(_MEANS[warmth], FAST) >> _ACTIVITY_SHIFT
                self._slow += (now - self._slow) * _MEANS[warmth] >> _ACTIVITY_SHIFT
            else:
                self._fast += (now - self._fast) * FAST >> _ACTIVITY_SHIFT
                self._slow += (now - self._slow) * SLOW >> _ACTIVITY_SHIFT
            self.change = change = known - last
            self._recent = (change, self._recent[0], self._recent[1])
        if not VALUE_MIN <= known <= VALUE_MAX:
            raise MalformedError("a decoded value has more than 64 bits")
        self.last = known
        return known

    def forecast(self, changes: list[int], before: list[int]) -> int:
        """Return the change that the schema's weights predict."""
        channel = self._channel
        total = _HALF_WEIGHT
        if channel.pull:
            total += channel.pull * (channel.nominal - self.last)
        for index, weight in channel.weights:
            total += weight * changes[index]
        for index, weight in channel.history:
            total += weight * before[index]
        for weight, change in zip(channel.trend, self._recent, strict=False):
            total += weight * change
        return total >> WEIGHT_SHIFT


class _Flag:
    """One adaptive bit that starts out unlikely."""

    __slots__ = ("chance",)

    def __init__(self) -> None:
        self.chance = _RARE

    def copy(self) -> _Flag:
        other = _Flag()
        other.chance = self.chance
        return other

    def code(self, coder: Coder, bit: bool) -> int:
        coded = coder.bit(bit, self.chance)
        self.chance += (PROBABILITY_ONE - _RARE - self.chance >> 3) if coded else (_RARE - self.chance >> 5)
        return coded


def _copies(flags: list[_Flag]) -> list[_Flag]:
    return [flag.copy() for flag in flags]
