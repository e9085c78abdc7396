"""What a quote adds to a pack: headers, losses, the tariff's rounding, and the time that budget and contacts leave."""

from __future__ import annotations

import pytest

from gateway.budgets import LinkBudget, LinkPlan, link_budget
from gateway.forecast import DAY_MS
from gateway.quoting import (
    Bearer,
    Wire,
    billed_of,
    days_of_budget,
    days_of_contact,
    money_milli,
    transfer_s,
    wire_of,
)
from gateway.terms import terms_of
from protocol.documents import Addressee, Config
from protocol.numbers import DocumentKind, Precedence
from protocol.tariffs import BillingStep, Budget, Shares, Tariff
from store.fleet.records import DayUse

NOVEMBER_MS = 1_793_491_200_000  # 1 November 2026, 00:00 UTC
MB = 1_000_000


def on_wire(pack: int, bearer: Bearer | None = None) -> Wire:
    return wire_of(pack, 600, 300, bearer or Bearer(loss_up=0.0, loss_down=0.0))


def test_a_large_pack_costs_some_percent_more_than_itself() -> None:
    assert 10.4 * MB < on_wire(10 * MB).bytes < 10.7 * MB
    assert on_wire(0).bytes < 3_000


def test_longer_headers_count_for_each_datagram() -> None:
    short, long = on_wire(MB), on_wire(MB, Bearer(loss_up=0.0, loss_down=0.0, longer_bytes=20))
    assert long.bytes - short.bytes == pytest.approx(20 * short.datagrams, abs=20)


def test_losses_cost_requests_and_some_pieces_twice() -> None:
    clean, lossy = on_wire(MB), on_wire(MB, Bearer(loss_up=0.1, loss_down=0.1))
    assert lossy.up_bytes > clean.up_bytes
    assert 0 < lossy.down_bytes - clean.down_bytes < 40_000
    usual = on_wire(MB, Bearer())
    assert clean.bytes < usual.bytes < lossy.bytes


def test_each_datagram_or_each_session_is_rounded_as_the_tariff_says() -> None:
    wire = Wire({100: 10}, {1_000: 2})
    by_datagram = Tariff("sat", step=BillingStep.DATAGRAM, step_bytes=64)
    by_session = Tariff("sat", step=BillingStep.SESSION, step_bytes=1_000)
    assert billed_of(Tariff("sat"), wire, 1) == 3_000
    assert billed_of(by_datagram, wire, 1) == 10 * 128 + 2 * 1_024
    assert billed_of(by_session, wire, 2) == 2 * 2_000


def test_an_allowance_pays_first_and_sessions_cost_extra() -> None:
    tariff = Tariff("sat", price_per_mb_milli=5_000, allowance_bytes=MB, session_milli=7)
    assert money_milli(tariff, 2 * MB, 3, billed_before=500_000) == 7_500 + 21
    assert money_milli(tariff, 2 * MB, 0, billed_before=5 * MB) == 10_000


def test_the_time_is_that_of_the_best_hour_over_the_hours_that_the_link_is_there() -> None:
    wire = Wire({}, {1_000: 10_000})
    bearer = Bearer(best_hour_bytes=5 * MB, contact_hours_a_day=0.5)
    assert transfer_s(wire, bearer) == 7_200
    assert days_of_contact(wire, bearer) == 4.0
    assert transfer_s(wire, Bearer()) is None
    assert days_of_contact(wire, Bearer()) is None


def budget_of(budget: Budget, *, used: int = 0, day: int = 0, a_day: int = 0) -> tuple[LinkBudget, int]:
    """Return the budget of a satellite link on a day of November that used so much a day before."""
    config = Config(
        document=DocumentKind.CONFIG,
        version=1,
        issued_s=0,
        expires_s=1,
        addressee=Addressee(("ke-arrow",)),
        budgets=(budget,),
    )
    now_ms = NOVEMBER_MS + day * DAY_MS
    plan = LinkPlan.of(terms_of(config, "ke-arrow", "sat"), now_ms)
    history = {now_ms // DAY_MS - ago: DayUse(a_day, 1, a_day) for ago in range(1, 57)}
    return link_budget(plan, history, DayUse(used, 1, used), now_ms=now_ms, begun_ms=0), now_ms


def days(budget: Budget, billed: int, **state: int) -> float | None:
    found, now_ms = budget_of(budget, **state)
    spent = {Precedence.NORMAL: state.get("used", 0)}
    return days_of_budget(found, spent, billed, Precedence.BULK, now_ms)


def test_what_the_budget_holds_goes_at_once_and_what_it_does_not_waits_for_the_next_period() -> None:
    assert days(Budget("sat"), 900 * MB) == 0.0
    assert days(Budget("sat", 30 * MB), 20 * MB) == 0.0
    assert days(Budget("sat", 30 * MB), 20 * MB, used=25 * MB, day=20) == pytest.approx(10.0, abs=0.2)


def test_what_the_truck_uses_anyway_and_what_is_kept_for_others_is_not_there() -> None:
    # 1 MB a day of 30: nothing is ever left over, but in the last moments of each month.
    busy = days(Budget("sat", 31 * MB), 5 * MB, a_day=MB)
    assert busy == 0.0  # what is there now may be used now
    kept = Budget("sat", 30 * MB, shares=Shares(20, 60, 0))
    assert days(kept, 5 * MB) == 0.0
    late = days(kept, 10 * MB)
    assert late is not None
    assert 28 < late < 30  # in the last twentieth nothing is kept any more


def test_an_even_pace_makes_it_wait_until_that_much_of_the_period_is_over() -> None:
    assert days(Budget("sat", 30 * MB, burst_percent=0), 10 * MB) == pytest.approx(10.0, abs=0.3)


def test_more_than_years_of_budget_is_never() -> None:
    assert days(Budget("sat", MB), 900 * MB) is None
