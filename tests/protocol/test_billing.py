"""Billing: periods by the local calendar, steps, sessions, allowance, roaming; worst cases are never too low."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.billing import (
    Cost,
    Place,
    Price,
    Session,
    billing_period,
    civil,
    cost_of,
    day_number,
    is_free,
    next_free,
    paid_room,
    price_at,
    worst_cost,
)
from protocol.tariffs import BillingPeriod, BillingStep, Box, Roaming, Tariff
from protocol.windows import parse_windows, utc

ZONES = ("Africa/Nairobi", "Africa/Kinshasa", "Europe/Berlin", "America/Sao_Paulo", "UTC")
EXACT = Tariff("sat", price_per_mb_milli=5_000)
PER_SESSION = Tariff("sat", price_per_mb_milli=5_000, session_milli=20, step=BillingStep.SESSION, step_bytes=1_000)
PER_DATAGRAM = Tariff("sat", price_per_mb_milli=5_000, step=BillingStep.DATAGRAM, step_bytes=50, least_bytes=100)


def zoned(zone: str):  # type: ignore[no-untyped-def]
    return lambda at_s: round(datetime.fromtimestamp(at_s, ZoneInfo(zone)).utcoffset().total_seconds())  # type: ignore[union-attr]


def price(tariff: Tariff) -> Price:
    found = price_at(tariff, Place())
    assert found is not None
    return found


@given(st.integers(-700_000, 1_000_000))
def test_day_numbers_are_the_calendars(days: int) -> None:
    year, month, day = civil(days)
    assert day_number(year, month, day) == days
    if year >= 1:
        assert date(1970, 1, 1) + timedelta(days=days) == date(year, month, day)


@given(
    st.sampled_from(BillingPeriod),
    st.integers(1, 31),
    st.sampled_from(ZONES),
    st.integers(1_600_000_000, 2_100_000_000),
)
def test_periods_hold_their_instants_and_follow_one_another(
    kind: BillingPeriod, day: int, zone: str, now_s: int
) -> None:
    tariff, offset = Tariff("sat", period=kind, billing_day=day, zone=zone), zoned(zone)
    period = billing_period(tariff, now_s, offset)
    assert period.starts_s <= now_s < period.ends_s
    assert billing_period(tariff, period.starts_s, offset) == period
    assert billing_period(tariff, period.ends_s - 1, offset) == period
    after = billing_period(tariff, period.ends_s, offset)
    assert after.starts_s == period.ends_s
    assert after.number > period.number
    first = datetime.fromtimestamp(period.starts_s, ZoneInfo(zone))
    assert int(first.strftime("%Y%m%d")) == period.number
    if kind is BillingPeriod.MONTH:
        assert first.day == min(day, calendar.monthrange(first.year, first.month)[1])
    if kind is BillingPeriod.WEEK:
        assert first.isoweekday() == min(day, 7)


def test_a_billing_day_in_nairobi_begins_at_nine_in_the_evening_utc() -> None:
    tariff = Tariff("sat", billing_day=15, zone="Africa/Nairobi")
    now_s = int(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp())
    period = billing_period(tariff, now_s, zoned("Africa/Nairobi"))
    assert period.number == 2026_11_15
    assert datetime.fromtimestamp(period.starts_s, UTC) == datetime(2026, 11, 14, 21, tzinfo=UTC)
    assert datetime.fromtimestamp(period.ends_s, UTC) == datetime(2026, 12, 14, 21, tzinfo=UTC)


def test_bytes_cost_what_a_megabyte_costs() -> None:
    cost, _ = cost_of(EXACT, price(EXACT), Session(), 1_000_000, 0.0, billed_before=0)
    assert cost == Cost(1_000_000, 5 * 10**9)


def test_each_datagram_is_rounded_up() -> None:
    sizes = (1, 100, 101, 150)
    costs = [cost_of(PER_DATAGRAM, price(PER_DATAGRAM), Session(), each, 0.0, billed_before=0)[0] for each in sizes]
    assert [each.billed for each in costs] == [100, 100, 150, 150]


def test_a_session_is_rounded_up_once_and_ends_by_silence() -> None:
    session, costs = Session(), []
    for at_s, size in ((0.0, 400), (60.0, 500), (100.0, 200), (161.0, 1)):
        cost, session = cost_of(PER_SESSION, price(PER_SESSION), session, size, at_s, billed_before=0)
        costs.append(cost)
    assert [each.billed for each in costs] == [1_000, 0, 1_000, 1_000]
    assert [each.nano for each in costs] == [5_000_000 + 20_000_000, 0, 5_000_000, 25_000_000]
    assert paid_room(PER_SESSION, session, 200.0) == 999
    assert paid_room(PER_SESSION, session, 222.0) == 0
    assert paid_room(EXACT, session, 200.0) == 0


def test_what_is_included_costs_nothing_until_it_is_used_up() -> None:
    tariff = Tariff("sat", price_per_mb_milli=5_000, allowance_bytes=1_000)
    assert cost_of(tariff, price(tariff), Session(), 600, 0.0, billed_before=0)[0].nano == 0
    assert cost_of(tariff, price(tariff), Session(), 600, 0.0, billed_before=600)[0] == Cost(600, 200 * 5_000)


def test_nothing_is_billed_in_a_free_window_but_the_session_goes_on() -> None:
    cost, session = cost_of(PER_SESSION, price(PER_SESSION), Session(), 400, 5.0, billed_before=0, free=True)
    assert (cost, session) == (Cost(), Session(400, 5.0))


@given(
    st.sampled_from(BillingStep),
    st.integers(1, 2_000),
    st.integers(0, 2_000),
    st.integers(1, 100),
    st.integers(0, 5_000),
    st.lists(st.tuples(st.integers(28, 1_500), st.integers(0, 60)), min_size=1, max_size=6),
)
def test_the_worst_case_is_never_too_low(
    step: BillingStep, step_bytes: int, least: int, idle_s: int, allowance: int, sent: list[tuple[int, int]]
) -> None:
    tariff = Tariff("sat", "USD", 7, 3, step, step_bytes, least, idle_s, allowance)
    session, at_s, total = Session(5, 0.0), 0.0, Cost()
    for size, pause_s in sent:
        at_s += pause_s
        cost, session = cost_of(tariff, price(tariff), session, size, at_s, billed_before=total.billed)
        total += cost
    worst = worst_cost(tariff, price(tariff), sum(size for size, _ in sent), len(sent), at_s, billed_before=0)
    assert total.billed <= worst.billed
    assert total.nano <= worst.nano


ABROAD = Tariff(
    "lte",
    price_per_mb_milli=10,
    roaming=(Roaming((640,), (), 200, 5), Roaming((641, 646)), Roaming((), (Box(-150, 2_925, 430, 3_500),), 300)),
)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place(639), Price(10, 0)),
        (Place(640), Price(200, 5_000_000)),
        (Place(646), None),
        (Place(None, 30, 3_258), Price(300, 0)),  # Kampala
        (Place(None, -129, 3_682), Price(10, 0)),  # Nairobi
        (Place(639, 30, 3_258), Price(300, 0)),
        (Place(), Price(300, 5_000_000)),
    ],
)
def test_the_place_picks_the_price_and_none_known_is_the_dearest(place: Place, expected: Price | None) -> None:
    assert price_at(ABROAD, place) == expected


def test_local_offsets_are_values() -> None:
    assert billing_period(Tariff("sat"), 0, utc).starts_s == 0


@given(st.integers(1_793_491_200, 1_793_491_200 + 14 * 86_400), st.sampled_from(ZONES))
def test_what_waits_for_a_free_window_is_free_when_it_goes(now_s: int, zone: str) -> None:
    tariff = Tariff("sat", price_per_mb_milli=5_000, free=parse_windows("mon-fri 22:00-06:00; sun 08:00-08:30"))
    offset = zoned(zone)
    at_s = next_free(tariff, now_s, offset)
    assert at_s is not None
    assert is_free(tariff, at_s, offset)
    # Nothing earlier was free, to the minute.
    assert not any(is_free(tariff, each, offset) for each in range(now_s, at_s - 60, 60))


def test_without_free_windows_nothing_is_waited_for() -> None:
    assert next_free(EXACT, 1_793_491_200, utc) is None
