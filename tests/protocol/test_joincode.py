"""A join code survives a phone call, and nothing else passes as one."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor, cose
from protocol.errors import MalformedError
from protocol.joincode import PREFIX, JoinCode, read_join_code
from protocol.numbers import ADDRESSES_MAX
from tests.protocol.instances import instances

CODE = JoinCode("ke-arrow", ("gw.example.org:5683", "[2001:db8::1]:5683"), b"s" * 16, b"k" * 32, b"r" * 32)


def text_of(raw: bytes) -> str:
    return PREFIX + base64.b32encode(raw + cose.digest(raw)[:3]).decode().rstrip("=")


@settings(deadline=None, max_examples=30)
@given(instances(JoinCode))
def test_a_code_comes_back(code: JoinCode) -> None:
    if len(code.text()) <= 1_024:
        assert read_join_code(code.text()) == code


def test_the_longest_sensible_code_fits_a_qr_code() -> None:
    longest = JoinCode(
        "a" * 31, ("[2001:db8:1111:2222:3333:4444:5555:6666]:65535",) * ADDRESSES_MAX, b"s" * 16, *[b"k" * 32] * 2
    )
    assert read_join_code(longest.text()) == longest
    assert len(longest.text()) <= 1_024
    assert set(longest.text()) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")


def test_spaces_line_breaks_and_case_do_not_matter() -> None:
    text = CODE.text().lower()
    broken = "\n".join(
        " ".join(text[at : at + 4] for at in range(line, line + 32, 4)) for line in range(0, len(text), 32)
    )
    assert read_join_code(f"  {broken}\t") == CODE


def test_every_mistyped_character_is_noticed() -> None:
    text = CODE.text()
    for at in range(len(PREFIX), len(text) - 1):
        other = "A" if text[at] != "A" else "B"
        with pytest.raises(MalformedError):
            read_join_code(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize("cut", [1, 2, 8, 40])
def test_a_cut_code_is_noticed(cut: int) -> None:
    with pytest.raises(MalformedError, match="copy it again"):
        read_join_code(CODE.text()[:-cut])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with DT1-"),
        ("hello", "begins with DT1-"),
        ("DT2-ABCD", "begins with DT1-"),
        (PREFIX, "copy it again"),
        (PREFIX + "AAAA", "copy it again"),
        (PREFIX + "0189", "cannot have"),
        (PREFIX + "é", "cannot have"),
        (PREFIX + "A" * 2_000, "begins with DT1-"),
        (text_of(cbor.encode(["of", "a", "later", "version"])), "update this software"),
        (text_of(CODE.encode() + b"\x00"), "update this software"),
    ],
)
def test_the_error_says_what_to_do(text: str, says: str) -> None:
    with pytest.raises(MalformedError, match=says):
        read_join_code(text)


@given(st.text(max_size=80))
def test_any_text_is_refused_with_the_one_error(text: str) -> None:
    for each in (text, PREFIX + text):
        with pytest.raises(MalformedError):
            read_join_code(each)
