"""Summaries: what is told of batches by the hour, when there is no money or no room for their detail.

A summary is the body of a batch whose schema is derived (`summary_schema`) from that of the detail, with the codec
SUMMARY; a gateway that does not know the codec keeps such batches parked, and asks for their schema. It names the
batches that it stands for, each with its pieces: one for each hour that the batch has rows of, with the count, the
extremes, the sum and the last value of every channel. All of it is exact, in the detail's own scaled integers, so that
sums of pieces are those of the rows: whoever has rolled up a summary has nothing to add when the detail comes.

Wire: `Summary` of fleet.cddl; the pieces are one range-coded stream in the order of their batches. Each number is coded
by what it most likely is: times by the hour, low and high by their distance to the last value, a sum by its distance to
the middle of the extremes. Deliberately absent: anything about money or room (`edge.ladder`, `store.folding`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from protocol import cbor
from protocol.errors import LocalError, MalformedError
from protocol.rangecoder import Coder, RangeDecoder, RangeEncoder
from protocol.residuals import ACTIVITY_ONE, ResidualModel
from protocol.rows import EPOCH_S, TIME_MAX, TIME_MIN, Row, code_first_time
from protocol.schema import VALUE_MAX, VALUE_MIN, Channel, Codec, Schema
from protocol.wire import Epoch, convert
from protocol.wire import Sequence as SequenceNumber

HOUR_S: Final = 3600
FOLDED: Final = "folded"  # the reason of a tombstone whose batches a summary stands for
SUMMARISED_MAX: Final = 256  # batches that one summary stands for
PIECES_MAX: Final = 1024
CHANNEL_PIECES_MAX: Final = 4096  # pieces times channels: a few bytes may decode to any number, so that is bounded
_ROWS_MAX: Final = 4096
_NUMBER_MAX: Final = 1 << 65  # of what a residual model can code
_TYPICAL: Final = 8 * ACTIVITY_ONE


@dataclass(frozen=True, slots=True)
class ChannelPiece:
    """What one channel did in one piece: how many values, their extremes and sum, and the last (scaled integers)."""

    count: int
    low: int
    high: int
    total: int
    last: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one batch in one hour: the earliest and the latest time in ticks, their number, and each channel.

    A channel without any value is None.
    """

    first: int
    last: int
    rows: int
    channels: tuple[ChannelPiece | None, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Sequences of batches with their pieces, ascending. `epoch` None: that of the parcel that carries it."""

    batches: tuple[tuple[int, tuple[Piece, ...]], ...]
    epoch: int | None = None


def summary_schema(schema: Schema) -> Schema:
    """Return the schema of summaries of batches of `schema`: the same channels and period, nothing learnt."""
    channels = tuple(Channel(each.name, each.unit, each.scale) for each in schema.channels)
    return Schema(channels, period_s=schema.period_s, codec=Codec.SUMMARY, ticks_per_s=schema.ticks_per_s)


def summarise(schema: Schema, rows: Iterable[Row], *, offset_ticks: int = 0) -> tuple[Piece, ...]:
    """Return the pieces of a batch's rows; hours begin where time plus `offset_ticks` is a multiple of one."""
    hour = HOUR_S * schema.ticks_per_s
    hours: dict[int, list[Row]] = {}
    for row in sorted(rows, key=_time_of):
        hours.setdefault((row[0] + offset_ticks) // hour, []).append(row)
    return tuple(_piece(hours[at]) for at in sorted(hours))


def encode_summary(schema: Schema, summary: Summary) -> bytes:
    """Return the body of a summary of `schema`; raise `LocalError` for one beyond a limit."""
    coder, model = RangeEncoder(), _SummaryModel(schema)
    pieces = [piece for _, each in summary.batches for piece in each]
    if not 1 <= len(summary.batches) <= SUMMARISED_MAX or len(pieces) > _pieces_max(schema):
        raise LocalError(f"a summary stands for 1 to 256 batches, and has at most {_pieces_max(schema)} pieces")
    for piece in pieces:
        if any(each is not None and abs(each.total) > VALUE_MAX for each in piece.channels):
            raise LocalError("a sum has more than 64 bits")
        model.code(coder, piece)
    numbers = [number for sequence, each in summary.batches for number in (sequence, len(each))]
    return cbor.encode([summary.epoch, numbers, coder.finish()])


def decode_summary(schema: Schema, body: bytes) -> Summary:
    """Return what `encode_summary` wrote for this schema; raise `MalformedError` for what it would not write."""
    value = cbor.decode(body)
    if not isinstance(value, list) or len(value) < 3 or not isinstance(value[1], list):
        raise MalformedError("a summary is an array of epoch, batches and pieces")
    epoch = convert(value[0], Epoch) if value[0] is not None else None
    numbers = value[1]
    if not 2 <= len(numbers) <= 2 * SUMMARISED_MAX or len(numbers) % 2:
        raise MalformedError("a summary names 1 to 256 batches, each with its number of pieces")
    sequences = [convert(each, SequenceNumber) for each in numbers[::2]]
    counts = [convert(each, int) for each in numbers[1::2]]
    if any(later <= each for each, later in itertools.pairwise(sequences)):
        raise MalformedError("the batches of a summary ascend")
    if min(counts) < 0 or not 0 < sum(counts) <= _pieces_max(schema):
        raise MalformedError(f"a summary of these channels has 1 to {_pieces_max(schema)} pieces")
    decoder, model = RangeDecoder(convert(value[2], bytes)), _SummaryModel(schema)
    blank = Piece(0, 0, 1, (None,) * len(schema.channels))
    batches = tuple(
        (sequence, tuple(model.code(decoder, blank) for _ in range(count)))
        for sequence, count in zip(sequences, counts, strict=True)
    )
    decoder.finish()
    return Summary(batches, epoch)


def _pieces_max(schema: Schema) -> int:
    return min(PIECES_MAX, CHANNEL_PIECES_MAX // len(schema.channels))


def _time_of(row: Row) -> int:
    return row[0]


def _piece(rows: Sequence[Row]) -> Piece:
    columns = zip(*(values for _, values in rows), strict=True)
    return Piece(rows[0][0], rows[-1][0], len(rows), tuple(_channel_piece(column) for column in columns))


def _channel_piece(column: Iterable[int | None]) -> ChannelPiece | None:
    values = [value for value in column if value is not None]
    return ChannelPiece(len(values), min(values), max(values), sum(values), values[-1]) if values else None


class _Number:
    """One kind of number, expected about as large as it was lately."""

    __slots__ = ("_mean", "_model")

    def __init__(self, typical: int = _TYPICAL) -> None:
        self._model = ResidualModel()
        self._mean = typical

    def code(self, coder: Coder, value: int) -> int:
        value = self._model.code(coder, value, self._mean)
        if not -_NUMBER_MAX <= value <= _NUMBER_MAX:
            raise MalformedError("a number of a summary is out of bounds")
        self._mean += ((abs(value) << 8) - self._mean) >> 2
        return value


class _SummaryModel:
    """Codes pieces in either direction (see `rangecoder.Coder`)."""

    __slots__ = ("_channels", "_first", "_gap", "_hour", "_rows", "_rows_before", "_span", "_span_before", "_zero")

    def __init__(self, schema: Schema) -> None:
        if schema.codec is not Codec.SUMMARY:
            raise LocalError("a summary has a schema of its own")
        self._hour = HOUR_S * schema.ticks_per_s
        self._zero = EPOCH_S * schema.ticks_per_s
        self._first: int | None = None
        self._rows_before = self._span_before = 0
        self._gap, self._span, self._rows = _Number(), _Number(), _Number()
        self._channels = [_ChannelModel() for _ in schema.channels]

    def code(self, coder: Coder, piece: Piece) -> Piece:
        """Code one piece; a decoder ignores the values that it is given."""
        if self._first is None:
            first = code_first_time(coder, piece.first, self._hour, self._zero)
        else:
            # Most begin an hour after the one before; a batch's first begins where the last one ended, or soon after.
            expected = self._first + self._hour
            first = expected + self._gap.code(coder, piece.first - expected)
        span = self._span_before + self._span.code(coder, piece.last - piece.first - self._span_before)
        rows = self._rows_before + self._rows.code(coder, piece.rows - self._rows_before)
        if not TIME_MIN <= first <= TIME_MAX or not 0 <= span < self._hour or not 1 <= rows <= _ROWS_MAX:
            raise MalformedError("a piece's times or rows are out of bounds")
        self._first, self._span_before, self._rows_before = first, span, rows
        pairs = zip(self._channels, piece.channels, strict=True)
        return Piece(first, first + span, rows, tuple(model.code(coder, each, rows) for model, each in pairs))


class _ChannelModel:
    __slots__ = ("_above", "_absent", "_below", "_last", "_step", "_sum")

    def __init__(self) -> None:
        self._last = 0
        self._absent = _Number(typical=0)
        self._step, self._below, self._above, self._sum = _Number(), _Number(), _Number(), _Number()

    def code(self, coder: Coder, piece: ChannelPiece | None, rows: int) -> ChannelPiece | None:
        count = rows - self._absent.code(coder, rows - piece.count if piece is not None else rows)
        if count == 0:
            return None
        given = piece or ChannelPiece(0, 0, 0, 0, 0)
        last = self._last + self._step.code(coder, given.last - self._last)
        low = last - self._below.code(coder, given.last - given.low)
        high = last + self._above.code(coder, given.high - given.last)
        middle = count * (low + high) >> 1
        total = middle + self._sum.code(coder, given.total - middle)
        sound = 1 <= count <= rows and VALUE_MIN <= low <= last <= high <= VALUE_MAX
        if not sound or not count * low <= total <= count * high:
            raise MalformedError("the numbers of a piece contradict each other")
        self._last = last
        return ChannelPiece(count, low, high, total, last)
