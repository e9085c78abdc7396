"""What was settled goes up once more when the gateway has lost it, or when it was put aside without a refusal."""

from __future__ import annotations

import pytest

from protocol.messages import Ack
from protocol.numbers import PARCEL_ATTEMPTS_MAX, RANGES_IN_ACK_MAX, ParcelKind, Precedence, Refusal
from store.again import OVERTAKEN_S, TRIED_AGAIN_S
from store.database import start_epoch
from store.parcels import DELIVERED_KEPT_S, ParcelQueue

NOW = 1_000_000


class Monotonic:
    """A clock that the tests set."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def queue(database, monotonic) -> ParcelQueue:
    return ParcelQueue(database, "ke-arrow", monotonic=monotonic)


@pytest.fixture
def add(queue, seal):
    return lambda: queue.add(ParcelKind.BATCH, Precedence.NORMAL, b"payload", seal, NOW)


def sequences(queue: ParcelQueue) -> list[int]:
    return [each.sequence for each in queue.load_window(1_000)]


def deliver(queue: ParcelQueue, add, count: int) -> None:
    for _ in range(count):
        add()
    queue.mark_delivered(Ack(cumulative=count), queue.epoch, NOW)


def test_what_a_restored_gateway_lacks_goes_up_again(queue, add, monotonic) -> None:
    deliver(queue, add, 6)
    add()
    monotonic.now_s += OVERTAKEN_S
    queue.mark_delivered(Ack(cumulative=2, ranges=((4, 4), (7, 7))), queue.epoch, NOW)
    assert sequences(queue) == [3, 5, 6]
    queue.mark_delivered(Ack(cumulative=7), queue.epoch, NOW)
    assert sequences(queue) == []


def test_what_was_delivered_under_other_epochs_goes_up_again_with_it(queue, add, database, monotonic) -> None:
    deliver(queue, add, 2)
    older = queue.epoch
    start_epoch(database, "test", NOW)
    deliver(queue, add, 3)
    monotonic.now_s += OVERTAKEN_S
    queue.mark_delivered(Ack(cumulative=1, ranges=((3, 3),)), queue.epoch, NOW)
    assert sequences(queue) == [1, 2]
    assert queue.next_epoch() == older
    queue.mark_delivered(Ack(cumulative=2), older, NOW)
    queue.mark_delivered(Ack(cumulative=3), queue.epoch, NOW)
    assert queue.next_epoch() is None


def test_what_is_kept_does_not_get_older_while_the_gateway_is_silent(queue, add, monotonic) -> None:
    deliver(queue, add, 3)
    monotonic.now_s += 10 * DELIVERED_KEPT_S
    assert queue.prune() == 0
    queue.mark_delivered(Ack(cumulative=0), queue.epoch, NOW)  # of an upload without parcels: it says nothing of them
    assert queue.prune() == 0
    queue.mark_delivered(Ack(cumulative=1, ranges=((3, 3),)), queue.epoch, NOW)
    assert queue.prune() == 2
    assert sequences(queue) == [2]


@pytest.mark.parametrize("jump_s", [-40 * 86_400, 40 * 86_400])
def test_a_clock_that_jumps_neither_takes_a_copy_away_nor_keeps_it_back(queue, add, monotonic, jump_s: int) -> None:
    deliver(queue, add, 3)
    monotonic.now_s += OVERTAKEN_S
    queue.prune()
    queue.mark_delivered(Ack(cumulative=1, ranges=((3, 3),)), queue.epoch, NOW + jump_s)
    assert sequences(queue) == [2]


def test_a_copy_that_an_earlier_version_dated_by_unix_time_is_kept_as_long_from_now_on(queue, add, database) -> None:
    deliver(queue, add, 3)
    database.update("parcels", "1 = 1", {}, closed_s=1_900_000_000)
    queue.prune()
    assert database.value("SELECT max(closed_s) FROM parcels") == 0
    assert queue.counts()[0].parcels == 3


def test_an_overtaken_acknowledgement_brings_nothing_back(queue, add, monotonic) -> None:
    deliver(queue, add, 3)
    monotonic.now_s += OVERTAKEN_S - 1
    queue.mark_delivered(Ack(cumulative=1, ranges=((3, 3),)), queue.epoch, NOW)
    assert sequences(queue) == []


def test_a_full_list_of_ranges_tells_of_no_gap(queue, add, monotonic) -> None:
    deliver(queue, add, 3 * RANGES_IN_ACK_MAX)
    monotonic.now_s += OVERTAKEN_S
    ranges = tuple((number, number) for number in range(2, 2 + 2 * RANGES_IN_ACK_MAX, 2))
    queue.mark_delivered(Ack(cumulative=0, ranges=ranges), queue.epoch, NOW)
    assert sequences(queue) == []


def test_an_acknowledgement_of_another_epoch_brings_nothing_back(queue, add, monotonic) -> None:
    deliver(queue, add, 3)
    monotonic.now_s += OVERTAKEN_S
    queue.mark_delivered(Ack(cumulative=0, ranges=((3, 3),)), queue.epoch + 1, NOW)
    queue.mark_delivered(Ack(cumulative=0, epoch_unknown=True), queue.epoch, NOW)
    assert sequences(queue) == []


def test_an_innocent_parcel_is_tried_again_a_day_later_and_once(queue, add, database, monotonic) -> None:
    add()

    def next_life() -> ParcelQueue:
        return ParcelQueue(database, "ke-arrow", monotonic=monotonic)

    for _ in range(PARCEL_ATTEMPTS_MAX):
        assert next_life().mark_sent(queue.epoch, [1], NOW) == (1,)  # and each time the power goes
    assert next_life().mark_sent(queue.epoch, [1], NOW) == ()
    monotonic.now_s += TRIED_AGAIN_S - 1
    queue.prune()
    assert sequences(queue) == []
    monotonic.now_s += 1
    queue.prune()
    assert sequences(queue) == [1]
    assert next_life().mark_sent(queue.epoch, [1], NOW) == (1,)
    assert next_life().mark_sent(queue.epoch, [1], NOW) == ()


def test_what_was_refused_for_good_is_not_tried_again(queue, add, monotonic) -> None:
    add()
    ack = Ack(cumulative=0, refused=((1, Refusal.MALFORMED),))
    queue.mark_delivered(ack, queue.epoch, NOW)
    monotonic.now_s += 2 * TRIED_AGAIN_S
    queue.prune()
    assert sequences(queue) == []
