"""Every request is paid for before it leaves; what nobody paid for does not leave; late answers count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.linkbudget import EXCHANGE_BYTES_MIN, LinkBudget
from edge.spending import Charge, Spending, Unmetered
from protocol.budget import Cap
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from protocol.tariffs import Budget, Tariff
from protocol.terms import Terms
from store.coapmeter import Datagram, Direction
from store.ledger import Ledger
from store.links import Links, open_links

PERIOD = 202611
NOW_S = 1_795_996_800.0  # 2026-11-30
GATEWAY = ("192.0.2.1", 5683)


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Links]:
    links = open_links(tmp_path / "links.db", {"sat": Cap(10_000, 2_000)})
    yield links
    links.close()


@pytest.fixture
def ledger(links: Links) -> Ledger:
    return links.ledger


@pytest.fixture
def spending(ledger: Ledger) -> Spending:
    terms = Terms(Tariff("sat"), Budget("sat", 10_000, None, 2_000))
    return Spending(LinkBudget(terms, ledger, wall_s=lambda: NOW_S, monotonic=lambda: 5.0))


def datagram(size: int, account: object, direction: Direction = Direction.SENT) -> Datagram:
    return Datagram(direction, size, GATEWAY, account)


def booked(ledger: Ledger) -> dict[tuple[str, str], int]:
    return {(each.cause, each.direction): each.bytes_ip for each in ledger.totals()}


def test_a_request_is_booked_as_what_it_took(spending: Spending, ledger: Ledger) -> None:
    charge = spending.open(Precedence.NORMAL, "batch", request_bytes=500, answer_bytes=100)
    spending.before_send(datagram(560, charge))
    spending.on_datagram(datagram(560, charge))
    spending.on_datagram(datagram(90, charge, Direction.RECEIVED))
    assert ledger.booked("sat") == 0
    spending.settle(charge)
    assert booked(ledger) == {("batch", "sent"): 560, ("batch", "received"): 90}
    assert ledger.booked("sat") == 650
    assert ledger.left("sat", Precedence.NORMAL, period=PERIOD) == 10_000 - 2_000 - 650


def test_what_no_charge_covers_does_not_leave(spending: Spending) -> None:
    with pytest.raises(BudgetExceededError, match="not reserved"):
        spending.before_send(datagram(50, None))
    charge = spending.open(Precedence.NORMAL, "batch", request_bytes=100, answer_bytes=100)
    spending.before_send(datagram(charge.reservation.bytes_max, charge))  # type: ignore[union-attr]
    spending.on_datagram(datagram(600, charge))
    with pytest.raises(BudgetExceededError):
        spending.before_send(datagram(1_000, charge))
    spending.settle(charge)
    with pytest.raises(BudgetExceededError):
        spending.before_send(datagram(1, charge))


def test_what_comes_unasked_is_a_strangers(spending: Spending, ledger: Ledger) -> None:
    spending.on_datagram(datagram(77, None, Direction.RECEIVED))
    assert booked(ledger) == {("stranger", "received"): 77}


def test_what_comes_after_settling_is_booked_as_it_comes(spending: Spending, ledger: Ledger) -> None:
    charge = spending.open(Precedence.FLASH, "event", request_bytes=100, answer_bytes=100)
    spending.settle(charge)
    spending.settle(charge)  # once is enough
    spending.on_datagram(datagram(60, charge, Direction.RECEIVED))
    (total,) = ledger.totals()
    assert (total.precedence, total.cause, total.bytes_ip) == (Precedence.FLASH, "event", 60)


async def test_a_request_that_was_given_up_holds_its_worst_case_until_no_answer_can_come(
    spending: Spending, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.spending._LATE_S", 0.1)
    charge = spending.open(Precedence.NORMAL, "batch", request_bytes=500, answer_bytes=100)
    spending.on_datagram(datagram(560, charge))
    spending.abandon(charge)
    assert charge.reservation is not None
    assert ledger.left("sat", Precedence.NORMAL, period=PERIOD) == 8_000 - charge.reservation.bytes_max
    spending.on_datagram(datagram(90, charge, Direction.RECEIVED))
    await asyncio.sleep(0.2)
    assert booked(ledger) == {("batch", "sent"): 560, ("batch", "received"): 90}
    assert ledger.left("sat", Precedence.NORMAL, period=PERIOD) == 8_000 - 650


async def test_closing_settles_what_waits_for_late_answers(spending: Spending, ledger: Ledger) -> None:
    charge = spending.open(Precedence.NORMAL, "batch", request_bytes=500, answer_bytes=100)
    spending.on_datagram(datagram(560, charge))
    spending.abandon(charge)
    spending.close()
    assert ledger.booked("sat") == 560
    spending.close()


def test_only_flash_may_touch_the_reserve_and_nobody_passes_the_cap(spending: Spending) -> None:
    charges: list[Charge] = []

    def spend_all(precedence: Precedence) -> None:
        while True:
            charges.append(spending.open(precedence, "event", request_bytes=100, answer_bytes=100))

    with pytest.raises(BudgetExceededError):
        spend_all(Precedence.NORMAL)
    assert 7_000 < sum(charge.reservation.bytes_max for charge in charges if charge.reservation) <= 8_000
    assert not spending.affordable(Precedence.PRIORITY)
    assert spending.affordable(Precedence.FLASH)
    with pytest.raises(BudgetExceededError):
        spend_all(Precedence.FLASH)
    assert 9_000 < sum(charge.reservation.bytes_max for charge in charges if charge.reservation) <= 10_000


def test_a_small_exchange_is_never_more_than_is_asked_for_first(spending: Spending) -> None:
    charge = spending.open(Precedence.FLASH, "hello", request_bytes=20, answer_bytes=200)
    assert charge.reservation is not None
    assert charge.reservation.bytes_max <= EXCHANGE_BYTES_MIN


def test_joining_costs_nothing_that_is_counted() -> None:
    joining = Unmetered()
    charge = joining.open(Precedence.PRIORITY, "enrol", request_bytes=1, answer_bytes=1)
    joining.before_send(datagram(9_000, charge))
    joining.on_datagram(datagram(9_000, charge))
    joining.abandon(charge)
    joining.settle(charge)
    joining.close()
    assert joining.affordable(Precedence.BULK)
