"""Which link carries what: the whole table of `may_carry`, row by row."""

import pytest

from protocol.numbers import Precedence
from protocol.scheduler import LinkView, may_carry

PATIENCE_S = 600.0
FLASH, PRIORITY, NORMAL, BULK = Precedence
DEPOT = LinkView("depot", 0.0, usable=True)
LTE = LinkView("lte", 1.0, usable=True)
SAT = LinkView("sat", 50.0, usable=True, bulk=False)


def down(link: LinkView, for_s: float) -> LinkView:
    return LinkView(link.name, link.price, False, for_s, link.bulk)


def carried(link: LinkView, links: list[LinkView]) -> set[Precedence]:
    return {each for each in Precedence if may_carry(link, links, each, patience_s=PATIENCE_S)}


def test_the_cheapest_link_carries_all_that_it_may() -> None:
    assert carried(LTE, [LTE, SAT]) == {FLASH, PRIORITY, NORMAL, BULK}
    assert carried(SAT, [SAT]) == {FLASH, PRIORITY, NORMAL}


def test_a_dearer_link_carries_nothing_while_a_cheaper_one_is_usable() -> None:
    assert carried(SAT, [SAT, LTE]) == set()
    assert carried(SAT, [SAT, LTE, down(DEPOT, 1e9)]) == set()


@pytest.mark.parametrize(
    ("down_s", "expected"),
    [
        (0.0, {FLASH, PRIORITY}),
        (PATIENCE_S - 1, {FLASH, PRIORITY}),
        (PATIENCE_S, {FLASH, PRIORITY, NORMAL}),
        (1e9, {FLASH, PRIORITY, NORMAL}),
    ],
)
def test_what_cannot_wait_goes_at_once_and_the_rest_after_patience(down_s: float, expected: set[Precedence]) -> None:
    assert carried(SAT, [SAT, down(LTE, down_s)]) == expected


def test_patience_runs_from_the_last_cheaper_link_that_failed() -> None:
    assert NORMAL not in carried(SAT, [SAT, down(LTE, 10.0), down(DEPOT, 1e9)])
    assert NORMAL in carried(SAT, [SAT, down(LTE, PATIENCE_S), down(DEPOT, 1e9)])


def test_an_unusable_link_carries_nothing() -> None:
    assert carried(down(LTE, 5.0), [down(LTE, 5.0), SAT]) == set()


def test_links_of_one_price_both_carry() -> None:
    twin = LinkView("lte2", LTE.price, usable=True)
    for link in (LTE, twin):
        assert carried(link, [LTE, twin, SAT]) == set(Precedence)


def test_bulk_stays_off_a_link_that_may_not_carry_it_however_long_others_are_down() -> None:
    assert BULK not in carried(SAT, [SAT, down(LTE, 1e9)])
    dear_bulk = LinkView("sat", 50.0, usable=True, bulk=True)
    assert BULK not in carried(dear_bulk, [dear_bulk, down(LTE, PATIENCE_S - 1)])
