"""The two shapes of a message: what they write, what they skip, what they refuse."""

from typing import Annotated, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from protocol import cbor
from protocol.errors import MalformedError
from protocol.numbers import NAME_CHARS_MAX
from protocol.wire import Digest, Name, Text, Uint, WireArray, WireMap, convert


class Pair(WireArray, frozen=True):
    number: Uint
    name: Name = "x"


class Form(WireMap, frozen=True):
    labels: ClassVar = {"number": 1, "digest": 2, "pairs": 3, "flag": 4}
    number: Uint
    digest: Digest | None = None
    pairs: Annotated[tuple[Pair, ...], Meta(max_length=2)] = ()
    flag: bool = False


def test_a_map_leaves_defaults_out_and_sorts_its_labels() -> None:
    assert Form(5).encode() == cbor.encode({1: 5})
    full = Form(5, bytes(32), (Pair(1), Pair(2, "y")), True)
    assert full.encode() == cbor.encode({1: 5, 2: bytes(32), 3: [[1, "x"], [2, "y"]], 4: True})
    assert Form.decode(full.encode()) == full


def test_an_array_writes_every_item() -> None:
    assert Pair(7).encode() == cbor.encode([7, "x"])


def test_later_items_and_labels_are_skipped_and_missing_ones_default() -> None:
    assert Pair.decode(cbor.encode([7])) == Pair(7)
    assert Pair.decode(cbor.encode([7, "y", "later"])) == Pair(7, "y")
    assert Form.decode(cbor.encode({1: 5, 77: "later", "text": 1})) == Form(5)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {2: bytes(32)},
        {1: -1},
        {1: 1 << 63},
        {1: "5"},
        {1: True},
        {1: None},
        {1: 5, 2: bytes(31)},
        {1: 5, 2: bytes(33)},
        {1: 5, 3: [[1, "x"]] * 3},
        {1: 5, 3: [[1, "-x"]]},
        {1: 5, 3: [[]]},
        {1: 5, 3: {}},
        {1: 5, 4: 1},
        [5],
        5,
        None,
    ],
)
def test_what_does_not_fit_is_malformed(value: object) -> None:
    with pytest.raises(MalformedError):
        Form.decode(cbor.encode(value))


def test_text_is_never_taken_for_bytes() -> None:
    # 43 characters of base64 are 32 bytes; two encodings of one record would break what is signed over bytes.
    with pytest.raises(MalformedError):
        Form.decode(cbor.encode({1: 5, 2: "A" * 43 + "="}))
    with pytest.raises(MalformedError):
        convert("AAAA", bytes)
    with pytest.raises(MalformedError):
        convert(b"text", str)


def test_the_error_names_the_class_and_the_field() -> None:
    with pytest.raises(MalformedError, match=r"Form: .*digest"):
        Form.decode(cbor.encode({1: 5, 2: b"short"}))


@pytest.mark.parametrize("name", ["a", "ke-arrow", "9", "a" * NAME_CHARS_MAX])
def test_names(name: str) -> None:
    assert convert(name, Name) == name  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a b", "a\n", "ä", "a/b", "..", "a" * (NAME_CHARS_MAX + 1)])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(MalformedError):
        convert(name, Name)  # type: ignore[arg-type]


def test_text_is_bounded() -> None:
    assert convert("é" * 256, Text) == "é" * 256  # type: ignore[arg-type]
    with pytest.raises(MalformedError):
        convert("e" * 257, Text)  # type: ignore[arg-type]


def test_trailing_bytes_and_repeated_labels_are_malformed() -> None:
    for data in (Form(5).encode() + b"\x00", bytes.fromhex("a201050105"), bytes.fromhex("a1180105"), b""):
        with pytest.raises(MalformedError):
            Form.decode(data)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_record_or_malformed(data: bytes) -> None:
    for kind in (Form, Pair):
        try:
            record = kind.decode(data)
        except MalformedError:
            continue
        assert kind.decode(record.encode()) == record
