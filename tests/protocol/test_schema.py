"""A schema has one encoding, and nothing that could not be encoded is decoded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor
from protocol.errors import MalformedError
from protocol.schema import SCHEMA_BYTES_MAX, Channel, Codec, Schema, SchemaError, decode_schema

SCHEMA = Schema(
    (
        Channel("volt", "V", scale=100, nominal=5120, typical=4),
        Channel("amps", "A", scale=10, nominal=-3, typical=9, weights=((0, 130),), history=((0, 7),), trend=(-512,)),
    ),
    period_s=60,
)


def test_a_schema_comes_back_equal_with_the_same_digest() -> None:
    again = decode_schema(SCHEMA.encoded)
    assert again == SCHEMA
    assert again.digest == SCHEMA.digest
    assert len(SCHEMA.digest) == 32


def test_each_field_changes_the_digest() -> None:
    first, second = SCHEMA.channels
    variants = [
        Schema(SCHEMA.channels, period_s=61),
        Schema(SCHEMA.channels, codec=Codec.CBOR_ROWS),
        Schema(SCHEMA.channels, ticks_per_s=1000),
        Schema((second_without_weights(second), first)),
        Schema((first, second_without_weights(second))),
    ]
    digests = {schema.digest for schema in variants} | {SCHEMA.digest}
    assert len(digests) == len(variants) + 1


def second_without_weights(channel: Channel) -> Channel:
    return Channel(channel.name, channel.unit, channel.scale, channel.nominal, channel.typical)


def test_the_order_of_coding_decides_which_channels_weights_may_name() -> None:
    ahead = (Channel("a", weights=((1, 5),)), Channel("b"))
    with pytest.raises(SchemaError, match="not coded before"):
        Schema(ahead)
    assert decode_schema(Schema(ahead, order=(1, 0)).encoded).coding_order == (1, 0)


@pytest.mark.parametrize(
    "channels",
    [
        (),
        (Channel("a"), Channel("a")),
        (Channel(""),),
        (Channel("with space"),),
        (Channel("a" * 65),),
        (Channel("a", unit="u" * 17),),
        (Channel("a", scale=0),),
        (Channel("a", nominal=1 << 63),),
        (Channel("a", typical=-1),),
        (Channel("a", spread=-1),),
        (Channel("a", trend=(1, 2, 3, 4)),),
        (Channel("a", pull=1 << 25),),
        (Channel("a", activity=(1, 2, 3)),),
        (Channel("a", activity=(1, 2, 3, 4, -5)),),
        (Channel("a", neighbours=((0, 5),)),),
        (Channel("a", prior=bytes(1025)),),
        (Channel("a", weights=((0, 1),)),),
        (Channel("a", history=((1, 1),)),),
        (Channel("a", history=((0, 1 << 25),)),),
        tuple(Channel(f"c{index}") for index in range(65)),
    ],
)
def test_impossible_schemas_are_refused(channels: tuple[Channel, ...]) -> None:
    with pytest.raises(SchemaError):
        Schema(channels)


@pytest.mark.parametrize("arguments", [{"period_s": 0}, {"ticks_per_s": 7}, {"order": (0, 0)}, {"order": (1,)}])
def test_impossible_settings_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(SchemaError):
        Schema(SCHEMA.channels, **arguments)  # type: ignore[arg-type]


def test_hostile_schemas_are_malformed() -> None:
    value = cbor.decode(SCHEMA.encoded)
    hostile = [
        b"",
        SCHEMA.encoded + b"\0",
        SCHEMA.encoded[:-1],
        cbor.encode({}),
        cbor.encode(value[:-1]),
        cbor.encode([9, *value[1:]]),
        cbor.encode([True, *value[1:]]),
        cbor.encode([*value[:4], [[]]]),
        cbor.encode([*value[:4], [["a", "", 1, 0, 1, 1, [0], [], [], 0, [0, 0, 0, 0, 0], [], b""]]]),
        cbor.encode([*value[:4], [["a", 5, 1, 0, 1, 1, [], [], [], 0, [0, 0, 0, 0, 0], [], b""]]]),
        cbor.encode([*value[:3], "0", value[4]]),
        cbor.encode([*value[:3], [0, "1"], value[4]]),
        b"\x81" * 500,
        bytes(SCHEMA_BYTES_MAX + 1),
    ]
    for data in hostile:
        with pytest.raises(MalformedError):
            decode_schema(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 200), st.integers(1, 255))
def test_damage_is_malformed_or_another_schema(junk: bytes, at: int, flip: int) -> None:
    damaged = bytearray(SCHEMA.encoded)
    damaged[at % len(damaged)] ^= flip
    for data in (junk, bytes(damaged)):
        try:
            schema = decode_schema(data)
        except MalformedError:
            continue
        assert schema.encoded == data
