"""What is learnt from a truck's own weeks and days: when a link is usually up, how far the battery will fall."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.profiles import DAY_H, HOUR_S, WEEK_H, Profile, hour_of, lowest_ahead, next_contact_s
from protocol.windows import utc

MONDAY_S = 1_795_996_800  # 2026-11-30 00:00 UTC
THURSDAY_NOON_H = 3 * 24 + 12


def visits(weeks: int, *, missed: int = 0) -> Profile:
    profile = Profile.empty(WEEK_H)
    for week in range(weeks + missed):
        for hour in range(WEEK_H):
            up = hour in (THURSDAY_NOON_H, THURSDAY_NOON_H + 1) and week < weeks
            profile = profile.learn(hour, 1_000 if up else 0)
    return profile


def test_a_visit_that_was_seen_twice_is_expected() -> None:
    assert hour_of(MONDAY_S, utc) % WEEK_H == 0
    assert next_contact_s(visits(1), MONDAY_S, utc, 7 * 86_400) is None
    assert next_contact_s(visits(2), MONDAY_S, utc, 7 * 86_400) == THURSDAY_NOON_H * HOUR_S
    assert next_contact_s(visits(4), MONDAY_S + 900, utc, 7 * 86_400) == THURSDAY_NOON_H * HOUR_S - 900
    assert next_contact_s(visits(2), MONDAY_S, utc, 2 * 86_400) is None
    noon_s = MONDAY_S + THURSDAY_NOON_H * HOUR_S
    assert next_contact_s(visits(2), noon_s + 60, utc, 7 * 86_400) == 600
    assert next_contact_s(visits(2), noon_s + 2 * HOUR_S - 60, utc, 7 * 86_400) == 60
    assert next_contact_s(visits(2), noon_s + 2 * HOUR_S, utc, 7 * 86_400) == 166 * HOUR_S


def test_a_visit_that_stopped_is_forgotten_after_two_weeks() -> None:
    assert next_contact_s(visits(5, missed=1), MONDAY_S, utc, 7 * 86_400) is not None
    assert next_contact_s(visits(5, missed=2), MONDAY_S, utc, 7 * 86_400) is None


def test_the_battery_is_forecast_from_its_own_days() -> None:
    changes = Profile.empty(DAY_H)
    assert lowest_ahead(80_000, changes, MONDAY_S, utc) is None
    for hour in range(24):
        changes = changes.learn(hour, 10_000 if 8 <= hour < 16 else -5_000)
    assert lowest_ahead(80_000, changes, MONDAY_S + 16 * HOUR_S, utc) == 0
    assert lowest_ahead(80_000, changes, MONDAY_S + 8 * HOUR_S, utc) == 80_000


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(-100_000, 100_000)), max_size=30))
def test_a_profile_is_read_back(observed: list[tuple[int, int]]) -> None:
    profile = Profile.empty(WEEK_H)
    for hour, milli in observed:
        profile = profile.learn(hour, milli)
    assert Profile.decode(profile.encode(), WEEK_H) == profile
    assert Profile.decode(profile.encode()[1:], WEEK_H) == Profile.empty(WEEK_H)
