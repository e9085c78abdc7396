"""Summaries say exactly what the rows said, by the hour, in few bytes, and believe nothing."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import batch, cbor
from protocol.errors import LocalError, MalformedError
from protocol.rows import Row
from protocol.schema import VALUE_MAX, VALUE_MIN, Channel, Codec, Schema, decode_schema
from protocol.summary import (
    CHANNEL_PIECES_MAX,
    PIECES_MAX,
    SUMMARISED_MAX,
    ChannelPiece,
    Piece,
    Summary,
    decode_summary,
    encode_summary,
    summarise,
    summary_schema,
)

DETAIL = Schema((Channel("bat_v", "V", 100, 2600, 5), Channel("pv_w", "W", 1, 0, 50)), period_s=60)
SCHEMA = summary_schema(DETAIL)
HOUR = 1_794_960_000  # a whole one

values = st.none() | st.integers(VALUE_MIN >> 14, VALUE_MAX >> 14)
rows_of_two = st.lists(st.tuples(st.integers(HOUR, HOUR + 20_000), st.tuples(values, values)), min_size=1, max_size=12)


def walk(count: int, *, start: int = HOUR) -> list[Row]:
    chance = random.Random(7)
    volts, watts = 2600, 300
    rows: list[Row] = []
    for number in range(count):
        volts += chance.randint(-3, 3)
        watts = max(0, watts + chance.randint(-20, 20))
        rows.append((start + 60 * number, (volts, watts)))
    return rows


@settings(max_examples=40)
@given(st.lists(rows_of_two, min_size=1, max_size=4), st.none() | st.integers(0, (1 << 64) - 1))
def test_what_is_encoded_is_decoded(batches: list[list[Row]], epoch: int | None) -> None:
    summary = Summary(tuple((7 * at + 1, summarise(DETAIL, rows)) for at, rows in enumerate(batches)), epoch)
    assert decode_summary(SCHEMA, encode_summary(SCHEMA, summary)) == summary


@given(rows_of_two)
def test_pieces_hold_count_extremes_sum_and_last_of_each_hour(rows: list[Row]) -> None:
    for piece in summarise(DETAIL, rows):
        inside = sorted((row for row in rows if row[0] // 3600 == piece.first // 3600), key=lambda row: row[0])
        assert (piece.first, piece.last, piece.rows) == (inside[0][0], inside[-1][0], len(inside))
        for index, each in enumerate(piece.channels):
            seen = [value for _, row in inside if (value := row[index]) is not None]
            told = ChannelPiece(len(seen), min(seen), max(seen), sum(seen), seen[-1]) if seen else None
            assert each == told


def test_hours_begin_where_the_offset_says() -> None:
    rows = walk(60)
    assert [piece.rows for piece in summarise(DETAIL, rows)] == [60]
    assert [piece.rows for piece in summarise(DETAIL, rows, offset_ticks=1800)] == [30, 30]


def test_a_summary_is_a_fraction_of_its_detail() -> None:
    rows = walk(480)
    detail = len(batch.encode(DETAIL, rows))
    assert len(encode_summary(SCHEMA, Summary(((1, summarise(DETAIL, rows)),)))) < detail / 5


def test_the_schema_of_summaries_names_the_same_channels_and_learns_nothing() -> None:
    learnt = Schema((replace(DETAIL.channels[0], prior=b"\1\2\3"), replace(DETAIL.channels[1], weights=((0, 9),))))
    derived = decode_schema(summary_schema(learnt).encoded)
    assert derived.codec is Codec.SUMMARY
    assert [(c.name, c.unit, c.scale) for c in derived.channels] == [("bat_v", "V", 100), ("pv_w", "W", 1)]
    assert (derived.period_s, len(derived.encoded) < len(learnt.encoded)) == (60, True)


def test_rows_are_no_summary_and_a_summary_has_no_rows() -> None:
    with pytest.raises(LocalError):
        batch.encode(SCHEMA, walk(1))
    with pytest.raises(MalformedError):
        batch.decode(SCHEMA, b"\x01\x02")
    with pytest.raises(LocalError):
        encode_summary(DETAIL, Summary(((1, summarise(DETAIL, walk(1))),)))


def test_few_bytes_do_not_decode_to_more_numbers_than_are_allowed() -> None:
    wide = summary_schema(Schema(tuple(Channel(f"c{at}") for at in range(64))))
    for count in (CHANNEL_PIECES_MAX // 64 + 1, PIECES_MAX):
        with pytest.raises(MalformedError, match="1 to 64 pieces"):
            decode_summary(wide, cbor.encode([None, [1, count], b""]))
    pieces = (Piece(HOUR, HOUR, 1, (None,) * 64),) * 65
    with pytest.raises(LocalError, match="64 pieces"):
        encode_summary(wide, Summary(((1, pieces),)))


def test_sums_of_more_than_64_bits_and_too_many_batches_are_refused_before_they_are_sent() -> None:
    huge: list[Row] = [(HOUR + at, (VALUE_MAX, 0)) for at in range(2)]
    with pytest.raises(LocalError, match="64 bits"):
        encode_summary(SCHEMA, Summary(((1, summarise(DETAIL, huge)),)))
    pieces = summarise(DETAIL, walk(1))
    with pytest.raises(LocalError):
        encode_summary(SCHEMA, Summary(tuple((at + 1, pieces) for at in range(SUMMARISED_MAX + 1))))


@pytest.mark.parametrize(
    "value",
    [
        {}, [], [None, [1, 1]], [None, [], b""], [None, [1], b""], [None, [0, 1], b""], [None, [1, 0], b""],
        [None, [2, 1, 1, 1], b""], [None, [1, 1, 1, 1], b""], [None, [1, -1, 2, 5], b""], [None, [1, 5000], b""],
        ["x", [1, 1], b""], [-1, [1, 1], b""], [None, [1, 1], "x"], [None, [1, True], b""],
    ],
)  # fmt: skip
def test_another_form_is_malformed(value: object) -> None:
    with pytest.raises(MalformedError):
        decode_summary(SCHEMA, cbor.encode(value))


@settings(max_examples=60)
@given(st.binary(max_size=60), st.integers(1, 1024))
def test_any_bytes_decode_to_sound_pieces_or_are_malformed(coded: bytes, count: int) -> None:
    try:
        summary = decode_summary(SCHEMA, cbor.encode([None, [1, count], coded]))
    except MalformedError:
        return
    for piece in summary.batches[0][1]:
        assert 0 <= piece.last - piece.first < 3600
        for each in piece.channels:
            if each is not None:
                assert 1 <= each.count <= piece.rows
                assert each.low <= each.last <= each.high
                assert each.count * each.low <= each.total <= each.count * each.high


def test_a_bit_that_flips_or_a_byte_that_is_cut_never_passes_silently_as_the_same() -> None:
    summary = Summary(((3, summarise(DETAIL, walk(200))),))
    body = encode_summary(SCHEMA, summary)
    for at in range(0, 8 * len(body), 5):
        damaged = bytearray(body)
        damaged[at // 8] ^= 1 << at % 8
        try:
            assert decode_summary(SCHEMA, bytes(damaged)) != summary
        except MalformedError:
            continue
    with pytest.raises(MalformedError):
        decode_summary(SCHEMA, body[:-1])


def test_a_time_beyond_bounds_is_malformed() -> None:
    pieces = tuple(Piece((1 << 53) - 100 + 3600 * at, (1 << 53) - 100 + 3600 * at, 1, (None, None)) for at in range(2))
    with pytest.raises(MalformedError):
        encode_summary(SCHEMA, Summary(((1, pieces),)))
