"""Periods begin where the tariff says, caps are never negative, and a budget lasts as long as the truck's days say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.budgets import LinkBudget, LinkPlan, link_budget, month_of, price_milli
from gateway.forecast import DAY_MS
from gateway.terms import links_of, terms_of
from protocol.documents import Addressee, Config, LinkConfig
from protocol.numbers import DocumentKind
from protocol.tariffs import Budget, Grant, Pool, Tariff, Unit
from store.fleet.records import DayUse


def ms(*date: int) -> int:
    return round(datetime(*date, tzinfo=UTC).timestamp() * 1000)


def config(**parts: Any) -> Config:
    return Config(
        document=DocumentKind.CONFIG, version=1, issued_s=0, expires_s=1, addressee=Addressee(("ke-arrow",)), **parts
    )


def one(parts: Config | LinkConfig, by_day: dict[int, int], now_ms: int, *, nano: int = 0) -> LinkBudget:
    """Return the budget of a link that used so many bytes on each day of November 2026, at `nano` a byte."""
    settings = config(links=(parts,)) if isinstance(parts, LinkConfig) else parts
    (link,) = links_of(settings)
    plan = LinkPlan.of(terms_of(settings, "ke-arrow", link), now_ms)
    history = {ms(2026, 11, day) // DAY_MS: DayUse(count, 1, count, count * nano) for day, count in by_day.items()}
    within = [use for day, use in history.items() if plan.start_ms <= day * DAY_MS < plan.end_ms]
    total = sum(each.billed for each in within)
    used = DayUse(total, len(within), total, total * nano)
    return link_budget(plan, history, used, now_ms=now_ms, begun_ms=ms(2026, 11, 1))


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
    budget = one(LinkConfig("lte", None), {1: 11}, ms(2026, 11, 2))
    assert (budget.used_bytes, budget.left_bytes, budget.used_share, budget.exhausted_ms) == (11, None, None, None)


def test_a_period_begins_on_the_billing_day_of_the_tariffs_own_time_zone() -> None:
    tariff = Tariff("sat", billing_day=15, zone="Africa/Nairobi")
    budget = one(config(tariffs=(tariff,)), {1: 5, 16: 7}, ms(2026, 11, 17))
    assert (budget.plan.start_ms, budget.plan.end_ms) == (ms(2026, 11, 14, 21), ms(2026, 12, 14, 21))
    assert budget.used_bytes == 7


def test_a_cap_in_money_is_reached_when_the_bytes_have_cost_it() -> None:
    parts = config(tariffs=(Tariff("sat", "KES", 5_000),), budgets=(Budget("sat", money_max_milli=3_000),))
    # 40,000 bytes a day at 5 a MB are 0.2 a day: 2 are spent in 10 days, and 3 after 15.
    budget = one(parts, dict.fromkeys(range(1, 11), 40000), ms(2026, 11, 11), nano=5_000)
    assert (budget.spent_milli, budget.left_milli, budget.expected_milli) == (2_000, 1_000, 6_000)
    assert budget.used_share == pytest.approx(2 / 3)
    assert budget.exhausted_ms == ms(2026, 11, 16)


def test_what_an_allowance_includes_costs_nothing() -> None:
    parts = config(
        tariffs=(Tariff("sat", price_per_mb_milli=5_000, allowance_bytes=1_000_000),),
        budgets=(Budget("sat", money_max_milli=1_000),),
    )
    budget = one(parts, dict.fromkeys(range(1, 11), 40000), ms(2026, 11, 11))
    assert (budget.spent_milli, budget.expected_milli) == (0, 1_000)
    assert budget.exhausted_ms is None or budget.exhausted_ms >= ms(2026, 11, 30)


def test_a_grant_of_a_pool_is_a_cap_and_who_has_none_has_nothing() -> None:
    pool = Pool("sat", Unit.BYTES, 5_000, (Grant("ke-arrow", 2_000),))
    parts = config(pools=(pool,), budgets=(Budget("sat", 3_000),))
    budget = one(parts, {1: 500}, ms(2026, 11, 2))
    assert (budget.left_bytes, budget.plan.terms.pooled) == (1_500, True)
    assert terms_of(parts, "tz-arrow", "sat").bytes_max == 0


def test_a_tariff_or_budget_of_its_own_counts_before_the_simple_entry() -> None:
    parts = config(links=(LinkConfig("sat", 9, 1, 7),), tariffs=(Tariff("sat", price_per_mb_milli=5),))
    terms = terms_of(parts, "ke-arrow", "sat")
    assert (terms.bytes_max, terms.tariff.price_per_mb_milli, terms.is_priced) == (None, 5, True)


def test_prices_are_rounded_up_to_a_thousandth() -> None:
    assert price_milli(1, 4_500_000) == 5
    assert price_milli(1_000_000, 4_500_000) == 4_500_000
    assert price_milli(0, 4_500_000) == 0
