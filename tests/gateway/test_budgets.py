"""Months begin and end in UTC, caps are never negative, and a budget lasts as long as the truck's days say."""

from datetime import UTC, datetime

import pytest

from gateway.budgets import LinkBudget, link_budget, month_of, plans, price_milli
from protocol.documents import LinkConfig
from store.fleet.records import DayUse


def ms(*date: int) -> int:
    return round(datetime(*date, tzinfo=UTC).timestamp() * 1000)


def one(link: LinkConfig, by_day: dict[int, int], now_ms: int) -> LinkBudget:
    """Return the budget of a link that used so many bytes on each day of November 2026."""
    (plan,) = plans([link], [], now_ms)
    history = {ms(2026, 11, day) // 86_400_000: DayUse(count, 1) for day, count in by_day.items()}
    return link_budget(plan, history, now_ms=now_ms, begun_ms=ms(2026, 11, 1))


@pytest.mark.parametrize(
    ("now", "start", "end"),
    [
        ((2026, 11, 23, 7), (2026, 11, 1), (2026, 12, 1)),
        ((2026, 12, 31, 23, 59, 59), (2026, 12, 1), (2027, 1, 1)),
        ((2028, 2, 29), (2028, 2, 1), (2028, 3, 1)),
        ((2026, 1, 1), (2026, 1, 1), (2026, 2, 1)),
    ],
)
def test_a_month_is_a_calendar_month_in_utc(now: tuple, start: tuple, end: tuple) -> None:
    assert month_of(ms(*now)) == (ms(*start), ms(*end))


def test_what_is_left_is_never_negative() -> None:
    budget = one(LinkConfig("sat", 1_000), {1: 1_500}, ms(2026, 11, 10))
    assert (budget.used_bytes, budget.left_bytes) == (1_500, 0)
    assert budget.exhausted_ms == ms(2026, 11, 10)


def test_the_date_follows_from_the_days_of_the_truck() -> None:
    # 10 days in, 400 of 1000: at 40 a day the cap is reached on the 26th.
    by_day = dict.fromkeys(range(1, 11), 40)
    budget = one(LinkConfig("sat", 1_000), by_day, ms(2026, 11, 11))
    assert budget.exhausted_ms == ms(2026, 11, 26)
    assert (budget.expected_bytes, budget.history_days) == (1_200, 10)
    assert budget.days == (40,) * 10 + (0,)
    assert budget.used_share == 0.4
    assert one(LinkConfig("sat", 1_201), by_day, ms(2026, 11, 11)).exhausted_ms is None
    assert one(LinkConfig("sat", 1_000), {}, ms(2026, 11, 11)).exhausted_ms is None


def test_a_cap_of_nothing_is_used_up() -> None:
    assert one(LinkConfig("sat", 0), {}, ms(2026, 11, 11)).used_share == 1.0


def test_a_link_without_a_cap_is_counted_and_not_limited() -> None:
    found = plans([LinkConfig("sat", 1_000)], ["lte", "sat", ""], ms(2026, 11, 2))
    assert [(each.link, each.bytes_max) for each in found] == [("lte", None), ("sat", 1_000)]
    budget = one(LinkConfig("lte", None), {1: 11}, ms(2026, 11, 2))
    assert (budget.used_bytes, budget.left_bytes, budget.used_share, budget.exhausted_ms) == (11, None, None, None)


def test_prices_are_rounded_up_to_a_thousandth() -> None:
    assert price_milli(1, 4_500_000) == 5
    assert price_milli(1_000_000, 4_500_000) == 4_500_000
    assert price_milli(0, 4_500_000) == 0
