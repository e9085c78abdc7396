"""A forecast follows the truck's own weekdays, and says when the cap is reached."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.forecast import DAY_MS, forecast, weekday, weekday_profile

# Monday 2026-11-02, and the month around it.
MONDAY = 20_759
END_MS = (MONDAY + 28) * DAY_MS


def of_days(profile: list[int], first: int, last: int) -> dict[int, int]:
    return {day: profile[weekday(day)] for day in range(first, last)}


def test_the_first_day_of_the_epoch_was_a_thursday_and_this_is_a_monday() -> None:
    assert (weekday(0), weekday(MONDAY)) == (3, 0)


def test_a_truck_that_works_on_weekdays_runs_out_on_a_weekday() -> None:
    lessons = [100, 100, 100, 100, 100, 0, 0]
    days = of_days(lessons, MONDAY - 56, MONDAY)
    found = forecast(days, used=0, cap=1_000, now_ms=MONDAY * DAY_MS, end_ms=END_MS, begun_ms=0)
    # Ten days of lessons are used up on the second Friday, whatever the weekends between say on average.
    assert found.exhausted_ms is not None
    assert round(found.exhausted_ms / DAY_MS, 6) == MONDAY + 12
    assert found.by_weekday == (100, 100, 100, 100, 100, 0, 0)
    assert found.at_end == 2_000


def test_a_cap_that_holds_has_no_date_and_one_that_is_used_up_has_now() -> None:
    days = of_days([100] * 7, MONDAY - 56, MONDAY)
    now_ms = MONDAY * DAY_MS
    assert forecast(days, used=0, cap=2_900, now_ms=now_ms, end_ms=END_MS, begun_ms=0).exhausted_ms is None
    assert forecast(days, used=9, cap=9, now_ms=now_ms, end_ms=END_MS, begun_ms=0).exhausted_ms == now_ms
    assert forecast(days, used=9, cap=None, now_ms=now_ms, end_ms=END_MS, begun_ms=0).exhausted_ms is None


def test_a_truck_of_this_morning_is_judged_by_this_morning() -> None:
    now_ms = MONDAY * DAY_MS + DAY_MS // 4
    found = forecast({MONDAY: 250}, used=250, cap=None, now_ms=now_ms, end_ms=END_MS, begun_ms=MONDAY * DAY_MS)
    assert found.days == 0
    assert abs(found.at_end - 28_000) <= 28


def test_the_newest_weeks_weigh_most() -> None:
    days = of_days([0] * 7, MONDAY - 56, MONDAY - 28) | of_days([100] * 7, MONDAY - 28, MONDAY)
    profile, known = weekday_profile(days, MONDAY * DAY_MS, 0)
    assert known == 56
    assert all(60 < each < 75 for each in profile)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.integers(0, 10**10), st.integers(0, 10**10))
def test_a_cap_is_reached_exactly_when_the_period_ends_above_it(amounts: list[int], used: int, cap: int) -> None:
    days = {MONDAY - 1 - at: amount for at, amount in enumerate(amounts)}
    found = forecast(days, used=used, cap=cap, now_ms=MONDAY * DAY_MS, end_ms=END_MS, begun_ms=0)
    assert found.at_end >= used
    if found.exhausted_ms is None:
        assert found.at_end <= cap
    else:
        assert MONDAY * DAY_MS <= found.exhausted_ms <= END_MS
        assert found.at_end >= cap
