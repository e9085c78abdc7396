"""Accounts of billed bytes and of money, by link: both are promised or neither, and no change of period forgets any."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.billing import Cost
from protocol.budget import Cap, Spent
from protocol.numbers import Precedence
from protocol.refusals import Reason, RefusedByBudgetError
from protocol.tariffs import Unit
from store.ledger import RECEIVED, Ledger
from store.links import Links, open_links

FLASH, PRIORITY, NORMAL, BULK = Precedence
NOVEMBER, DECEMBER = 202611, 202612
CAPS = {"sat": Cap(None), "sat/money": Cap(1_000_000, 100_000, unit=5), "lte": Cap(50_000)}
Open = Callable[..., Links]


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Open]:
    opened: list[Links] = []

    def open_again(caps: dict[str, Cap] = CAPS, *, slice_bytes: int = 1_000) -> Links:
        if opened:
            opened[-1].database.crash()
        opened.append(open_links(tmp_path / "links.db", caps, slice_bytes=slice_bytes))
        return opened[-1]

    yield open_again
    opened[-1].database.crash()


def spend(
    ledger: Ledger,
    carried: int,
    cost: Cost,
    *,
    worst: Cost | None = None,
    precedence: Precedence = NORMAL,
    period: int | None = NOVEMBER,
    link: str = "sat",
) -> None:
    held = ledger.reserve(link, precedence, "batch", carried, period=period, cost=worst or cost)
    ledger.settle(held, sent_bytes=carried, received_bytes=0, cost=cost)


def test_what_is_carried_and_what_is_billed_are_kept_apart(links: Open) -> None:
    ledger = links().ledger
    spend(ledger, 340, Cost(1_000, 5_000), worst=Cost(2_000, 10_000))
    ledger.charge("sat", BULK, "stranger", RECEIVED, 60, period=NOVEMBER, cost=Cost(0, 0))
    assert sum(each.bytes_ip for each in ledger.totals()) == 400
    assert [(each.cause, each.cost) for each in ledger.costs()] == [("batch", Cost(1_000, 5_000))]
    assert (ledger.booked("sat"), ledger.booked_nano("sat")) == (1_000, 5_000)


def test_money_runs_out_before_bytes_do_and_says_so(links: Open) -> None:
    ledger = links().ledger
    spend(ledger, 100, Cost(100, 890_000))
    with pytest.raises(RefusedByBudgetError) as refused:
        spend(ledger, 100, Cost(100, 20_000))
    refusal = refused.value.refusal
    assert (refusal.reason, refusal.unit, refusal.left, refusal.most) == (
        Reason.RESERVE,
        Unit.MONEY,
        110_000,
        1_000_000,
    )
    assert ledger.left_nano("sat", NORMAL, period=NOVEMBER) == 10_000
    spend(ledger, 100, Cost(100, 110_000), precedence=FLASH)
    with pytest.raises(RefusedByBudgetError, match="spent"):
        spend(ledger, 1, Cost(1, 5), precedence=FLASH)


def test_a_refusal_by_one_account_takes_nothing_from_the_other(links: Open) -> None:
    ledger = links({"sat": Cap(5_000), "sat/money": Cap(1_000, unit=1)}, slice_bytes=1).ledger
    with pytest.raises(RefusedByBudgetError):
        ledger.reserve("sat", NORMAL, "batch", 10, period=NOVEMBER, cost=Cost(3_000, 2_000))
    assert ledger.left("sat", NORMAL, period=NOVEMBER) == 5_000
    spend(ledger, 10, Cost(5_000, 1_000))


def test_a_crash_counts_the_rest_of_both_slices_as_spent(links: Open) -> None:
    caps = CAPS | {"sat": Cap(500_000)}
    ledger = links(caps).ledger
    spend(ledger, 100, Cost(100, 500))
    again = links(caps).ledger
    assert (again.booked("sat"), again.booked_nano("sat")) == (1_000, 5_000)
    assert {(each.cause, each.cost.billed, each.cost.nano) for each in again.costs()} == {
        ("crash", 1_000, 5_000),
    }


def test_another_rule_of_periods_carries_over_what_was_spent_whatever_its_number(links: Open) -> None:
    opened = links()
    spend(opened.ledger, 100, Cost(100, 300_000))
    spend(opened.ledger, 100, Cost(100, 100_000), precedence=PRIORITY)
    opened.ledger.set_caps(CAPS, {"sat": "month 15 Africa/Nairobi"})
    spend(opened.ledger, 100, Cost(100, 200_000), period=2026_11_15)
    assert opened.ledger.booked_nano("sat") == 600_000
    assert opened.ledger.by_precedence("sat") == {NORMAL: Cost(200, 500_000), PRIORITY: Cost(100, 100_000)}
    opened = links()
    opened.ledger.set_caps(CAPS, {"sat": ""})  # back to calendar months, whose numbers are lower
    spend(opened.ledger, 100, Cost(100, 50_000), period=NOVEMBER)
    assert opened.ledger.booked_nano("sat") >= 650_000
    spend(opened.ledger, 100, Cost(100, 50_000), period=DECEMBER)
    assert opened.ledger.booked_nano("sat") == 50_000


def test_links_turn_their_periods_by_themselves(links: Open) -> None:
    opened = links()
    opened.ledger.set_caps(CAPS, {"sat": "day 1 UTC"})
    spend(opened.ledger, 100, Cost(100, 500), period=2026_11_30)
    spend(opened.ledger, 100, Cost(100, 500), link="lte")
    spend(opened.ledger, 100, Cost(100, 500), period=2026_12_01)
    assert (opened.ledger.booked("sat"), opened.ledger.booked("lte")) == (100, 100)
    opened.close()
    opened = links()
    opened.ledger.set_caps(CAPS, {"sat": "day 1 UTC"})
    spend(opened.ledger, 100, Cost(100, 500), period=None)
    assert opened.ledger.booked("sat") == 200


def test_the_gateways_account_is_taken_in_money_too(links: Open) -> None:
    ledger = links().ledger
    spend(ledger, 100, Cost(100, 500))
    ledger.doubt()
    assert ledger.left_nano("sat", NORMAL, period=NOVEMBER) == 0
    ledger.reconcile("sat", Spent(1_000, 20_000), period=NOVEMBER)
    # What was booked here since the last commit may be in what the gateway says, or not: it counts.
    assert ledger.booked("sat") == 21_100
    assert ledger.booked_nano("sat") == 105_500
    assert ledger.left_nano("sat", NORMAL, period=NOVEMBER) == 799_500


def test_what_is_promised_counts_for_its_precedence(links: Open) -> None:
    ledger = links().ledger
    held = ledger.reserve("sat", BULK, "content", 10, period=NOVEMBER, cost=Cost(1_000, 5_000))
    assert ledger.by_precedence("sat") == {BULK: Cost(1_000, 5_000)}
    ledger.settle(held, sent_bytes=10, received_bytes=0, cost=Cost(10, 50))
    assert ledger.by_precedence("sat") == {BULK: Cost(10, 50)}


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("spend"), st.sampled_from(Precedence), st.integers(1, 4_000), st.floats(0, 1), st.integers(0, 9)
        ),
        st.tuples(st.just("crash"), st.booleans()),
        st.tuples(st.just("rule"), st.sampled_from(["", "month 9 UTC", "week 1 UTC"])),
    ),
    max_size=30,
)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    bytes_max=st.integers(0, 30_000), money_max=st.integers(0, 200_000), slice_size=st.integers(1, 9_000), some=steps
)
def test_neither_account_passes_its_cap_through_crashes_and_changes_of_rule(
    bytes_max: int,
    money_max: int,
    slice_size: int,
    some: list[tuple],  # type: ignore[type-arg]
) -> None:
    caps = {"sat": Cap(bytes_max, bytes_max // 10), "sat/money": Cap(money_max, money_max // 10, unit=5)}
    numbers = {"": NOVEMBER, "month 9 UTC": 2026_11_09, "week 1 UTC": 2026_11_30}
    rule, spent = "", Cost()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "links.db"
        opened = open_links(path, caps, slice_bytes=slice_size)
        for step in some:
            if step[0] == "crash":
                opened.close() if step[1] else opened.database.crash()
                opened = open_links(path, caps, slice_bytes=slice_size)
                opened.ledger.set_caps(caps, {"sat": rule})
            elif step[0] == "rule":
                rule = step[1]
                opened.ledger.set_caps(caps, {"sat": rule})
            else:
                _, precedence, size, part, price = step
                worst = Cost(size, size * price)
                real = Cost(int(size * part), int(size * part) * price)
                try:
                    spend(opened.ledger, size, real, worst=worst, precedence=precedence, period=numbers[rule])
                except RefusedByBudgetError:
                    continue
                spent += real
            assert spent.billed <= bytes_max
            assert spent.nano <= money_max
        opened.close()
