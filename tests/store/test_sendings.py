"""An attempt is counted before a sending and once for all that are under way; only deaths and refusals stay counted."""

from __future__ import annotations

import pytest

from protocol.numbers import PARCEL_ATTEMPTS_MAX, ParcelKind, Precedence, Refusal
from store.lived import Lived
from store.parcels import ParcelQueue
from store.sendings import Sendings


@pytest.fixture
def epoch(database, seal) -> int:
    queue = ParcelQueue(database, "ke-arrow")
    queue.add(ParcelKind.EVENT, Precedence.NORMAL, b"payload", seal, 1)
    return queue.epoch


def sendings_of(database) -> Sendings:
    return Sendings(database, Lived(database, lambda: 1.0))


def counted(database) -> int:
    return database.value("SELECT attempts FROM parcels WHERE sequence = 1")


def test_sendings_that_overlap_are_one_attempt(database, epoch) -> None:
    sendings = sendings_of(database)
    for _ in range(3 * PARCEL_ATTEMPTS_MAX):
        assert sendings.begin(epoch, [1], 2) == (1,)
        assert counted(database) == 1
    for left in reversed(range(3 * PARCEL_ATTEMPTS_MAX)):
        sendings.end(epoch, [1])
        assert counted(database) == (left > 0)


def test_an_end_without_a_beginning_changes_nothing_for_the_next(database, epoch) -> None:
    sendings = sendings_of(database)
    sendings.end(epoch, [1])
    assert sendings.begin(epoch, [1], 2) == (1,)
    assert counted(database) == 1


def test_deaths_of_the_daemon_stay_counted_and_put_a_parcel_aside(database, epoch) -> None:
    for death in range(PARCEL_ATTEMPTS_MAX):
        assert sendings_of(database).begin(epoch, [1], 2) == (1,)
        assert counted(database) == death + 1
    assert sendings_of(database).begin(epoch, [1], 2) == ()


def test_a_parcel_that_is_under_way_at_its_last_attempt_may_go_over_another_link_too(database, epoch) -> None:
    for _ in range(PARCEL_ATTEMPTS_MAX - 1):
        sendings_of(database).begin(epoch, [1], 2)
    sendings = sendings_of(database)
    assert sendings.begin(epoch, [1], 2) == (1,)
    assert sendings.begin(epoch, [1], 2) == (1,)
    assert counted(database) == PARCEL_ATTEMPTS_MAX


def test_a_refusal_counts_beside_what_is_under_way(database, epoch) -> None:
    sendings = sendings_of(database)
    sendings.begin(epoch, [1], 2)
    assert sendings.refuse(epoch, 1, Refusal.UNKNOWN_EPOCH, 2) == 0
    sendings.end(epoch, [1])
    assert counted(database) == 1
    assert sendings.refuse(epoch, 1, Refusal.MALFORMED, 2) == 1
    assert sendings.begin(epoch, [1], 2) == ()
