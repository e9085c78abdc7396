"""The purses: what was refused rests, and each precedence has a purse of its own."""

from __future__ import annotations

from edge.purses import Purses
from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal, RefusedByBudgetError

REFUSED = RefusedByBudgetError(Refusal(Reason.RESERVE, "sat", Precedence.NORMAL))


class _Link:
    name = "sat"

    def __init__(self) -> None:
        self.holds = True

    def affordable(self, precedence: Precedence) -> bool:
        return self.holds


def test_what_the_budget_refused_is_not_asked_for_at_once() -> None:
    now = [100.0]
    purses, link = Purses(lambda: now[0]), _Link()
    purses.refused(link, Precedence.NORMAL, REFUSED, flying=False)
    assert purses.is_spent(link, Precedence.NORMAL)
    assert purses.why(link, Precedence.NORMAL) is REFUSED.refusal
    assert not purses.is_spent(link, Precedence.PRIORITY)
    assert not purses.is_spent(link, Precedence.FLASH)
    now[0] += 61
    assert not purses.is_spent(link, Precedence.NORMAL)


def test_while_something_flies_the_pause_is_short() -> None:
    now = [100.0]
    purses, link = Purses(lambda: now[0]), _Link()
    purses.refused(link, Precedence.NORMAL, REFUSED, flying=True)
    now[0] += 2
    assert not purses.is_spent(link, Precedence.NORMAL)


def test_a_budget_that_changed_is_asked_again() -> None:
    purses, link = Purses(lambda: 100.0), _Link()
    purses.refused(link, Precedence.NORMAL, REFUSED, flying=False)
    purses.ask_again()
    assert purses.spent_since(link, Precedence.NORMAL) is None


def test_since_when_a_purse_is_empty_is_remembered_until_it_is_not() -> None:
    now = [100.0]
    purses, link = Purses(lambda: now[0]), _Link()
    link.holds = False
    assert purses.spent_since(link, Precedence.BULK) == 100.0
    now[0] += 50
    assert purses.spent_since(link, Precedence.BULK) == 100.0
    link.holds = True
    assert purses.spent_since(link, Precedence.BULK) is None
