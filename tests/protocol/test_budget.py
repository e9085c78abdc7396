"""The budget's arithmetic: tables for its rules, properties for its promise (never over)."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.budget import UNCAPPED, Cap, Spent, Turn, allowed_units, period_of, slice_units, turn
from protocol.documents import LinkConfig
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence

FLASH, NORMAL = Precedence.FLASH, Precedence.NORMAL


@pytest.mark.parametrize(
    ("cap", "spent", "flash", "normal"),
    [
        (Cap(1000, 200), Spent(), 1000, 800),
        (Cap(1000, 200), Spent(0, 800), 200, 0),
        (Cap(1000, 200), Spent(200, 0), 800, 800),
        (Cap(1000, 200), Spent(500, 0), 500, 500),
        (Cap(1000, 200), Spent(500, 500), 0, 0),
        (Cap(1000, 200), Spent(900, 300), 0, 0),  # a cap that was lowered
        (Cap(1000, 2000), Spent(), 1000, 0),
        (Cap(0, 0), Spent(), 0, 0),
        (UNCAPPED, Spent(10**9, 10**12), None, None),
    ],
)
def test_what_each_may_still_spend(cap: Cap, spent: Spent, flash: int | None, normal: int | None) -> None:
    assert allowed_units(cap, spent, FLASH) == flash
    for precedence in (Precedence.PRIORITY, NORMAL, Precedence.BULK):
        assert allowed_units(cap, spent, precedence) == normal


@pytest.mark.parametrize(
    ("cap", "spent", "flash", "normal"),
    [
        (Cap(1000, 200), Spent(), 200, 0),
        (Cap(1000, 200), Spent(150, 0), 50, 0),
        (Cap(1000, 200), Spent(300, 0), 0, 0),
        (Cap(1000, 200), Spent(0, 950), 50, 0),
        (Cap(1000, 0), Spent(), 0, 0),
        (UNCAPPED, Spent(), None, None),
    ],
)
def test_in_doubt_only_flash_goes_on_within_the_reserve(
    cap: Cap, spent: Spent, flash: int | None, normal: int | None
) -> None:
    assert allowed_units(cap, spent, FLASH, in_doubt=True) == flash
    assert allowed_units(cap, spent, NORMAL, in_doubt=True) == normal


def test_a_slice_shrinks_to_what_is_left_and_never_below_the_need() -> None:
    cap = Cap(1000)
    assert slice_units(cap, Spent(), NORMAL, 10, 600) == 600
    assert slice_units(cap, Spent(0, 600), NORMAL, 10, 600) == 400
    assert slice_units(cap, Spent(), NORMAL, 700, 600) == 700
    assert slice_units(UNCAPPED, Spent(0, 10**9), NORMAL, 700, 600) == 700
    with pytest.raises(BudgetExceededError, match="holds 400"):
        slice_units(cap, Spent(0, 600), NORMAL, 401, 600)


amounts = st.integers(0, 3_000)


@given(
    bytes_max=amounts,
    reserve=amounts,
    asks=st.lists(st.tuples(st.sampled_from(list(Precedence)), amounts, amounts, st.booleans()), max_size=30),
)
def test_no_order_of_asking_ever_passes_the_cap_or_the_reserve(bytes_max, reserve, asks) -> None:
    cap, spent = Cap(bytes_max, reserve), Spent()
    for precedence, need, wish, in_doubt in asks:
        try:
            amount = slice_units(cap, spent, precedence, need, wish, in_doubt=in_doubt)
        except BudgetExceededError:
            allowed = allowed_units(cap, spent, precedence, in_doubt=in_doubt)
            assert allowed is not None
            assert need > allowed
            continue
        assert amount >= need
        if precedence is FLASH:
            spent = Spent(spent.flash + amount, spent.other)
        else:
            spent = Spent(spent.flash, spent.other + amount)
        assert spent.total <= bytes_max
        assert spent.other <= max(0, bytes_max - reserve)


@given(st.integers(0, 253_402_300_799))
def test_a_period_is_the_calendar_month_in_utc(now_s: int) -> None:
    there = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=now_s)
    assert period_of(now_s) == there.year * 100 + there.month


def test_periods_turn_at_midnight_utc() -> None:
    leap_day = 1_709_164_800  # 2024-02-29 00:00:00 UTC
    assert period_of(leap_day + 86_399) == 202402
    assert period_of(leap_day + 86_400) == 202403


@pytest.mark.parametrize(
    ("last", "asked", "expected"),
    [
        (0, None, Turn(0, opens=False, undated=True)),
        (0, 202611, Turn(202611, opens=True, undated=False)),
        (202611, 202611, Turn(202611, opens=False, undated=False)),
        (202611, None, Turn(202611, opens=False, undated=True)),
        (202611, 202610, Turn(202611, opens=False, undated=True)),
        (202611, 202701, Turn(202701, opens=True, undated=False)),
    ],
)
def test_only_a_known_later_clock_opens_a_period(last: int, asked: int | None, expected: Turn) -> None:
    assert turn(last, asked) == expected


def test_a_cap_is_read_from_the_configuration_of_a_link() -> None:
    assert Cap.of(LinkConfig("sat", 5_000, 700)) == Cap(5_000, 700)
    assert Cap.of(LinkConfig("depot", None)) == UNCAPPED
