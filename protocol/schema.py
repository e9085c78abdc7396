"""Schema: the immutable, registered description of a batch's channels, and its one encoding.

A schema is deterministic CBOR (RFC 8949 section 4.2.1); its SHA-256 goes into the external_aad of each batch
(RFC 9052 section 4.3), so a signature fixes the decoded values at no cost on the wire. Names and units are SenML's
(RFC 8428). What the codec learnt from recorded data (weights, typical sizes, priors) is part of the schema
for the same reason: both sides must predict alike for ever. Deliberately absent: numbers (a truck's registry gives
them) and anything that changes after registration.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Final

from protocol import cbor
from protocol.errors import LocalError, MalformedError

CHANNELS_MAX: Final = 64
SCHEMA_BYTES_MAX: Final = 15 * 1024  # a schema goes up as one parcel
NAME_CHARS_MAX: Final = 64
UNIT_CHARS_MAX: Final = 16
SCALE_MAX: Final = 10**9
PERIOD_S_MAX: Final = 31 * 86_400
WEIGHTS_MAX: Final = 16
PRIOR_BYTES_MAX: Final = 1024
VALUE_MIN: Final = -(1 << 63)
VALUE_MAX: Final = (1 << 63) - 1
TREND_MAX: Final = 3
ACTIVITY_WEIGHTS: Final = 5
# Weights are integers in steps of 1/4096; beyond 2**24 they are no physics.
WEIGHT_SHIFT: Final = 12
WEIGHT_MAX: Final = 1 << 24
# RFC 8428 section 4.5.1: the characters of a SenML name, and that it starts with a letter or digit.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")


class Codec(IntEnum):
    """How a schema's batches are encoded; each number stays decodable for ever."""

    CBOR_ROWS = 0
    DELTA_ZSTD = 1
    CONTEXT = 2
    SUMMARY = 3  # of batches of another schema, by the hour (`protocol.summary`)
    CARRIED = 4  # as CONTEXT; a batch may go on from what another one had learnt (`protocol.batch`)


class SchemaError(LocalError):
    """A schema that breaks a limit; the message says which and where."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One column of a batch. A physical value is integer / `scale` in `unit`.

    Prediction: the previous value, plus `weights` (index of a channel coded earlier, weight / 4096) times that
    channel's change in the same row, plus `history` (index of another channel, weight / 4096) times its change one row
    ago, plus `trend` (weights / 4096) times its own changes one, two and three rows ago, plus `pull` / 4096 times the
    distance to `nominal`. A batch's first value is predicted by `nominal` and lies about `spread` away.

    Expected error: `activity` is a constant in 1/256 of a step, then weights / 256 of the last absolute error, of its
    fast and its slow average, and of the absolute predicted change; `neighbours` are (index of a channel coded earlier,
    weight / 4096) times that channel's absolute error in the same row. A batch begins with an error of `typical`.
    `prior` holds learnt chances (see `residuals.read_prior`).
    """

    name: str
    unit: str = ""
    scale: int = 1
    nominal: int = 0
    spread: int = 100
    typical: int = 1
    weights: tuple[tuple[int, int], ...] = ()
    history: tuple[tuple[int, int], ...] = ()
    trend: tuple[int, ...] = ()
    pull: int = 0
    activity: tuple[int, ...] = (16, 64, 64, 128, 32)
    neighbours: tuple[tuple[int, int], ...] = ()
    prior: bytes = b""


@dataclass(frozen=True)
class Schema:
    """Channels, the period between rows in seconds, ticks of the time column a second, and the codec.

    `order` is the order in which a row's channels are coded (empty: as listed): what is finely resolved goes first and
    predicts what is coarse, which saves more than any other setting where channels obey a law together.
    """

    channels: tuple[Channel, ...]
    period_s: int = 60
    codec: Codec = Codec.CONTEXT
    ticks_per_s: int = 1
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no peer may send and no batch could be encoded with."""
        _require(1 <= len(self.channels) <= CHANNELS_MAX, f"a schema has 1 to {CHANNELS_MAX} channels")
        _require(1 <= self.period_s <= PERIOD_S_MAX, f"the period is 1 to {PERIOD_S_MAX} s")
        _require(self.ticks_per_s in (1, 1000), "time counts seconds or milliseconds")
        count = len(self.channels)
        _require(not self.order or sorted(self.order) == list(range(count)), "the order names each channel once")
        _require(len({channel.name for channel in self.channels}) == len(self.channels), "channel names differ")
        coded: set[int] = set()
        for index in self.coding_order:
            _check_channel(self.channels[index], coded, count)
            coded.add(index)

    @cached_property
    def encoded(self) -> bytes:
        """Return the deterministic CBOR that is registered, signed and digested."""
        data = cbor.encode(
            [
                int(self.codec),
                self.period_s,
                self.ticks_per_s,
                list(self.order),
                [
                    [
                        *(c.name, c.unit, c.scale, c.nominal, c.spread, c.typical),
                        *(_flat(c.weights), _flat(c.history), list(c.trend), c.pull),
                        *(list(c.activity), _flat(c.neighbours), c.prior),
                    ]
                    for c in self.channels
                ],
            ]
        )
        _require(len(data) <= SCHEMA_BYTES_MAX, f"a schema has at most {SCHEMA_BYTES_MAX} bytes, this one {len(data)}")
        return data

    @cached_property
    def digest(self) -> bytes:
        """Return the SHA-256 of `encoded`."""
        return hashlib.sha256(self.encoded).digest()

    @property
    def coding_order(self) -> tuple[int, ...]:
        """Return channel indices in the order of coding."""
        return self.order or tuple(range(len(self.channels)))

    @property
    def period_ticks(self) -> int:
        """Return the expected step of the time column."""
        return self.period_s * self.ticks_per_s


def decode_schema(data: bytes) -> Schema:
    """Return the schema that `data` encodes; raise `MalformedError` for what `Schema.encoded` would not write."""
    value = cbor.decode(data, bytes_max=SCHEMA_BYTES_MAX)
    try:
        codec, period_s, ticks_per_s, order, channels = _list(value, 5)
        if not isinstance(channels, list) or not isinstance(order, list) or len(channels) > CHANNELS_MAX:
            raise MalformedError(f"a schema has a list of at most {CHANNELS_MAX} channels")
        return Schema(
            channels=tuple(_channel(item) for item in channels),
            period_s=_integer(period_s),
            codec=Codec(_integer(codec)),
            ticks_per_s=_integer(ticks_per_s),
            order=tuple(_integer(item) for item in order),
        )
    except (SchemaError, ValueError) as error:  # a limit, or an unknown codec number
        raise MalformedError(f"not a schema: {error}") from error


def _channel(item: Any) -> Channel:
    name, unit, scale, nominal, spread, typical, *fitted = _list(item, 13)
    weights, history, trend, pull, activity, neighbours, prior = fitted
    return Channel(
        name=_text(name),
        unit=_text(unit),
        scale=_integer(scale),
        nominal=_integer(nominal),
        spread=_integer(spread),
        typical=_integer(typical),
        weights=_pairs(weights),
        history=_pairs(history),
        trend=_integers(trend),
        pull=_integer(pull),
        activity=_integers(activity),
        neighbours=_pairs(neighbours),
        prior=_bytes(prior),
    )


def _check_channel(channel: Channel, coded: set[int], count: int) -> None:
    name = channel.name
    _require(len(name) <= NAME_CHARS_MAX and _NAME.fullmatch(name) is not None, f"{name[:80]!r} is no SenML name")
    _require(len(channel.unit) <= UNIT_CHARS_MAX, f"{name}: the unit is too long")
    _require(1 <= channel.scale <= SCALE_MAX, f"{name}: the scale is 1 to {SCALE_MAX}")
    _require(VALUE_MIN <= channel.nominal <= VALUE_MAX, f"{name}: the nominal has more than 64 bits")
    _require(0 <= channel.typical <= VALUE_MAX, f"{name}: the typical error has more than 64 bits or is negative")
    _require(0 <= channel.spread <= VALUE_MAX, f"{name}: the spread has more than 64 bits or is negative")
    _require(len(channel.trend) <= TREND_MAX, f"{name}: a trend has at most {TREND_MAX} weights")
    _require(len(channel.activity) == ACTIVITY_WEIGHTS, f"{name}: an activity has {ACTIVITY_WEIGHTS} numbers")
    positive = (*channel.activity, *(weight for _, weight in channel.neighbours))
    _require(all(0 <= weight <= WEIGHT_MAX for weight in positive), f"{name}: an activity is out of bounds")
    signed = (*channel.trend, channel.pull)
    _require(all(-WEIGHT_MAX <= weight <= WEIGHT_MAX for weight in signed), f"{name}: a weight is out of bounds")
    _require(len(channel.prior) <= PRIOR_BYTES_MAX, f"{name}: the prior is too long")
    for index, _ in (*channel.weights, *channel.neighbours):
        _require(index in coded, f"{name}: a weight names a channel not coded before it")
    _require(all(0 <= index < count for index, _ in channel.history), f"{name}: a history names no channel")
    for pairs in (channel.weights, channel.history, channel.neighbours):
        _require(len(pairs) <= WEIGHTS_MAX, f"{name}: more than {WEIGHTS_MAX} weights")
        _require(all(-WEIGHT_MAX <= weight <= WEIGHT_MAX for _, weight in pairs), f"{name}: a weight is out of bounds")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SchemaError(message)


def _flat(pairs: tuple[tuple[int, int], ...]) -> list[int]:
    return [number for pair in pairs for number in pair]


def _pairs(value: Any) -> tuple[tuple[int, int], ...]:
    numbers = _integers(value)
    if len(numbers) % 2:
        raise MalformedError("weights are a list of pairs")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _integers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 2 * WEIGHTS_MAX:
        raise MalformedError("weights are a short list")
    return tuple(_integer(item) for item in value)


def _list(value: Any, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise MalformedError(f"a schema's list of {length} items is missing")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError("a schema's number is not an integer")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise MalformedError("a schema's text is not a string")
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise MalformedError("a schema's prior is not a byte string")
    return value
