"""The parcel queue: numbers, order, acknowledgements, quarantine, a full share, damage; and a mix of them all."""

import contextlib
import random
import sqlite3
from functools import partial

import pytest

from protocol import messages
from protocol.errors import QueueFullError
from protocol.forwarding import Forwarder
from protocol.messages import Ack, Tombstone, unseal
from protocol.numbers import PARCEL_ATTEMPTS_MAX, ParcelKind, Precedence, Refusal
from store import eviction, incidents
from store.database import Database, start_epoch
from store.parcels import ParcelQueue, ParcelState, Seal

NORMAL, BULK, FLASH, PRIORITY = Precedence.NORMAL, Precedence.BULK, Precedence.FLASH, Precedence.PRIORITY


@pytest.fixture
def queue(database) -> ParcelQueue:
    return ParcelQueue(database, "ke-arrow")


@pytest.fixture
def add(queue, seal):
    def add_one(precedence=NORMAL, payload=b"payload", kind=ParcelKind.BATCH, now_s=100, to=None, **options):
        return (to or queue).add(kind, precedence, payload, seal, now_s, **options)

    return add_one


def fill(database: Database, queue: ParcelQueue, precedence: Precedence, seal: Seal) -> None:
    """Add parcels that no other of theirs may drop until the queue takes no more; one transaction spares the disk."""
    with database.atomic(), contextlib.suppress(QueueFullError):
        while True:
            queue.add(ParcelKind.EVENT, precedence, bytes(900), seal, 1)


def in_state(queue: ParcelQueue, state: ParcelState) -> int:
    return sum(count.parcels for count in queue.counts() if count.state is state)


def sequences(queue: ParcelQueue, limit: int = 64) -> list[int]:
    return [each.sequence for each in queue.load_window(limit)]


def test_sequences_run_from_one_and_sealed_bytes_verify(queue, add, key) -> None:
    parcels = [add(payload=b"%d" % number) for number in range(3)]
    assert [(each.epoch, each.sequence) for each in parcels] == [(queue.epoch, 1), (queue.epoch, 2), (queue.epoch, 3)]
    for queued in queue.load_window():
        messages.verify_parcel(queued.sealed, key.public, "ke-arrow", queued.epoch)
    assert queue.bytes_queued() == sum(len(each.sealed) for each in queue.load_window())


def test_a_failed_seal_takes_no_number(queue, add, seal) -> None:
    with pytest.raises(ZeroDivisionError):
        queue.add(ParcelKind.EVENT, NORMAL, b"", lambda parcel: b"%d" % (1 // 0), 5)
    assert add().sequence == 1


def test_a_parcel_longer_than_the_wire_allows_is_refused_before_it_is_stored(queue, add) -> None:
    with pytest.raises(ValueError, match="longer"):
        add(payload=bytes(16_384 - 40))
    assert add().sequence == 1


def test_urgent_parcels_go_first_then_the_oldest(queue, add) -> None:
    for precedence in (BULK, NORMAL, FLASH, NORMAL, PRIORITY, FLASH):
        add(precedence)
    assert sequences(queue) == [3, 6, 5, 2, 4, 1]
    assert sequences(queue, 2) == [3, 6]


def test_a_token_used_before_returns_the_same_parcel_and_stores_nothing(queue, add) -> None:
    first = add(payload=b"once", token=b"t1")
    assert add(payload=b"once", token=b"t1") == first
    assert sequences(queue) == [1]


def test_numbers_and_parcels_survive_a_crash_and_go_on_without_a_gap(opened, seal) -> None:
    first = opened()
    ParcelQueue(first, "ke-arrow").add(ParcelKind.EVENT, NORMAL, b"a", seal, 1)
    first.crash()
    second = ParcelQueue(opened(), "ke-arrow")
    assert second.add(ParcelKind.EVENT, NORMAL, b"b", seal, 1).sequence == 2
    assert [unseal(each.sealed).payload for each in second.load_window()] == [b"a", b"b"]


def test_an_ack_delivers_its_cumulative_and_its_ranges_and_may_come_twice(queue, add) -> None:
    for _ in range(8):
        add()
    ack = Ack(cumulative=2, ranges=((4, 5), (7, 7)))
    assert queue.mark_delivered(ack, queue.epoch, 200).delivered == 5
    assert sequences(queue) == [3, 6, 8]
    assert queue.mark_delivered(ack, queue.epoch, 201).delivered == 0
    assert in_state(queue, ParcelState.DELIVERED) == 5


def test_an_ack_that_does_not_know_the_epoch_delivers_nothing(queue, add) -> None:
    add()
    queue.mark_sent(queue.epoch, [1], 5)
    assert queue.mark_delivered(Ack(cumulative=1, epoch_unknown=True), queue.epoch, 5, sent=[1]).delivered == 0
    assert [each.attempts for each in queue.load_window()] == [0]


@pytest.mark.parametrize("reason", [Refusal.MALFORMED, Refusal.BAD_SIGNATURE, Refusal.TOO_LARGE])
def test_a_final_refusal_quarantines_at_once_reports_and_is_never_counted_as_delivered(
    queue, add, database, reason
) -> None:
    add()
    add()
    applied = queue.mark_delivered(Ack(cumulative=2, refused=((1, reason),)), queue.epoch, 9)
    assert (applied.delivered, applied.quarantined) == (1, 1)
    queue.mark_delivered(Ack(cumulative=2), queue.epoch, 10)
    assert in_state(queue, ParcelState.QUARANTINED) == 1
    event = incidents.unreported(database)[-1]
    assert (event.name, event.values["sequence"], event.at_s) == ("parcel.quarantined", 1, 9)
    assert event.values["reason"] == reason.name.lower()


def test_other_refusals_quarantine_only_when_the_attempts_are_used_up(queue, add) -> None:
    add()
    for attempt in range(PARCEL_ATTEMPTS_MAX):
        assert [each.attempts for each in queue.load_window()] == [attempt]
        assert queue.mark_sent(queue.epoch, [1], 5) == (1,)
        ack = Ack(cumulative=0, refused=((1, Refusal.UNKNOWN_EPOCH),), epoch_unknown=True)
        queue.mark_delivered(ack, queue.epoch, 5, sent=[1])
    assert sequences(queue) == []
    assert in_state(queue, ParcelState.QUARANTINED) == 1


def test_a_parcel_whose_sending_kills_the_daemon_stops_itself_and_lets_others_pass(opened, seal) -> None:
    queue = ParcelQueue(opened(), "ke-arrow")
    for _ in range(2):
        queue.add(ParcelKind.EVENT, NORMAL, b"x", seal, 1)
    for _ in range(PARCEL_ATTEMPTS_MAX):
        assert queue.mark_sent(queue.epoch, [1], 3) == (1,)
        queue._database.crash()
        queue = ParcelQueue(opened(), "ke-arrow")
    assert queue.mark_sent(queue.epoch, [1, 2], 3) == (2,)
    assert sequences(queue) == [2]
    # It may have arrived before the daemon died.
    queue.mark_delivered(Ack(cumulative=2), queue.epoch, 4)
    assert in_state(queue, ParcelState.DELIVERED) == 2


def test_a_lossy_link_never_uses_attempts_up(queue, add) -> None:
    add()
    for _ in range(50):
        assert queue.mark_sent(queue.epoch, [1], 3) == (1,)
        queue.mark_unanswered(queue.epoch, [1])
    assert [each.attempts for each in queue.load_window()] == [0]


def test_what_the_forwarding_machine_settles_is_written_down(queue, add) -> None:
    for _ in range(3):
        add()
    forwarder = Forwarder(queue.epoch)
    forwarder.offer(each.waiting() for each in queue.load_window())
    transmit = forwarder.poll_transmit("lte", 0.0)
    assert transmit is not None
    queue.mark_sent(queue.epoch, transmit.sequences, 1)
    ack = Ack(cumulative=1, refused=((2, Refusal.MALFORMED), (3, Refusal.UNKNOWN_EPOCH)))
    queue.settle(forwarder.handle_ack("lte", transmit.number, ack, 1.0), queue.epoch, 2, sent=transmit.sequences)
    assert [(each.sequence, each.attempts) for each in queue.load_window()] == [(3, 1)]
    assert in_state(queue, ParcelState.QUARANTINED) == 1


def test_bulk_then_normal_make_room_and_tombstones_name_exactly_what_went(opened, seal) -> None:
    database = opened(share_bytes=1 << 20)
    queue = ParcelQueue(database, "ke-arrow")
    kinds = {}
    database.sql.begin()
    for number in range(1_000):
        precedence = (BULK, NORMAL)[number % 2]
        try:
            parcel = queue.add(ParcelKind.BATCH, precedence, random.Random(number).randbytes(900), seal, number, rows=3)
        except QueueFullError:
            continue
        kinds[parcel.sequence] = precedence
    for number in range(400):
        try:
            parcel = queue.add(ParcelKind.EVENT, PRIORITY, bytes(900), seal, number)
        except QueueFullError:
            break
        kinds[parcel.sequence] = PRIORITY
        assert database.used_bytes() <= database.capacity_bytes()
    database.sql.commit()
    window = queue.load_window(10_000)
    here = {each.sequence for each in window if each.kind is not ParcelKind.TOMBSTONE}
    graves = [Tombstone.decode(unseal(each.sealed).payload) for each in window if each.kind is ParcelKind.TOMBSTONE]
    gone = [n for grave in graves for first, last in grave.ranges for n in range(first, last + 1)]
    assert len(gone) == len(set(gone))
    assert set(gone) == set(kinds) - here
    assert sum(grave.rows for grave in graves) == 3 * len(gone)
    assert {grave.epoch for grave in graves} == {queue.epoch}
    assert not any(kinds[n] in (PRIORITY, FLASH) for n in gone)
    assert all(kinds[n] is not NORMAL or BULK not in {kinds[m] for m in here} for n in gone)
    assert len(graves) < len(gone) / 4
    assert database.damage() == ()


def test_a_full_share_refuses_what_may_drop_nothing_and_changes_nothing(opened, seal) -> None:
    database = opened(share_bytes=1 << 20)
    queue = ParcelQueue(database, "ke-arrow")
    fill(database, queue, NORMAL, seal)
    percent = 100 * database.used_bytes() / database.capacity_bytes()
    assert percent <= eviction.ADMISSION_PERCENT
    before = queue.counts()
    with pytest.raises(QueueFullError):
        queue.add(ParcelKind.BATCH, BULK, bytes(900), seal, 1)
    assert queue.counts() == before
    assert queue.add(ParcelKind.EVENT, FLASH, b"smoke", seal, 1).precedence is FLASH
    # Acknowledging and pruning work on a full share, and then there is room again.
    queue.mark_delivered(Ack(cumulative=500), queue.epoch, 2)
    queue.add(ParcelKind.BATCH, NORMAL, bytes(900), seal, 3)


def test_flash_goes_beyond_admission_when_nothing_may_be_dropped(opened, seal) -> None:
    database = opened(share_bytes=1 << 20)
    queue = ParcelQueue(database, "ke-arrow")
    fill(database, queue, PRIORITY, seal)
    for _ in range(20):
        queue.add(ParcelKind.EVENT, FLASH, bytes(900), seal, 1)
    assert database.used_bytes() / database.capacity_bytes() > eviction.ADMISSION_PERCENT / 100


def test_delivered_parcels_are_pruned_by_age_and_number_and_numbers_never_come_back(database, seal) -> None:
    now = [100.0]
    queue = ParcelQueue(database, "ke-arrow", monotonic=lambda: now[0])
    add = partial(queue.add, ParcelKind.EVENT, NORMAL, b"payload", seal, 1)
    for _ in range(6):
        add()
    queue.mark_delivered(Ack(cumulative=2), queue.epoch, 0)
    now[0] += 100
    queue.mark_delivered(Ack(cumulative=5), queue.epoch, 0)
    assert queue.prune(kept_s=50) == 2
    assert queue.prune(kept_s=50, kept_max=1) == 2
    assert in_state(queue, ParcelState.DELIVERED) == 1
    queue.mark_delivered(Ack(cumulative=6), queue.epoch, 0)
    assert queue.prune(kept_s=-1) == 2
    assert queue.counts() == ()
    assert add().sequence == 7


def test_parcels_of_an_older_epoch_are_sent_under_it(queue, add, database, key) -> None:
    add()
    old = queue.epoch
    start_epoch(database, "test", 0)
    assert add().sequence == 1
    assert [each.epoch for each in queue.load_window()] == [old]
    assert queue.mark_delivered(Ack(cumulative=1), old, 5).delivered == 1
    assert [each.epoch for each in queue.load_window()] == [queue.epoch]
    add(FLASH)
    start_epoch(database, "test", 0)
    add(NORMAL)
    assert queue.next_epoch() != queue.epoch
    assert [each.sequence for each in queue.load_window(epoch=queue.epoch)] == [1]


def test_a_flipped_bit_in_a_parcel_is_found_and_the_others_stay_queued_under_their_epoch(opened, seal, flip) -> None:
    first = opened()
    queue = ParcelQueue(first, "ke-arrow")
    for number in range(20):
        queue.add(ParcelKind.BATCH, NORMAL, b"batch-%02d-" % number * 8, seal, 1)
    epoch, path = queue.epoch, first.path
    first.close()
    flip(path, b"batch-11-" * 8)
    second = ParcelQueue(opened(), "ke-arrow")
    assert second.epoch != epoch
    assert [(each.epoch, each.sequence) for each in second.load_window()] == [
        (epoch, number) for number in range(1, 21) if number != 12
    ]


def test_a_lost_tail_is_noticed_and_what_took_its_numbers_is_sent_under_new_ones(opened, seal) -> None:
    database = opened()
    queue = ParcelQueue(database, "ke-arrow")
    queue.add(ParcelKind.BATCH, NORMAL, b"known", seal, 1)
    epoch = queue.epoch
    database.crash()
    database = opened()
    queue = ParcelQueue(database, "ke-arrow")
    queue.add(ParcelKind.BATCH, NORMAL, b"new", seal, 1, schema_digest=bytes(32))
    applied = queue.mark_delivered(Ack(cumulative=4), epoch, 9)
    assert (applied.delivered, applied.clashed) == (1, (2,))
    assert queue.epoch != epoch
    assert "store.tail-lost" in [each.name for each in incidents.unreported(database)]
    assert queue.renumber(applied.clashed, epoch, seal) == 1
    (queued,) = queue.load_window()
    assert (queued.epoch, queued.sequence, unseal(queued.sealed).payload) == (queue.epoch, 1, b"new")


def test_a_locked_disk_is_not_taken_for_a_full_one(queue, add, database) -> None:
    other = sqlite3.connect(database.path, timeout=0)
    other.execute("BEGIN IMMEDIATE")
    database.sql.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        add()
    other.close()
    assert add().sequence == 1
