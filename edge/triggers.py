"""Triggers: a channel that crosses a limit, or changes, is told at once by an event, before its batch goes.

A limit has a side (`below` or `above`), a value at which it is over again (`clear`: the hysteresis), a precedence, and
a pause: a channel that flaps tells once in a pause how it stands, however often it crosses meanwhile. What was told
last is durable, in the transaction of the event itself, so a restart tells nothing twice and misses nothing. Every row
goes to the recorder as well: events add to telemetry, they take nothing out of it (a channel that stays as it is costs
almost nothing in a batch). Limits come from a `[[collector]]` table, or signed, from a configuration's `extra`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec
import structlog
from msgspec import Meta

from edge.log_limit import LogLimit
from edge.recorder import Recorder
from protocol.errors import DigitruckError, LocalError
from protocol.numbers import Precedence
from protocol.schema import Channel

log = structlog.get_logger("edge.triggers")

LIMITS_MAX: Final = 64
PREFIX: Final = "limit."  # of a key in a signed configuration's `extra`: limit.COLLECTOR.CHANNEL
_PAUSE_S: Final = 600
_CROSSED, _CLEAR = b"crossed", b"clear"

PrecedenceName = Literal["flash", "priority", "normal", "bulk"]


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One limit of a channel, in the channel's unit: crossed beyond it, over again from `clear` on.

    A channel is named in full or without its collector's name before the dot.
    """

    channel: str
    below: float | None = None
    above: float | None = None
    clear: float | None = None
    precedence: PrecedenceName = "priority"
    pause_s: Annotated[int, Meta(ge=0, le=86_400)] = _PAUSE_S

    def __post_init__(self) -> None:
        """Refuse what could never be over, or never be crossed."""
        if (self.below is None) == (self.above is None):
            raise ValueError(f"a limit of {self.channel} is either `below` or `above` a value")
        if not all(math.isfinite(value) for value in (self.at, self.over)):
            raise ValueError(f"a limit of {self.channel} is no number")
        if self.over < self.at if self.below is not None else self.over > self.at:
            raise ValueError(f"the limit of {self.channel} would be over before it is crossed: see `clear`")

    @property
    def at(self) -> float:
        """Return the value beyond which it is crossed."""
        return self.below if self.below is not None else self.above or 0.0

    @property
    def over(self) -> float:
        """Return the value from which on it is over."""
        return self.at if self.clear is None else self.clear


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What of a collector's rows is told at once: `limits`, and channels whose every change is, with a precedence."""

    limits: Annotated[tuple[Limit, ...], Meta(max_length=LIMITS_MAX)] = ()
    on_change: Annotated[dict[str, PrecedenceName], Meta(max_length=LIMITS_MAX)] = msgspec.field(default_factory=dict)


def signed_limits(extra: Mapping[str, int | bool | str]) -> dict[str, tuple[Limit, ...]]:
    """Return the limits that a signed configuration sets, by collector; raise `LocalError` for one that does not hold.

    The key is limit.COLLECTOR.CHANNEL, the value such as `below=24 clear=25 precedence=flash pause_s=600`. An empty
    one takes the local limits of that channel away.
    """
    found: dict[str, tuple[Limit, ...]] = {}
    for key, text in sorted(extra.items()):
        _, dot, rest = key.partition(PREFIX)
        collector, point, channel = rest.partition(".")
        if not key.startswith(PREFIX) or not (dot and point):
            continue
        try:
            words: dict[str, Any] = dict(word.split("=", 1) for word in str(text).split())
            limits = (msgspec.convert({"channel": channel, **words}, Limit, strict=False),) if words else ()
        except ValueError as error:  # a word without `=`, or a limit that does not hold
            raise LocalError(f"{key}: {error}") from error
        found[collector] = (*found.get(collector, ()), *limits)
        found.setdefault(f"{collector}.{channel}", ())  # says that it was named
    return found


def merged(told: Told, collector: str, signed: Mapping[str, tuple[Limit, ...]]) -> Told:
    """Return what holds: for a channel that is named in `signed`, that alone."""
    local = tuple(each for each in told.limits if f"{collector}.{each.channel}" not in signed)
    return Told(limits=(*local, *signed.get(collector, ())), on_change=told.on_change)


class Triggers:
    """Passes rows on to the recorder and looks at those that something is to be told of."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._watches: dict[str, tuple[_Watch, ...]] = {}
        self._limit = LogLimit()

    async def watch(self, name: str, channels: Sequence[Channel], told: Told) -> None:
        """Watch a collector's rows. A channel that it does not have is logged: telemetry never stops because of it."""
        index = {channel.name.removeprefix(f"{name}."): at for at, channel in enumerate(channels)}
        index |= {channel.name: at for at, channel in enumerate(channels)}
        for channel in (*(each.channel for each in told.limits), *told.on_change):
            if channel not in index:
                log.warning("trigger.unusable", collector=name, channel=channel, reason="the collector has no such one")
        watches: list[_Watch] = [
            _LimitWatch.of(name, at, channels[at], limit)
            for limit in told.limits
            if (at := index.get(limit.channel)) is not None
        ]
        for channel, precedence in told.on_change.items():
            if (at := index.get(channel)) is not None:
                mark = f"change.{name}.{channel}"
                watches.append(_Watch(at, channels[at], mark, Precedence[precedence.upper()], 0.0))
        for each in watches:
            each.told = await self._recorder.remembered(each.mark)
        self._watches[name] = tuple(watches)

    def watched(self, name: str) -> tuple[str, ...]:
        """Return what is watched of a collector's rows, as it is remembered."""
        return tuple(each.mark for each in self._watches.get(name, ()))

    async def on_row(self, name: str, monotonic_s: float, cells: tuple[int | None, ...]) -> None:
        """Take one row of a collector; what is to be told is durable when this returns, like the row itself."""
        await self._recorder.on_row(name, monotonic_s, cells)
        for watch in self._watches.get(name, ()):
            value = cells[watch.index]
            if value is None:
                continue
            try:
                await self._look(watch, value, monotonic_s)
            except DigitruckError as error:
                # Nothing was told, so the next row tries again.
                if (kept_back := self._limit.admit("trigger.failed", monotonic_s)) is not None:
                    log.warning("trigger.failed", watch=watch.mark, reason=str(error), kept_back=kept_back)

    async def _look(self, watch: _Watch, value: int, now_s: float) -> None:
        state = watch.state(value)
        if state == watch.told or now_s - watch.told_at < watch.pause_s:
            return
        happening = watch.happening(state)
        if happening:
            before = () if watch.told is None else watch.details_before(watch.told)
            values = (("channel", watch.channel.name), ("value", watch.text(value)), *watch.details, *before)
            await self._recorder.event(happening, watch.precedence, values, mark=(watch.mark, state))
            watch.told_at = now_s
        else:
            await self._recorder.remember(watch.mark, state)
        watch.told = state


@dataclass(slots=True)
class _Watch:
    """A channel of which every change is told; the first value ever is only noted."""

    index: int
    channel: Channel
    mark: str
    precedence: Precedence
    pause_s: float
    details: tuple[tuple[str, str], ...] = ()
    told: bytes | None = None
    told_at: float = field(default=-math.inf)

    def state(self, value: int) -> bytes:
        """Return how the channel stands with this value."""
        return str(value).encode()

    def happening(self, state: bytes) -> str:
        """Return the name of the event that tells of `state`, empty when there is nothing to tell."""
        return "" if self.told is None else "channel.changed"

    def details_before(self, told: bytes) -> tuple[tuple[str, str], ...]:
        """Return what an event says of the state that was told before."""
        return (("before", self.text(int(told))),)

    def text(self, value: int) -> str:
        """Return a value as a person reads it."""
        number = f"{Decimal(value) / Decimal(self.channel.scale):f}"
        return f"{number} {self.channel.unit}".rstrip()


@dataclass(slots=True)
class _LimitWatch(_Watch):
    """A limit with hysteresis; before the first crossing it counts as told that it is clear."""

    crossed_at: int = 0
    over_at: int = 0
    sign: int = 1  # of the side on which it is crossed
    current: bytes | None = None

    @classmethod
    def of(cls, name: str, index: int, channel: Channel, limit: Limit) -> _LimitWatch:
        """Return the watch of a limit; another limit of the channel is another mark."""
        side = "below" if limit.below is not None else "above"
        mark = f"limit.{name}.{channel.name}.{side}.{limit.at:g}.{limit.over:g}"
        watch = cls(index, channel, mark, Precedence[limit.precedence.upper()], float(limit.pause_s))
        watch.crossed_at, watch.over_at = round(limit.at * channel.scale), round(limit.over * channel.scale)
        watch.sign = -1 if side == "below" else 1
        watch.details = (("limit", f"{side} {limit.at:g}"),)
        return watch

    def state(self, value: int) -> bytes:
        """Return `crossed` or `clear`; between the two it is what it was."""
        if self.current is None:
            self.current = self.told or _CLEAR  # what it was before a restart
        if (value - self.crossed_at) * self.sign > 0:
            self.current = _CROSSED
        elif (value - self.over_at) * self.sign <= 0:
            self.current = _CLEAR
        return self.current

    def happening(self, state: bytes) -> str:
        """Return what crossing and clearing are called."""
        if state == _CROSSED:
            return "limit.crossed"
        return "limit.cleared" if self.told == _CROSSED else ""

    def details_before(self, told: bytes) -> tuple[tuple[str, str], ...]:
        """Return nothing: the name of the event says it."""
        return ()
