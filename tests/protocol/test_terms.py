"""Shares, pace and caps of a link: the sums hold whatever is asked, and nobody is starved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.budget import Cap
from protocol.documents import LinkConfig
from protocol.numbers import Precedence
from protocol.refusals import Reason
from protocol.tariffs import BillingPeriod, Budget, Grant, Pool, Roaming, Shares, Tariff, Unit
from protocol.terms import Terms, share_left, terms_of
from protocol.windows import utc

FLASH, PRIORITY, NORMAL, BULK = Precedence
CAP = Cap(1_000, 100)


def left(budget: Budget, precedence: Precedence, elapsed: float = 0.0, **spent: int) -> int | None:
    amounts = {Precedence[name.upper()]: amount for name, amount in spent.items()}
    return share_left(budget, CAP, amounts, precedence, elapsed).units


def test_without_shares_all_below_the_reserve_is_whose_comes_first() -> None:
    budget = Budget("sat")
    assert left(budget, FLASH) is None  # the cap alone
    assert left(budget, NORMAL) == left(budget, BULK) == left(budget, PRIORITY) == 900
    assert left(budget, NORMAL, bulk=700) == 200
    assert left(budget, NORMAL, flash=300) == 700  # beyond its reserve


def test_shares_are_kept_for_their_precedence_until_late_in_the_period() -> None:
    budget = Budget("sat", shares=Shares(20, 50, 10))
    assert left(budget, PRIORITY) == 900 - 450 - 90
    assert left(budget, BULK) == 900 - 180 - 450
    assert left(budget, BULK, normal=450) == 900 - 180 - 450
    assert left(budget, BULK, normal=500) == 900 - 180 - 500
    assert left(budget, BULK, elapsed=0.96) == 900
    assert share_left(budget, CAP, {BULK: 270}, BULK, 0.5).reason is Reason.SHARE


def test_the_more_urgent_may_borrow_a_part_and_the_less_urgent_never() -> None:
    budget = Budget("sat", shares=Shares(20, 80, 0), borrow_percent=50)
    assert left(budget, PRIORITY) == 900 - 360
    assert left(budget, BULK) == 0
    assert left(budget, NORMAL, priority=180 + 360) == 360


def test_pace_lets_normal_and_bulk_spend_a_burst_ahead_of_the_period() -> None:
    budget = Budget("sat", burst_percent=10)
    assert left(budget, NORMAL) == left(budget, BULK) == 90
    assert left(budget, NORMAL, elapsed=0.5, bulk=200) == 540 - 200
    assert left(budget, PRIORITY) == 900
    paced = share_left(budget, CAP, {NORMAL: 450}, NORMAL, 0.2)
    assert (paced.units, paced.reason) == (0, Reason.PACE)
    assert paced.until == pytest.approx(0.4)
    assert left(budget, NORMAL, elapsed=0.95) == 900


amounts = st.integers(0, 400)
budgets = st.builds(
    Budget,
    st.just("sat"),
    shares=st.builds(Shares, st.integers(0, 100), st.integers(0, 100), st.integers(0, 100)),
    borrow_percent=st.integers(0, 100),
    burst_percent=st.integers(0, 100),
)
asks = st.lists(st.tuples(st.sampled_from(Precedence), amounts, st.floats(0, 0.05)), max_size=40)


@given(budgets, asks)
def test_no_order_of_asking_passes_the_cap_or_starves_anybody(budget: Budget, some: list) -> None:  # type: ignore[type-arg]
    spent = dict.fromkeys(Precedence, 0)
    elapsed = 0.0
    usable = 900
    for precedence, amount, passes in some:
        elapsed = min(1.0, elapsed + passes)
        if precedence is FLASH:
            spent[FLASH] += min(amount, 1_000 - sum(spent.values()))
            continue
        found = share_left(budget, CAP, spent, precedence, elapsed).units
        assert found is not None
        spent[precedence] += min(amount, found)
        assert sum(spent[each] for each in (PRIORITY, NORMAL, BULK)) <= usable
        if elapsed >= 0.95:
            continue
        # What is kept for a precedence is there, whatever the others took (while flash took no more than its own).
        if spent[FLASH] <= 100:
            whole = max(100, budget.shares.priority + budget.shares.normal + budget.shares.bulk)
            own = usable * budget.shares.priority // whole
            there = share_left(budget, CAP, spent, PRIORITY, elapsed).units
            assert there is not None
            assert there >= own - spent[PRIORITY] - 3


def test_terms_come_from_the_tables_of_the_links_name() -> None:
    link = LinkConfig("sat", 5_000, 500, 7_000, "KES")
    plain = terms_of(link, tariffs=(), budgets=(), pools=(), truck="ke-arrow")
    assert (plain.bytes_cap.units_max, plain.bytes_cap.reserve_units) == (5_000, 500)
    assert (plain.rule, plain.period(1_800_000_000, utc).number) == ("", 202701)
    assert plain.money_cap is not None
    assert plain.money_cap.units_max is None
    pool = Pool("sat", Unit.MONEY, 9_000, (Grant("ke-arrow", 4_000),))
    told = terms_of(
        link,
        tariffs=(Tariff("lte"), Tariff("sat", "USD", 5_000, period=BillingPeriod.WEEK)),
        budgets=(Budget("sat", None, 30_000, 0, 1_000),),
        pools=(pool,),
        truck="ke-arrow",
    )
    assert told.bytes_cap.units_max is None
    assert told.money_cap is not None
    assert (told.money_cap.units_max, told.money_cap.reserve_units) == (4_000 * 10**6, 1_000 * 10**6)
    assert told.rule == "week 1 UTC"
    other = terms_of(link, tariffs=(), budgets=(), pools=(pool,), truck="tz-arrow")
    assert other.money_cap is not None
    assert other.money_cap.units_max == 0


def test_what_is_included_costs_nothing_and_bulk_takes_it_by_an_even_pace() -> None:
    terms = Terms(
        Tariff("lte", price_per_mb_milli=10, allowance_bytes=1_000, roaming=(Roaming((640,), (), 30),)),
        Budget("lte", burst_percent=10),
    )
    price = terms.dearest
    assert price.byte_nano == 30
    assert terms.marginal_nano(price, 500, NORMAL, 0.2) == 0
    assert terms.marginal_nano(price, 500, BULK, 0.2) == 30
    assert terms.marginal_nano(price, 500, BULK, 0.5) == 0
    assert terms.marginal_nano(price, 1_000, NORMAL, 0.2) == 30
