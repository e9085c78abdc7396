"""The scheduler's table, line by line, and what must hold whatever the links are like."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal
from protocol.scheduler import BULK_HORIZON_S, FINE, Conditions, LinkView, Work, decide, next_precedence

FLASH, PRIORITY, NORMAL, BULK = Precedence
HOUR_S, DAY_S = 3_600.0, 86_400.0
PATIENCE_S = 900.0
SAT = LinkView("sat", 5.0, True)
LTE_DOWN = LinkView("lte", 0.01, False, 10 * DAY_S)


def reason(link: LinkView, links: list[LinkView], work: Work, conditions: Conditions = FINE) -> Reason | None:
    refusal = decide(link, links, work, patience_s=PATIENCE_S, conditions=conditions)
    return None if refusal is None else refusal.reason


def test_bulk_waits_for_the_weekly_depot_visit_and_normal_does_not() -> None:
    depot = LinkView("depot", 0.0, False, 3 * DAY_S, contact_s=4 * DAY_S)
    links = [SAT, depot]
    refusal = decide(SAT, links, Work(BULK), patience_s=PATIENCE_S)
    assert refusal == Refusal(Reason.CONTACT, "sat", BULK, until_s=int(4 * DAY_S), other="depot")
    assert reason(SAT, links, Work(NORMAL)) is None
    assert reason(SAT, links, Work(FLASH)) is None


def test_a_deadline_before_the_visit_moves_bulk_forward() -> None:
    links = [SAT, LinkView("depot", 0.0, False, 3 * DAY_S, contact_s=4 * DAY_S)]
    assert reason(SAT, links, Work(BULK, deadline_s=5 * DAY_S)) is Reason.CONTACT
    assert reason(SAT, links, Work(BULK, deadline_s=5 * DAY_S, needs_s=DAY_S)) is None
    assert reason(SAT, links, Work(BULK, deadline_s=3 * DAY_S)) is None


def test_bulk_that_is_pressing_does_not_yield_to_lessons_but_to_an_empty_battery() -> None:
    lessons = Conditions(lessons=True, lessons_left_s=2 * HOUR_S)
    assert reason(SAT, [SAT], Work(BULK), lessons) is Reason.LESSONS
    assert reason(SAT, [SAT], Work(NORMAL), lessons) is None
    assert reason(SAT, [SAT], Work(BULK, deadline_s=HOUR_S, needs_s=HOUR_S), lessons) is None
    low = Conditions(low_for_bulk=True, low_for_normal=True, channel="solar.soc")
    for work in (Work(NORMAL), Work(BULK), Work(BULK, deadline_s=1.0)):
        assert reason(SAT, [SAT], work, low) is Reason.POWER
    assert reason(SAT, [SAT], Work(BULK, deadline_s=1.0), replace(low, low_for_normal=False)) is None
    assert reason(SAT, [SAT], Work(PRIORITY), low) is None


def test_what_can_wait_waits_for_the_free_window_of_its_link() -> None:
    night = replace(SAT, cheaper_s=5 * HOUR_S)
    assert reason(night, [night], Work(BULK)) is Reason.FREE_WINDOW
    assert reason(night, [night], Work(BULK, deadline_s=4 * HOUR_S)) is None
    assert reason(night, [night], Work(NORMAL)) is None  # longer than its patience
    assert reason(replace(night, cheaper_s=PATIENCE_S / 2), [night], Work(NORMAL)) is Reason.FREE_WINDOW
    assert reason(replace(night, price=0.0), [night], Work(BULK)) is None  # it is free already


def test_a_session_is_opened_for_a_full_step_or_when_patience_ran_out() -> None:
    modem = replace(SAT, opens_session=True, step_bytes=4_000)
    assert reason(modem, [modem], Work(NORMAL, waiting_bytes=500)) is Reason.CHEAPER
    assert reason(modem, [modem], Work(NORMAL, waiting_bytes=3_000)) is None
    assert reason(modem, [modem], Work(NORMAL, waiting_bytes=500, waited_s=PATIENCE_S)) is None
    assert reason(modem, [modem], Work(PRIORITY, waiting_bytes=500)) is None


def test_a_step_that_is_paid_for_is_filled_before_anything_else_is_waited_for() -> None:
    paid = replace(SAT, paid_bytes=900)
    assert reason(paid, [paid, replace(LTE_DOWN, unusable_s=0.0)], Work(NORMAL)) is None
    assert reason(paid, [paid, replace(LTE_DOWN, usable=True)], Work(NORMAL)) is None
    assert (
        reason(replace(LTE_DOWN, usable=True), [paid, replace(LTE_DOWN, usable=True)], Work(NORMAL)) is Reason.CHEAPER
    )


def test_a_cheap_link_without_content_keeps_no_content_off_the_next_one() -> None:
    lte = LinkView("lte", 0.01, True, bulk=False)
    assert reason(SAT, [SAT, lte], Work(BULK)) is None
    assert reason(SAT, [SAT, lte], Work(NORMAL)) is Reason.CHEAPER
    assert reason(lte, [SAT, lte], Work(BULK)) is Reason.NOT_BULK


def test_the_budgets_own_reason_is_passed_on() -> None:
    spent = Refusal(Reason.PACE, "sat", NORMAL, left=5)
    assert decide(replace(SAT, usable=False, refusal=spent), [SAT], Work(NORMAL), patience_s=0.0) is spent
    assert reason(LTE_DOWN, [LTE_DOWN], Work(NORMAL)) is Reason.DOWN


seconds = st.one_of(st.just(0.0), st.floats(1.0, 3 * BULK_HORIZON_S))
views = st.builds(
    LinkView,
    st.sampled_from(["sat", "lte", "depot", "usb"]),
    st.sampled_from([0.0, 0.01, 1.0, 5.0]),
    st.booleans(),
    seconds,
    st.booleans(),
    st.none(),
    st.none() | seconds,
    st.none() | seconds,
    st.booleans(),
    st.integers(0, 50_000),
    st.sampled_from([0, 0, 500]),
)
some_links = st.lists(views, min_size=1, max_size=4, unique_by=lambda each: each.name)
works = st.builds(Work, st.sampled_from(Precedence), st.none() | seconds, seconds, st.integers(0, 10**6), seconds)


@given(some_links, works)
def test_nothing_goes_over_a_link_while_a_cheaper_one_is_usable(links: list[LinkView], work: Work) -> None:
    for link in links:
        if reason(link, links, work) is None:
            cheaper = [each for each in links if each.cost < link.cost and each.usable]
            assert not [each for each in cheaper if each.bulk or work.precedence is not BULK]


@given(some_links, works)
def test_work_is_never_idle_for_longer_than_it_may_wait(links: list[LinkView], work: Work) -> None:
    """Once patience ran out and nothing cheaper is expected in time, one of the usable links carries the work."""
    later = [
        replace(
            each,
            unusable_s=max(each.unusable_s, PATIENCE_S),
            contact_s=None,
            cheaper_s=None if each.price else each.cheaper_s,
        )
        for each in links
    ]
    work = replace(work, waited_s=max(work.waited_s, PATIENCE_S))
    usable = [each for each in later if each.usable and (each.bulk or work.precedence is not BULK)]
    assert bool(usable) == any(reason(each, later, work) is None for each in later)


@given(some_links, works)
def test_what_is_waited_for_is_before_the_deadline(links: list[LinkView], work: Work) -> None:
    for link in links:
        refusal = decide(link, links, work, patience_s=PATIENCE_S)
        if refusal is not None and refusal.reason in (Reason.CONTACT, Reason.FREE_WINDOW):
            assert refusal.until_s is not None
            assert work.deadline_s is None or refusal.until_s <= work.deadline_s
            assert refusal.until_s <= BULK_HORIZON_S or work.deadline_s is not None


@given(some_links, st.sampled_from([FLASH, PRIORITY]))
def test_what_is_urgent_leaves_at_once_over_any_link_that_is_up(links: list[LinkView], precedence: Precedence) -> None:
    carried = [each for each in links if reason(each, links, Work(precedence)) is None]
    assert bool(carried) == any(each.usable for each in links)


@pytest.mark.parametrize("precedence", [NORMAL, BULK])
def test_a_session_alone_never_holds_work_back_for_ever(precedence: Precedence) -> None:
    modem = replace(SAT, opens_session=True, step_bytes=10**9)
    assert reason(modem, [modem], Work(precedence, waited_s=PATIENCE_S)) is None


def test_every_eighth_upload_is_of_who_waited_for_long_but_flash_gives_way_to_nobody() -> None:
    waiting = [(NORMAL, 9 * PATIENCE_S), (PRIORITY, 0.0), (BULK, 0.0)]
    chosen = [next_precedence(waiting, uploads=number, patience_s=PATIENCE_S) for number in range(16)]
    assert chosen.count(NORMAL) == 2
    assert chosen.count(PRIORITY) == 14
    assert next_precedence([*waiting, (FLASH, 0.0)], uploads=7, patience_s=PATIENCE_S) is FLASH
    assert next_precedence([(PRIORITY, 0.0), (NORMAL, 10.0)], uploads=7, patience_s=PATIENCE_S) is PRIORITY
    assert next_precedence([], uploads=0, patience_s=PATIENCE_S) is None
