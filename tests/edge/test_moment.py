"""An open batch closes at its age, and young where that costs nothing."""

from __future__ import annotations

from edge.moment import BATCH_BYTES, FREE_AGE_S, Moment

AGE_S = 14_400.0


def test_a_batch_closes_at_its_age() -> None:
    assert not Moment().closes(300, AGE_S - 1, AGE_S)
    assert Moment().closes(300, AGE_S, AGE_S)


def test_where_it_costs_nothing_it_closes_young() -> None:
    assert Moment(is_free=True).closes(300, FREE_AGE_S, AGE_S)
    assert not Moment(is_free=True).closes(300, FREE_AGE_S - 1, AGE_S)


def test_a_step_that_is_paid_for_takes_what_fits_into_it() -> None:
    moment = Moment(paid_bytes=BATCH_BYTES + 300)
    assert moment.closes(300, FREE_AGE_S, AGE_S)
    assert not moment.closes(301, FREE_AGE_S, AGE_S)


def test_a_series_that_is_to_be_younger_still_is() -> None:
    assert Moment(is_free=True).closes(300, 60, 60)
