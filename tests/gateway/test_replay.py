"""A replay decides as a truck does: cheapest first, waits where waiting pays, and never spends beyond a cap."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.replay import Item, LinkRecord, Replayed, replay
from gateway.terms import links_of, terms_of
from protocol.documents import Addressee, Config
from protocol.numbers import DocumentKind, Precedence
from protocol.tariffs import BillingPeriod, Budget, Tariff
from protocol.windows import parse_windows

HOUR_S, DAY_S = 3_600, 86_400
START_S = 1_793_491_200  # 1 November 2026, a Sunday, 00:00 UTC
SAT, LTE = Tariff("sat", price_per_mb_milli=5_000), Tariff("lte", price_per_mb_milli=10)


def policy(**parts: Any) -> Config:
    parts.setdefault("tariffs", (SAT, LTE))
    return Config(
        document=DocumentKind.CONFIG, version=1, issued_s=0, expires_s=1, addressee=Addressee(("ke-arrow",)), **parts
    )


def run(
    items: list[Item], config: Config, *, lte_hours: range = range(0), days: int = 3, **options: Any
) -> dict[str, Any]:
    """Replay with a satellite that is always there and a 4G in some hours; return what came of it."""
    records = {
        "lte": LinkRecord(frozenset(START_S + hour * HOUR_S for hour in lte_hours), 50_000_000),
        "sat": LinkRecord(frozenset(), 5_000_000),
    }
    terms = {link: terms_of(config, "ke-arrow", link) for link in links_of(config)}
    found: Replayed = replay(
        items,
        records,
        terms,
        since_s=START_S,
        until_s=START_S + days * DAY_S,
        always=frozenset({"sat"}),
        **options,
    )
    return {each.link: each for each in found.links} | {each.precedence.name: each for each in found.outcomes}


def item(precedence: Precedence, size: int, hour: float = 0.0) -> Item:
    return Item(precedence, START_S + int(hour * HOUR_S), size, None)


def test_what_is_urgent_takes_the_satellite_and_what_can_wait_waits_for_the_cheap_link() -> None:
    items = [item(Precedence.PRIORITY, 1_000), item(Precedence.BULK, 2_000_000)]
    found = run(items, policy(), lte_hours=range(5, 9), no_bulk=frozenset({"sat"}))
    assert (found["sat"].carried_bytes, found["lte"].carried_bytes) == (1_000, 2_000_000)
    assert (found["PRIORITY"].median_s, found["BULK"].median_s) == (300, 5 * HOUR_S + 300)
    assert (found["sat"].money_milli, found["lte"].money_milli) == (5, 20)


def test_normal_gives_up_waiting_after_its_patience() -> None:
    found = run([item(Precedence.NORMAL, 1_000)], policy(), patience_s=7_200)
    assert found["NORMAL"].median_s == 7_500
    assert found["sat"].carried_bytes == 1_000


def test_a_cap_is_never_exceeded_and_what_it_leaves_out_goes_in_the_next_period() -> None:
    daily = Tariff("sat", price_per_mb_milli=5_000, period=BillingPeriod.DAY)
    config = policy(tariffs=(daily, LTE), budgets=(Budget("sat", 100_000, reserve_bytes=20_000),))
    items = [item(Precedence.NORMAL, 2_000, hour / 10) for hour in range(100)]
    found = run(items, config, days=1, patience_s=0)
    assert found["sat"].billed_bytes <= 80_000
    assert found["NORMAL"].arrived == 40
    later = run(items, config, days=2, patience_s=0)
    assert later["NORMAL"].arrived == 80


def test_a_free_window_is_waited_for_by_what_can_wait() -> None:
    free = Tariff("sat", price_per_mb_milli=5_000, free=parse_windows("daily 20:00-23:00"))
    found = run([item(Precedence.BULK, 500_000)], policy(tariffs=(free,)))
    assert (found["sat"].money_milli, found["sat"].carried_bytes) == (0, 500_000)
    assert found["BULK"].median_s >= 20 * HOUR_S


def test_an_even_pace_spreads_what_would_be_spent_at_once() -> None:
    config = policy(tariffs=(SAT,), budgets=(Budget("sat", 3_000_000, burst_percent=0),))
    found = run([item(Precedence.NORMAL, 10_000, hour / 10) for hour in range(100)], config, patience_s=0)
    assert found["NORMAL"].arrived_bytes <= 310_000
    assert found["NORMAL"].p95_s > DAY_S


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(Precedence), st.integers(1, 50_000), st.floats(0, 40)), max_size=30),
    st.integers(0, 200_000),
    st.integers(0, 50_000),
)
def test_whatever_is_wanted_no_cap_breaks(wanted: list[tuple[Precedence, int, float]], cap: int, reserve: int) -> None:
    config = policy(tariffs=(SAT,), budgets=(Budget("sat", cap, reserve_bytes=min(cap, reserve)),))
    items = [item(precedence, size, hour) for precedence, size, hour in wanted]
    found = run(items, config, days=2, patience_s=0)
    if "sat" in found:
        assert found["sat"].billed_bytes <= cap
    assert all(each.arrived <= each.items for name, each in found.items() if name.isupper())
