"""Months begin and end in UTC, caps are never negative, and the forecast is this month's pace."""

from datetime import UTC, datetime

import pytest

from gateway.budgets import LinkBudget, link_budgets, month_of, price_milli
from protocol.documents import LinkConfig
from protocol.numbers import Precedence
from store.fleet.records import Direction, LedgerSum


def ms(*date: int) -> int:
    return round(datetime(*date, tzinfo=UTC).timestamp() * 1000)


def used(link: str, count: int) -> LedgerSum:
    return LedgerSum("ke-arrow", link, Precedence.NORMAL, "batch", Direction.UP, "USD", count, 1, 0)


def one(link: LinkConfig, count: int, now_ms: int) -> LinkBudget:
    (budget,) = link_budgets([link], [used(link.name, count)], now_ms)
    return budget


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
    budget = one(LinkConfig("sat", 1_000), 1_500, ms(2026, 11, 10))
    assert (budget.used_bytes, budget.left_bytes) == (1_500, 0)
    assert budget.exhausted_ms == ms(2026, 11, 10)


def test_the_forecast_is_this_months_pace() -> None:
    # 10 days in, 400 of 1000: at 40 a day the cap is reached on the 26th.
    assert one(LinkConfig("sat", 1_000), 400, ms(2026, 11, 11)).exhausted_ms == ms(2026, 11, 26)
    assert one(LinkConfig("sat", 1_000), 100, ms(2026, 11, 11)).exhausted_ms is None
    assert one(LinkConfig("sat", 1_000), 0, ms(2026, 11, 11)).exhausted_ms is None


def test_a_link_without_a_cap_is_counted_and_not_limited() -> None:
    budgets = link_budgets([LinkConfig("sat", 1_000)], [used("lte", 5), used("lte", 6), used("", 9)], ms(2026, 11, 2))
    assert [(each.link, each.used_bytes, each.left_bytes) for each in budgets] == [("lte", 11, None), ("sat", 0, 1_000)]


def test_prices_are_rounded_up_to_a_thousandth() -> None:
    assert price_milli(1, 4_500_000) == 5
    assert price_milli(1_000_000, 4_500_000) == 4_500_000
    assert price_milli(0, 4_500_000) == 0
