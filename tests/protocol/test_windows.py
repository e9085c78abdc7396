"""Windows of the local week: membership, next opening, and the text that people write."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedError
from protocol.windows import (
    Window,
    closing,
    is_open,
    next_opening,
    open_seconds,
    parse_windows,
    utc,
    write_windows,
)

NAIROBI = ZoneInfo("Africa/Nairobi")


def nairobi(at_s: int) -> int:
    return round(datetime.fromtimestamp(at_s, NAIROBI).utcoffset().total_seconds())  # type: ignore[union-attr]


def at(text: str, zone: ZoneInfo | None = None) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone or UTC).timestamp())


NIGHTS = parse_windows("mon-fri 22:00-06:00")
windows = st.builds(Window, st.integers(1, 127), st.integers(0, 1_439), st.integers(0, 1_440))


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2026-11-30T21:59:59", False),  # a Monday
        ("2026-11-30T22:00:00", True),
        ("2026-12-01T05:59:59", True),
        ("2026-12-01T06:00:00", False),
        ("2026-12-05T05:00:00", True),  # Saturday morning still belongs to Friday's night
        ("2026-12-05T23:00:00", False),
        ("2026-11-30T03:00:00", False),  # Sunday's night is none
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(when: str, expected: bool) -> None:
    assert is_open(NIGHTS, at(when), utc) is expected
    assert is_open(NIGHTS, at(when, NAIROBI), nairobi) is expected


def test_a_margin_takes_both_ends_away() -> None:
    assert not is_open(NIGHTS, at("2026-11-30T22:02:59"), utc, margin_s=180)
    assert is_open(NIGHTS, at("2026-11-30T22:03:00"), utc, margin_s=180)
    assert not is_open(NIGHTS, at("2026-12-01T05:57:00"), utc, margin_s=180)


def test_next_opening_and_closing_are_in_utc() -> None:
    noon = at("2026-12-05T12:00:00", NAIROBI)
    assert next_opening(NIGHTS, noon, nairobi) == at("2026-12-07T22:00:00", NAIROBI)
    assert closing(NIGHTS, noon, nairobi) is None
    night = at("2026-12-07T23:00:00", NAIROBI)
    assert next_opening(NIGHTS, night, nairobi) == night
    assert closing(NIGHTS, night, nairobi) == at("2026-12-08T06:00:00", NAIROBI)
    assert next_opening((), noon, nairobi) is None


def test_open_seconds_of_a_week() -> None:
    week = at("2026-11-30T00:00:00")
    assert open_seconds(NIGHTS, week, week + 7 * 86_400, utc) == 5 * 8 * 3_600
    overlapping = parse_windows("daily 08:00-10:00; daily 09:00-11:00")
    assert open_seconds(overlapping, week, week + 86_400, utc) == 3 * 3_600


@given(st.lists(windows, max_size=4).map(tuple))
def test_text_is_read_back(some: tuple[Window, ...]) -> None:
    assert parse_windows(write_windows(some)) == some


@given(st.lists(windows, min_size=1, max_size=3).map(tuple), st.integers(1_700_000_000, 1_900_000_000))
def test_the_next_opening_is_open_and_nothing_before_it_is(some: tuple[Window, ...], now_s: int) -> None:
    opens = next_opening(some, now_s, nairobi)
    assert opens is not None
    assert is_open(some, opens, nairobi)
    for sample in range(now_s, opens, max(1, (opens - now_s) // 20)):
        assert not is_open(some, sample, nairobi)


@pytest.mark.parametrize(
    "text", ["mon", "mon 8-9", "foo 08:00-09:00", "mon 24:00-25:00", "mon 08:61-09:00", "mon-x 08:00-09:00"]
)
def test_a_mistake_is_named(text: str) -> None:
    with pytest.raises(MalformedError, match="is no"):
        parse_windows(text)
