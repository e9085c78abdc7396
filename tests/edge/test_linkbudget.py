"""A link's budget on the truck: what a datagram costs by its tariff, and why a precedence is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edge.linkbudget import LinkBudget, apply_terms, caps_of
from edge.reasons import describe, explain
from edge.spending import Spending, doubted, take_account
from protocol.billing import Place
from protocol.numbers import Precedence
from protocol.refusals import Reason, RefusedByBudgetError
from protocol.scheduler import LinkView
from protocol.tariffs import BillingPeriod, BillingStep, Budget, Roaming, Shares, Tariff
from protocol.terms import Terms
from protocol.windows import parse_windows
from store.coapmeter import Datagram, Direction
from store.links import Links, open_links
from store.zones import UnknownZoneError

FLASH, PRIORITY, NORMAL, BULK = Precedence
NAIROBI = ZoneInfo("Africa/Nairobi")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=NAIROBI).timestamp()


class Truck:
    """A link's budget with a clock and a place to set."""

    def __init__(self, links: Links, terms: Terms) -> None:
        self.now: float | None = at("2026-12-01T12:00")
        self.up_s = 100.0
        self.at = Place()
        self.ledger = links.ledger
        self.budget = LinkBudget(
            terms, links.ledger, wall_s=lambda: self.now, monotonic=lambda: self.up_s, place=lambda: self.at
        )
        apply_terms({"sat": self.budget}, links.ledger, [terms])
        self.spending = Spending(self.budget)

    def exchange(self, precedence: Precedence, sent: int, received: int) -> None:
        charge = self.spending.open(precedence, "batch", request_bytes=sent, answer_bytes=received)
        for direction, size in ((Direction.SENT, sent), (Direction.RECEIVED, received)):
            self.spending.on_datagram(Datagram(direction, size, ("192.0.2.1", 1), charge))
        self.spending.settle(charge)

    def why(self, precedence: Precedence) -> str:
        refusal = self.budget.refusal(precedence, 1_000)
        return "" if refusal is None else explain(refusal, self.budget.terms.tariff, self.now)


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Links]:
    links = open_links(tmp_path / "links.db", {}, slice_bytes=1_000)
    yield links
    links.close()


MONTHLY = Tariff("sat", "USD", 5_000, billing_day=15, zone="Africa/Nairobi")


def test_sessions_and_steps_are_billed_as_the_provider_does(links: Links) -> None:
    tariff = Tariff("sat", "USD", 5_000, 100, BillingStep.SESSION, 1_000, session_idle_s=60)
    truck = Truck(links, Terms(tariff, Budget("sat", 100_000)))
    truck.exchange(NORMAL, 300, 100)
    truck.exchange(NORMAL, 300, 200)  # the same session: 900 bytes of the first 1,000
    truck.up_s += 61
    truck.exchange(NORMAL, 300, 200)
    assert sum(each.bytes_ip for each in truck.ledger.totals()) == 1_400
    assert truck.ledger.booked("sat") == 2_000
    assert truck.ledger.booked_nano("sat") == 2 * 100_000_000 + 2_000 * 5_000


def test_included_bytes_cost_nothing_and_the_next_ones_do(links: Links) -> None:
    truck = Truck(links, Terms(Tariff("sat", "USD", 5_000, allowance_bytes=1_000), Budget("sat", 100_000)))
    truck.exchange(NORMAL, 400, 400)
    assert truck.ledger.booked_nano("sat") == 0
    truck.exchange(NORMAL, 400, 400)
    assert truck.ledger.booked_nano("sat") == 600 * 5_000


def test_a_refusal_reads_like_a_bill(links: Links) -> None:
    truck = Truck(links, Terms(MONTHLY, Budget("sat", 30_000_000, None, 1_200_000)))
    truck.ledger.charge("sat", NORMAL, "batch", "sent", 28_799_500, period=truck.budget.period())
    assert truck.why(NORMAL) == "1.2 MB of 30 MB left are flash's reserve; new period on 15 Dec 00:00 Africa/Nairobi"
    assert truck.why(FLASH) == ""
    with pytest.raises(RefusedByBudgetError, match="reserve"):
        truck.exchange(NORMAL, 500, 500)
    truck.now = at("2026-12-15T00:00")
    assert truck.why(NORMAL) == ""
    truck.exchange(NORMAL, 500, 500)
    assert truck.ledger.booked("sat") == 1_000


def test_shares_and_pace_refuse_with_the_time_at_which_there_is_more(links: Links) -> None:
    budget = Budget("sat", 100_000, None, 10_000, shares=Shares(20, 0, 0), burst_percent=10)
    truck = Truck(links, Terms(Tariff("sat", period=BillingPeriod.DAY, zone="Africa/Nairobi"), budget))
    truck.now = at("2026-12-01T00:00")
    truck.ledger.charge("sat", NORMAL, "batch", "sent", 7_000, period=truck.budget.period())
    refusal = truck.budget.refusal(NORMAL, 1_000)
    assert refusal is not None
    assert (refusal.reason, refusal.left) == (Reason.PACE, 200)
    assert truck.budget.left_bytes(NORMAL) == 200
    assert truck.budget.refusal(PRIORITY, 1_000) is None
    truck.now += 3_600
    assert truck.budget.refusal(NORMAL, 1_000) is None


def test_outside_of_its_hours_a_link_carries_flash_alone(links: Links) -> None:
    hours = parse_windows("mon-fri 08:00-18:00")
    truck = Truck(links, Terms(Tariff("sat", zone="Africa/Nairobi", hours=hours), Budget("sat")))
    truck.now = at("2026-12-05T12:00")  # a Saturday
    assert truck.why(NORMAL) == "the link is used mon-fri 08:00-18:00; opens on 7 Dec 08:00 Africa/Nairobi"
    assert truck.why(FLASH) == ""
    truck.now = None  # it cannot know
    assert truck.why(NORMAL) == ""


def test_free_windows_bill_nothing_and_bulk_is_told_of_them(links: Links) -> None:
    free = parse_windows("daily 22:00-06:00")
    truck = Truck(links, Terms(Tariff("sat", "USD", 5_000, zone="Africa/Nairobi", free=free), Budget("sat", 5_000)))
    view = truck.budget.view(LinkView("sat", 0.0, True), BULK)
    assert (view.price, view.cheaper_s) == (5_000.0, 10 * 3_600 + 180)
    truck.now = at("2026-12-01T23:00")
    truck.exchange(BULK, 3_000, 9_000)
    assert truck.ledger.booked("sat") == 0
    assert sum(each.bytes_ip for each in truck.ledger.totals()) == 12_000
    assert truck.budget.view(LinkView("sat", 0.0, True), BULK).price == 0.0


def test_the_country_picks_the_price_or_forbids_the_link(links: Links) -> None:
    tariff = Tariff("sat", "USD", 10, roaming=(Roaming((640,), (), 200), Roaming((641,))))
    truck = Truck(links, Terms(tariff, Budget("sat", None, 1_000)))
    truck.at = Place(639)
    truck.exchange(NORMAL, 500, 500)
    assert truck.ledger.booked_nano("sat") == 1_000 * 10
    truck.at = Place(640)
    truck.exchange(NORMAL, 500, 500)
    assert truck.ledger.booked_nano("sat") == 1_000 * 210
    truck.at = Place(641)
    assert truck.why(FLASH) == "the link must not be used in this country"


def test_the_gateways_account_of_the_month_is_taken_for_periods_that_began_in_it(links: Links) -> None:
    truck = Truck(links, Terms(MONTHLY, Budget("sat", 30_000)))
    truck.exchange(NORMAL, 500, 500)
    truck.ledger.doubt()
    assert "not known" in truck.why(NORMAL)
    assert not take_account([truck.budget], (("sat", 0, 8_000),))  # the period began in November
    november = int(at("2026-11-15T00:00"))
    assert doubted([truck.budget]) == (True, november)
    assert not take_account([truck.budget], (("sat", 0, 8_000),), november + 1)
    assert take_account([truck.budget], (("sat", 0, 8_000),), november)
    assert doubted([truck.budget]) == (False, None)
    truck.now = at("2026-12-20T12:00")
    truck.exchange(FLASH, 100, 100)
    truck.ledger.doubt()
    assert take_account([truck.budget], (("sat", 0, 8_000),))
    assert truck.why(NORMAL) == ""
    assert truck.ledger.booked("sat") >= 9_000


def test_an_unknown_zone_changes_nothing(links: Links) -> None:
    truck = Truck(links, Terms(MONTHLY, Budget("sat", 30_000)))
    with pytest.raises(UnknownZoneError):
        apply_terms({"sat": truck.budget}, links.ledger, [Terms(Tariff("sat", zone="Mars/Base"), Budget("sat"))])
    assert truck.budget.terms.tariff is MONTHLY
    assert caps_of([truck.budget.terms])["sat"].units_max == 30_000


def test_a_tariff_in_a_few_words() -> None:
    tariff = Tariff("sat", "USD", 5_500, allowance_bytes=10_000_000, billing_day=15, zone="Africa/Nairobi")
    assert describe(tariff) == "5.50 USD/MB, 10 MB included, month from 15 (Africa/Nairobi)"
    assert describe(Tariff("depot")) == "free"
