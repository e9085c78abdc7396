"""The choice of a link as the truck makes it: what is up, budgets, habits and conditions, put to the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.choice import Choice
from edge.config import LinkSettings
from edge.linkbudget import LinkBudget, apply_terms
from protocol.numbers import Precedence
from protocol.refusals import Reason
from protocol.scheduler import FINE, Conditions, Work
from protocol.tariffs import Budget, Tariff
from protocol.terms import Terms
from store.links import open_links

FLASH, PRIORITY, NORMAL, BULK = Precedence
NOW_S = 1_796_000_000


class Clock:
    up_s = 10_000.0

    def monotonic(self) -> float:
        return self.up_s

    def wall_s(self) -> float | None:
        return NOW_S + self.up_s


class Habits:
    found: Conditions = FINE
    contacts: dict[str, float]

    def conditions(self) -> Conditions:
        return self.found

    def contact_s(self, link: str) -> float | None:
        return self.contacts.get(link)


class Link:
    def __init__(self, budget: LinkBudget) -> None:
        self.name, self.settings = budget.name, LinkSettings(name=budget.name)
        self.usable, self.down_since, self.rests_until, self.resting = True, 0.0, 0.0, False
        self._budget = budget

    def affordable(self, precedence: Precedence) -> bool:
        return self._budget.refusal(precedence, 1_000) is None

    def falls(self, since_s: float) -> None:
        self.usable, self.resting, self.down_since, self.rests_until = False, True, since_s, since_s + 20_000


class Truck:
    def __init__(self, folder: Path) -> None:
        self.clock, self.habits = Clock(), Habits()
        self.habits.contacts = {}
        self.store = open_links(folder / "links.db", {})
        terms = [
            Terms(Tariff("sat", "USD", 5_000), Budget("sat", 20_000, None, 5_000)),
            Terms(Tariff("depot"), Budget("depot")),
        ]
        budgets = {
            each.tariff.link: LinkBudget(
                each, self.store.ledger, wall_s=self.clock.wall_s, monotonic=self.clock.monotonic
            )
            for each in terms
        }
        apply_terms(budgets, self.store.ledger, terms)
        self.sat, self.depot = (Link(each) for each in budgets.values())
        self.choice = Choice(
            [self.sat, self.depot],
            budgets,
            self.clock,
            self.habits,
            patience_s=900.0,  # type: ignore[arg-type]
        )

    def why(
        self, link: Link, precedence: Precedence, deadline_s: int | None = None
    ) -> tuple[Reason, int | None] | None:
        found = self.choice.why(link, Work(precedence), deadline_s=deadline_s)
        return None if found is None else (found.reason, found.until_s)


@pytest.fixture
def truck(tmp_path: Path) -> Iterator[Truck]:
    truck = Truck(tmp_path)
    yield truck
    truck.store.close()


def test_while_the_depot_is_up_the_satellite_is_for_nobody(truck: Truck) -> None:
    assert all(truck.why(truck.depot, each) is None for each in Precedence)
    assert {truck.why(truck.sat, each) for each in Precedence} == {(Reason.CHEAPER, None)}


def test_bulk_waits_for_the_usual_visit_if_its_deadline_allows(truck: Truck) -> None:
    truck.depot.falls(0.0)
    truck.habits.contacts = {"depot": 3 * 86_400.0}
    here = int(NOW_S + truck.clock.up_s)
    assert truck.why(truck.sat, NORMAL) is None
    assert truck.why(truck.sat, BULK) == (Reason.CONTACT, here + 3 * 86_400)
    assert truck.why(truck.sat, BULK, here + 4 * 86_400) == (Reason.CONTACT, here + 3 * 86_400)
    assert truck.why(truck.sat, BULK, here + 2 * 86_400) is None
    assert truck.why(truck.depot, BULK) == (Reason.DOWN, NOW_S + 20_000)


def test_patience_is_told_as_an_instant(truck: Truck) -> None:
    truck.depot.falls(truck.clock.up_s - 300)
    assert truck.why(truck.sat, NORMAL) == (Reason.CHEAPER, int(NOW_S + truck.clock.up_s) + 600)
    assert truck.why(truck.sat, PRIORITY) is None


def test_a_budgets_own_reason_reaches_people(truck: Truck) -> None:
    truck.depot.falls(0.0)
    truck.store.ledger.charge("sat", NORMAL, "batch", "sent", 15_000, period=202611)
    found = truck.why(truck.sat, NORMAL)
    assert found is not None
    assert found[0] is Reason.RESERVE
    assert truck.why(truck.sat, FLASH) is None


def test_a_low_battery_stops_bulk_everywhere(truck: Truck) -> None:
    truck.habits.found = Conditions(low_for_bulk=True, channel="solar.soc")
    assert truck.why(truck.depot, BULK) == (Reason.POWER, None)
    assert truck.why(truck.depot, NORMAL) is None
