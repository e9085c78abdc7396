"""Every body gives its rows back, knows its size, and never trusts bytes from outside."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.batch import ROWS_MAX, BatchEncoder, decode, decode_on, encode, peek
from protocol.errors import LocalError, MalformedError
from protocol.rows import Row
from protocol.schema import VALUE_MAX, VALUE_MIN, Channel, Codec, Schema

CODECS = [codec for codec in Codec if codec is not Codec.SUMMARY]  # a summary is not made of rows
small = st.integers(-300, 300)
any_value = st.one_of(small, st.none(), st.integers(VALUE_MIN, VALUE_MAX), st.sampled_from([VALUE_MIN, VALUE_MAX, 0]))
any_time = st.one_of(st.integers(-(1 << 53), 1 << 53), st.integers(1_700_000_000, 1_900_000_000))


@st.composite
def schemas(draw: st.DrawFn, codec: Codec) -> Schema:
    width = draw(st.integers(1, 6))
    weight = st.integers(-4096, 4096)
    channels = []
    order = draw(st.permutations(range(width)))
    for index in range(width):
        earlier = order[: order.index(index)]
        channels.append(
            Channel(
                name=f"c{index}",
                nominal=draw(st.integers(-(10**9), 10**9)),
                typical=draw(st.sampled_from([0, 1, 7, 1000, 10**12])),
                weights=tuple((other, draw(weight)) for other in earlier if draw(st.booleans())),
                history=tuple((other, draw(weight)) for other in range(width) if draw(st.booleans())),
                spread=draw(st.sampled_from([0, 50, 10**9])),
                trend=tuple(draw(st.lists(weight, max_size=3))),
                pull=draw(weight),
                activity=tuple(draw(st.integers(0, 600)) for _ in range(5)),
                neighbours=tuple((other, draw(st.integers(0, 9000))) for other in earlier if draw(st.booleans())),
                prior=draw(st.binary(max_size=30)),
            )
        )
    return Schema(tuple(channels), period_s=draw(st.integers(1, 3600)), codec=codec, order=tuple(order))


@st.composite
def batches(draw: st.DrawFn, codec: Codec) -> tuple[Schema, list[Row]]:
    schema = draw(schemas(codec))
    row = st.tuples(any_time, st.tuples(*[any_value] * len(schema.channels)))
    return schema, draw(st.lists(row, max_size=12))


def drifting_rows(schema: Schema, count: int, seed: int = 1) -> list[Row]:
    source = random.Random(seed)
    values = [channel.nominal for channel in schema.channels]
    rows: list[Row] = []
    for at in range(count):
        values = [value + round(source.gauss(0, 3)) for value in values]
        rows.append((1_780_000_000 + 60 * at, tuple(values)))
    return rows


def plain_schema(width: int = 3, codec: Codec = Codec.CONTEXT) -> Schema:
    return Schema(tuple(Channel(f"c{index}", nominal=100, typical=3) for index in range(width)), codec=codec)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_rows_come_back(codec: Codec, data: st.DataObject) -> None:
    schema, rows = data.draw(batches(codec))
    body = encode(schema, rows)
    assert decode(schema, body) == rows
    if codec is Codec.CARRIED:
        base = decode_on(schema, body)[1]
        assert decode(schema, encode(schema, rows, base=base), base=base) == rows


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=80))
def test_hostile_bytes_are_malformed_or_rows(codec: Codec, body: bytes) -> None:
    schema = plain_schema(codec=codec)
    try:
        rows = decode(schema, body, rows_max=50)
    except MalformedError:
        return
    assert len(rows) <= 50
    assert all(value is None or VALUE_MIN <= value <= VALUE_MAX for _, values in rows for value in values)


@pytest.mark.parametrize("codec", CODECS)
def test_damaged_bodies_never_raise_anything_else(codec: Codec) -> None:
    schema = plain_schema(5, codec)
    body = encode(schema, drifting_rows(schema, 40))
    source = random.Random(7)
    for _ in range(150):
        damaged = bytearray(body)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        del damaged[len(damaged) - source.choice((0, 0, 1, 5)) :]
        try:
            rows = decode(schema, bytes(damaged), rows_max=64)
        except MalformedError:
            continue
        assert len(rows) <= 64


@pytest.mark.parametrize("codec", [Codec.CONTEXT, Codec.CARRIED])
def test_there_is_one_encoding_only(codec: Codec) -> None:
    schema = plain_schema(codec=codec)
    rows = drifting_rows(schema, 20)
    body = encode(schema, rows)
    for other in (body + b"\0", body + b"x"):
        with pytest.raises(MalformedError):
            decode(schema, other)
    source = random.Random(3)
    for at in range(200):
        other = bytearray(body[: len(body) - at % 3])
        other[source.randrange(len(other))] ^= 1 << source.randrange(8)
        try:
            decoded = decode(schema, bytes(other))
        except MalformedError:
            continue
        assert encode(schema, decoded) == other


@pytest.mark.parametrize("codec", CODECS)
def test_more_rows_than_asked_for_are_refused(codec: Codec) -> None:
    schema = plain_schema(codec=codec)
    body = encode(schema, drifting_rows(schema, 11))
    assert len(decode(schema, body, rows_max=11)) == 11
    with pytest.raises(MalformedError):
        decode(schema, body, rows_max=10)


def test_a_short_body_that_claims_many_rows_costs_nothing() -> None:
    schema = Schema(tuple(Channel(f"c{index}") for index in range(64)))
    started = time.perf_counter()
    with pytest.raises(MalformedError):
        decode(schema, b"\xff\x1f" + b"\x00" * 3)
    assert time.perf_counter() - started < 1.5


def test_size_is_exact_at_every_row() -> None:
    schema = plain_schema()
    encoder = BatchEncoder(schema)
    for at, row in enumerate(drifting_rows(schema, 150), start=1):
        assert encoder.append(row)
        assert encoder.rows == at
        assert encoder.size_bytes == len(encoder.finish())
    assert decode(schema, encoder.finish()) == drifting_rows(schema, 150)


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_closes_before_it_outgrows_its_datagram(codec: Codec) -> None:
    schema = plain_schema(codec=codec)
    rows = drifting_rows(schema, 300)
    encoder = BatchEncoder(schema)
    taken = 0
    while encoder.append(rows[taken], bytes_max=200):
        taken += 1
    assert encoder.rows == taken
    assert encoder.size_bytes == len(encoder.finish()) <= 200
    assert decode(schema, encoder.finish()) == rows[:taken]
    with pytest.raises(LocalError, match="closed"):
        encoder.append(rows[taken])


def test_a_base_saves_bytes_and_what_is_learnt_never_leaks_between_batches() -> None:
    schema = Schema(tuple(Channel(f"c{index}", typical=3) for index in range(16)), codec=Codec.CARRIED)
    rows = [
        (when, tuple(value + 100_000 for value in values if value is not None))
        for when, values in drifting_rows(schema, 60)
    ]
    alone = encode(schema, rows[30:])
    first = encode(schema, rows[:30])
    _, base = decode_on(schema, first)
    based = encode(schema, rows[30:], base=base)
    assert len(based) < len(alone) - 40
    assert decode(schema, based, base=base) == decode(schema, alone) == rows[30:]
    assert encode(schema, rows[30:], base=base) == based
    assert encode(schema, rows[30:]) == alone
    assert peek(schema, based) == peek(schema, alone) == (rows[30][0], 30)


def test_encoder_and_decoder_have_learnt_the_same_also_when_a_row_did_not_fit() -> None:
    schema = plain_schema(8, Codec.CARRIED)
    rows = drifting_rows(schema, 120)
    encoder = BatchEncoder(schema)
    taken = 0
    while encoder.append(rows[taken], bytes_max=90):
        taken += 1
    base = decode_on(schema, encoder.finish())[1]
    rest = rows[taken:]
    assert encode(schema, rest, base=encoder.learnt()) == encode(schema, rest, base=base)
    whole = BatchEncoder(schema)
    for row in rows[:taken]:
        whole.append(row)
    assert encode(schema, rest, base=whole.learnt()) == encode(schema, rest, base=base)


def test_other_codecs_have_no_base() -> None:
    schema = plain_schema()
    base = decode_on(schema, encode(schema, drifting_rows(schema, 3)))[1]
    with pytest.raises(LocalError, match="no base"):
        BatchEncoder(schema, base=base)


def test_missing_values_cost_little_and_come_back() -> None:
    schema = plain_schema(16)
    rows = drifting_rows(schema, 60)
    gappy = [(when, (None, *values[1:])) for when, values in rows]
    assert decode(schema, encode(schema, gappy)) == gappy
    assert len(encode(schema, gappy)) <= len(encode(schema, rows))


def test_rows_that_do_not_fit_the_schema_are_refused() -> None:
    schema = plain_schema(2)
    for row in ((0, (1,)), (0, (1, VALUE_MAX + 1)), (1 << 60, (1, 2))):
        with pytest.raises(LocalError):
            encode(schema, [row])
    with pytest.raises(LocalError, match="closed"):
        encode(schema, [(0, (1, 2))] * (ROWS_MAX + 1))


def test_known_rows_have_the_same_bytes_for_ever() -> None:
    channels = (
        Channel("a", nominal=2400, typical=2),
        Channel(
            "b",
            nominal=50,
            typical=10,
            weights=((0, 700),),
            history=((0, 20),),
            trend=(-300, 9),
            neighbours=((0, 900),),
        ),
        Channel("c"),
    )
    rows = [
        (1_780_272_000 + 60 * at + (at == 5), (2400 + at * at % 7, 50 - 9 * at % 31, None if at == 3 else at // 4))
        for at in range(12)
    ]
    expected = {
        Codec.CONTEXT: "0cb55d3f020797c534e2ec03e395753c72413005cba95c0273",
        Codec.CARRIED: "0cb55d3f020797aa967be9851439ca6ff865d1c1c54ad8ae26",
    }
    for codec, body in expected.items():
        assert encode(Schema(channels, codec=codec), rows).hex() == body


@pytest.mark.parametrize("codec", CODECS)
def test_a_peek_tells_the_first_time_and_the_count(codec: Codec) -> None:
    schema = Schema((Channel("a", "V", 10, 120, 3), Channel("b", "W", 1, 0, 9)), period_s=60, codec=codec)
    for start in (0, 1_767_225_600, 1_795_000_017):
        rows = [(start + 60 * n + n % 3, (120 + n, None if n == 2 else n)) for n in range(7)]
        assert peek(schema, encode(schema, rows)) == (start, 7)


def test_a_peek_at_a_body_without_rows_or_bytes_is_refused() -> None:
    schema = Schema((Channel("a", "V", 10, 120, 3),), period_s=60)
    for body in (b"", b"\x00", b"\xff", b"\x05", b"\x05\xff\xff\xff\xff\xff\xff\xff"):
        try:
            time, count = peek(schema, body)
        except MalformedError:
            continue
        assert body[0] == count > 0
        assert abs(time) <= 1 << 53
