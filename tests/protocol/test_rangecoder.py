"""The range coder gives back every bit, at the cost that the probabilities promise."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedError
from protocol.rangecoder import RangeDecoder, RangeEncoder

coded_bits = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 65535)), max_size=300)


@given(coded_bits)
def test_bits_come_back_and_the_size_is_exact(bits: list[tuple[int, int]]) -> None:
    encoder = RangeEncoder()
    for bit, one in bits:
        encoder.bit(bit, one)
    size = encoder.size_bytes
    body = encoder.finish()
    assert len(body) == size
    decoder = RangeDecoder(body)
    assert [decoder.bit(0, one) for _, one in bits] == [bit for bit, _ in bits]
    decoder.finish()


@given(st.integers(0, 70).flatmap(lambda width: st.tuples(st.just(width), st.integers(0, (1 << width) - 1))))
def test_raw_numbers_come_back(case: tuple[int, int]) -> None:
    width, value = case
    encoder = RangeEncoder()
    encoder.raw(value, width)
    decoder = RangeDecoder(encoder.finish())
    assert decoder.raw(0, width) == value
    decoder.finish()


def test_cost_is_within_a_thousandth_of_the_entropy() -> None:
    source = random.Random(1)
    encoder = RangeEncoder()
    entropy_bits = 0.0
    for _ in range(50_000):
        one = source.choice((200, 9_000, 30_000, 65_000))
        bit = int(source.random() * 65536 < one)
        entropy_bits -= math.log2(one / 65536 if bit else 1 - one / 65536)
        encoder.bit(bit, one)
    assert encoder.size_bytes * 8 <= entropy_bits * 1.001 + 32


def test_reading_past_the_end_is_malformed() -> None:
    decoder = RangeDecoder(b"\x55\xaa")
    with pytest.raises(MalformedError, match="ends before"):
        decoder.raw(0, 100)


@pytest.mark.parametrize("extra", [b"\x00", b"\x01", b"more"])
def test_bytes_beyond_the_tail_are_malformed(extra: bytes) -> None:
    encoder = RangeEncoder()
    encoder.raw(12345, 20)
    decoder = RangeDecoder(encoder.finish() + extra)
    assert decoder.raw(0, 20) == 12345
    with pytest.raises(MalformedError, match="does not end"):
        decoder.finish()


def test_known_bytes_stay_the_same() -> None:
    encoder = RangeEncoder()
    state = 12345
    for _ in range(200):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        encoder.bit(state >> 16 & 1, (state & 0xFFFF) or 1)
    assert encoder.finish().hex() == "47eb60947ab2a744a2675056a499b92e36d63ea2cca055b908d1721acf17a4cc8838921e1e"
