"""The forwarding machine: single facts, then any order of loss, duplication, lateness, refusal, restart and outage."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.forwarding import TRANSITIONS, Forwarder, Happening, Settled, State, Transmit, Waiting
from protocol.messages import Ack
from protocol.numbers import (
    DATAGRAM_PAYLOAD_BYTES_MAX,
    PARCEL_ATTEMPTS_MAX,
    PARCEL_WINDOW,
    PARCELS_IN_UPLOAD_MAX,
    RANGES_IN_ACK_MAX,
    Precedence,
    Refusal,
)

EPOCH = 0xFEED_FACE_CAFE_F00D


def waiting(sequence: int, precedence: Precedence = Precedence.NORMAL, size: int = 200, attempts: int = 0) -> Waiting:
    return Waiting(sequence, precedence, sequence.to_bytes(8, "big") * (size // 8), attempts)


def offered(*parcels: Waiting) -> Forwarder:
    forwarder = Forwarder(EPOCH)
    forwarder.offer(parcels)
    return forwarder


def send(forwarder: Forwarder, now: float = 0.0, link: str = "sat") -> Transmit:
    transmit = forwarder.poll_transmit(link, now)
    assert transmit is not None
    return transmit


def test_small_parcels_share_a_datagram_in_order_of_sequence() -> None:
    forwarder = offered(*(waiting(n, size=80) for n in (3, 1, 2)))
    transmit = send(forwarder)
    assert transmit.sequences == (1, 2, 3)
    assert len(transmit.upload.encode()) <= DATAGRAM_PAYLOAD_BYTES_MAX
    assert forwarder.poll_transmit("sat", 0.0) is None


@pytest.mark.parametrize("size", [80, 88, 200, 400, 584, 592, 1_000, 1_184])
def test_no_upload_of_parcels_that_fit_is_larger_than_a_datagram(size: int) -> None:
    forwarder = offered(*(waiting(n, size=size) for n in range(1, 60)))
    while (transmit := forwarder.poll_transmit("sat", 0.0)) is not None:
        assert len(transmit.upload.encode()) <= DATAGRAM_PAYLOAD_BYTES_MAX + (16 if size > 1_180 else 0)
        assert len(transmit.sequences) <= PARCELS_IN_UPLOAD_MAX


def test_an_upload_that_another_answer_tells_of_is_no_longer_in_flight_nor_lost() -> None:
    forwarder = offered(*(waiting(n, size=1_000) for n in range(1, 9)))
    sent = [send(forwarder) for _ in range(8)]
    assert forwarder.handle_ack("sat", sent[7].number, Ack(cumulative=8), 0.6).delivered == tuple(range(1, 9))
    flight = forwarder.flight("sat")
    assert (len(flight), flight.bytes, forwarder.in_flight, flight.pace.loss) == (0, 0, 0, 0.0)
    # Its own answer may still come: it settles nothing and breaks nothing.
    assert forwarder.handle_ack("sat", sent[0].number, Ack(cumulative=8), 0.7) == Settled()


def test_an_upload_is_in_flight_while_one_of_its_parcels_is_not_told_of() -> None:
    forwarder = offered(*(waiting(n, size=400) for n in range(1, 5)))
    first, second = send(forwarder), send(forwarder)
    assert (first.sequences, second.sequences) == ((1, 2), (3, 4))
    forwarder.handle_ack("sat", second.number, Ack(cumulative=1, ranges=((3, 4),)), 0.6)
    assert forwarder.in_flight == 1


def test_a_parcel_larger_than_a_datagram_goes_alone() -> None:
    forwarder = offered(waiting(1, size=16_000), waiting(2))
    assert send(forwarder).sequences == (1,)


def test_urgent_parcels_go_first_and_take_no_less_urgent_one_along() -> None:
    forwarder = offered(waiting(1, Precedence.BULK), waiting(2, Precedence.FLASH), waiting(3, Precedence.FLASH))
    first = send(forwarder)
    assert (first.sequences, first.precedence) == ((2, 3), Precedence.FLASH)
    assert forwarder.peek("sat") is Precedence.BULK
    second = send(forwarder)
    assert (second.sequences, second.precedence) == ((1,), Precedence.BULK)


def test_what_a_link_may_not_carry_is_passed_over_and_keeps_its_turn() -> None:
    forwarder = offered(waiting(1, Precedence.PRIORITY), waiting(2), waiting(3), waiting(4, Precedence.BULK))
    assert forwarder.waiting_bytes() == {Precedence.PRIORITY: 200, Precedence.NORMAL: 400, Precedence.BULK: 200}
    assert forwarder.peek("sat", only=Precedence.NORMAL) is Precedence.NORMAL
    passed_over = forwarder.poll_transmit("sat", 0.0, only=Precedence.NORMAL)
    assert passed_over is not None
    assert (passed_over.sequences, passed_over.precedence) == ((2, 3), Precedence.NORMAL)
    assert forwarder.peek("sat", only=Precedence.NORMAL) is None
    assert forwarder.poll_transmit("sat", 0.0, only=Precedence.NORMAL) is None
    forwarder.handle_loss("sat", passed_over.number)
    assert [send(forwarder).sequences for _ in range(3)] == [(1,), (2, 3), (4,)]


def test_an_urgent_parcel_is_taken_when_the_window_is_full_of_bulk() -> None:
    full = 2 * PARCEL_WINDOW
    forwarder = offered(*(waiting(n, Precedence.BULK) for n in range(1, full + 1)))
    assert forwarder.room
    forwarder.offer([waiting(full + 1, Precedence.BULK)])
    assert not forwarder.holds(full + 1)
    forwarder.offer([waiting(full + 2, Precedence.FLASH)])
    assert forwarder.holds(full + 2)
    assert not forwarder.holds(full)
    assert send(forwarder).sequences == (full + 2,)


def test_memory_is_bounded_whatever_is_offered_and_withdrawn() -> None:
    forwarder = Forwarder(EPOCH, window=8)
    for n in range(1, 500):
        forwarder.offer([waiting(n, Precedence(n % 4), size=80)])
        if n % 3 == 0:
            forwarder.withdraw([n, n - 1])
    assert sum(forwarder.holds(n) for n in range(500)) <= 16
    assert len(forwarder._ready) <= 8 * 8


def test_offering_again_changes_nothing() -> None:
    forwarder = offered(waiting(1), waiting(2))
    transmit = send(forwarder)
    forwarder.offer([waiting(1), waiting(2)])
    assert forwarder.poll_transmit("sat", 0.0) is None
    assert transmit.sequences == (1, 2)


def test_epoch_is_named_until_it_is_acknowledged_and_again_in_each_contact() -> None:
    forwarder = offered(*(waiting(n, size=1_000) for n in range(1, 5)))
    first, second = send(forwarder), send(forwarder)
    assert first.upload.epoch == second.upload.epoch == EPOCH
    forwarder.handle_ack("sat", first.number, Ack(cumulative=1), 0.5)
    third = send(forwarder, 0.5)
    assert third.upload.epoch is None
    forwarder.new_contact()
    assert send(forwarder, 0.5).upload.epoch == EPOCH


def test_unknown_epoch_is_named_at_once_and_costs_no_attempt() -> None:
    forwarder = offered(*(waiting(n, size=1_000) for n in range(1, 3)))
    first = send(forwarder)
    forwarder.handle_ack("sat", first.number, Ack(cumulative=1), 0.5)
    for step in range(2 * PARCEL_ATTEMPTS_MAX):
        forwarder._epoch_known = True
        transmit = send(forwarder, 1.0 + step)
        assert transmit.upload.epoch is None
        settled = forwarder.handle_ack("sat", transmit.number, Ack(cumulative=9, epoch_unknown=True), 1.1 + step)
        assert settled == Settled()
    assert send(forwarder, 100.0).upload.epoch == EPOCH


def test_bytes_max_bounds_the_payload_and_may_forbid_it() -> None:
    forwarder = offered(*(waiting(n, size=200) for n in range(1, 6)))
    assert forwarder.poll_transmit("sat", 0.0, bytes_max=150) is None
    transmit = forwarder.poll_transmit("sat", 0.0, bytes_max=500)
    assert transmit is not None
    assert transmit.sequences == (1, 2)
    assert len(transmit.upload.encode()) <= 500


def test_time_is_asked_when_it_is_wanted() -> None:
    transmit = offered(waiting(1)).poll_transmit("sat", 0.0, ask_time=True)
    assert transmit is not None
    assert transmit.upload.ask_time


def test_cumulative_and_ranges_deliver_on_every_link_and_in_every_state() -> None:
    forwarder = offered(*(waiting(n, size=1_000) for n in range(1, 6)))
    on_sat, on_lte = send(forwarder), send(forwarder, link="lte")
    settled = forwarder.handle_ack("sat", on_sat.number, Ack(cumulative=2, ranges=((4, 5),)), 0.5)
    assert settled.delivered == (1, 2, 4, 5)
    assert forwarder.holds(3)
    assert forwarder.handle_ack("lte", on_lte.number, Ack(cumulative=2, ranges=((4, 5),)), 0.6) == Settled()
    assert send(forwarder, 1.0).sequences == (3,)


def test_a_lost_upload_goes_again_and_its_late_answer_still_counts() -> None:
    forwarder = offered(waiting(1))
    first = send(forwarder)
    until = forwarder.poll_timeout()
    assert until == 3.0
    assert forwarder.handle_timeout(2.9) == 0
    assert forwarder.handle_timeout(until) == 1
    again = send(forwarder, until)
    assert (again.sequences, again.number) == ((1,), first.number + 1)
    assert forwarder.handle_ack("sat", first.number, Ack(cumulative=1), 4.0).delivered == (1,)
    assert forwarder.handle_ack("sat", again.number, Ack(cumulative=1), 4.1) == Settled()


def test_a_failed_link_returns_what_flew_on_it_to_the_others() -> None:
    forwarder = offered(waiting(1))
    transmit = send(forwarder)
    assert forwarder.numbers_in_flight("sat") == [transmit.number]
    forwarder.handle_loss("sat", transmit.number)
    forwarder.handle_loss("sat", transmit.number)
    assert forwarder.numbers_in_flight("sat") == []
    assert send(forwarder, link="lte").sequences == (1,)


@pytest.mark.parametrize("reason", [Refusal.MALFORMED, Refusal.BAD_SIGNATURE, Refusal.TOO_LARGE])
def test_a_final_refusal_quarantines_at_once_and_the_rest_goes_on(reason: Refusal) -> None:
    forwarder = offered(waiting(1), waiting(2))
    transmit = send(forwarder)
    settled = forwarder.handle_ack(
        "sat", transmit.number, Ack(cumulative=0, ranges=((2, 2),), refused=((1, reason),)), 1
    )
    assert settled == Settled(delivered=(2,), quarantined=((1, reason),))
    assert not forwarder.holds(1)


def test_other_refusals_are_tried_again_and_counted_across_restarts() -> None:
    refusal = ((1, Refusal.UNKNOWN_EPOCH),)
    forwarder = offered(waiting(1, attempts=PARCEL_ATTEMPTS_MAX - 2))
    settled = forwarder.handle_ack("sat", send(forwarder).number, Ack(cumulative=0, refused=refusal), 1)
    assert settled == Settled(refused=refusal)
    settled = forwarder.handle_ack("sat", send(forwarder, 2).number, Ack(cumulative=0, refused=refusal), 3)
    assert settled == Settled(quarantined=refusal)
    assert forwarder.peek("sat") is None


def test_a_refusal_of_what_another_link_delivered_is_ignored() -> None:
    forwarder = offered(waiting(1))
    transmit = send(forwarder)
    ack = Ack(cumulative=1, refused=((1, Refusal.MALFORMED), (77, Refusal.MALFORMED)))
    assert forwarder.handle_ack("sat", transmit.number, ack, 1) == Settled(delivered=(1,))


def test_a_parcel_that_is_answered_but_never_taken_is_given_up() -> None:
    # The gateway could not even read its sequence; without a bound it would be paid for again for ever.
    forwarder = offered(waiting(1))
    for step in range(PARCEL_ATTEMPTS_MAX - 1):
        forwarder.new_contact()
        settled = forwarder.handle_ack("sat", send(forwarder, step).number, Ack(cumulative=0), step + 0.5)
        assert settled.refused == ((1, Refusal.UNKNOWN_EPOCH),)
    forwarder.new_contact()
    settled = forwarder.handle_ack("sat", send(forwarder, 9).number, Ack(cumulative=0), 9.5)
    assert settled.quarantined == ((1, Refusal.MALFORMED),)


def test_beyond_a_full_list_of_ranges_nothing_is_concluded() -> None:
    forwarder = offered(waiting(500))
    full = Ack(cumulative=0, ranges=tuple((2 * n, 2 * n) for n in range(1, RANGES_IN_ACK_MAX + 1)))
    for step in range(2 * PARCEL_ATTEMPTS_MAX):
        forwarder.new_contact()
        assert forwarder.handle_ack("sat", send(forwarder, step).number, full, step + 0.5) == Settled()
    assert forwarder.holds(500)


def test_a_withdrawn_parcel_is_forgotten_in_flight_too() -> None:
    forwarder = offered(waiting(1), waiting(2))
    transmit = send(forwarder)
    forwarder.withdraw([1])
    forwarder.handle_loss("sat", transmit.number)
    assert send(forwarder).sequences == (2,)


def test_an_answer_to_nothing_that_was_sent_is_harmless() -> None:
    forwarder = offered(waiting(1))
    assert forwarder.handle_ack("sat", 99, Ack(cumulative=0, refused=((1, Refusal.MALFORMED),)), 0.0) == Settled()
    assert forwarder.holds(1)


def test_final_states_are_final_and_every_transition_is_listed_once() -> None:
    assert not [state for state, _ in TRANSITIONS if state in (State.DELIVERED, State.QUARANTINED)]
    assert {happening for _, happening in TRANSITIONS} == set(Happening)
    with pytest.raises(KeyError):
        TRANSITIONS[(State.DELIVERED, Happening.SENT)]


@dataclass
class ModelGateway:
    """What the other side must do: commit once, answer with everything it has of the epoch."""

    committed: set[int] = field(default_factory=set)
    unreadable: set[int] = field(default_factory=set)
    bad: dict[int, Refusal] = field(default_factory=dict)
    knows_epoch: bool = False

    def answer(self, transmit: Transmit) -> Ack:
        if transmit.upload.epoch is None and not self.knows_epoch:
            return Ack(cumulative=0, epoch_unknown=True)
        assert transmit.upload.epoch in (None, EPOCH)
        refused = []
        for sequence in transmit.sequences:
            if sequence in self.bad:
                refused.append((sequence, self.bad[sequence]))
            elif sequence not in self.unreadable:
                self.committed.add(sequence)
                self.knows_epoch = True
        cumulative = next(n for n in itertools.count() if n + 1 not in self.committed)
        above = sorted(n for n in self.committed if n > cumulative)
        ranges: list[tuple[int, int]] = []
        for n in above:
            if ranges and ranges[-1][1] == n - 1:
                ranges[-1] = (ranges[-1][0], n)
            else:
                ranges.append((n, n))
        # A range that holds one of the upload's own comes before others: there may be no place for all.
        ranges.sort(key=lambda each: not any(each[0] <= n <= each[1] for n in transmit.sequences))
        return Ack(cumulative=cumulative, ranges=tuple(sorted(ranges[:RANGES_IN_ACK_MAX])), refused=tuple(refused))


LINKS = ("sat", "lte")


class Forwarding(RuleBasedStateMachine):
    """A truck's queue and machine, a gateway, and two links between them that do whatever links do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.gateway = ModelGateway()
        self.queue: dict[int, Waiting] = {}
        self.delivered: set[int] = set()
        self.quarantined: set[int] = set()
        self.added = 0
        self.requests: list[tuple[str, Transmit]] = []
        self.answers: list[tuple[str, Transmit, Ack]] = []
        self.forwarder = Forwarder(EPOCH, window=4)

    @rule(
        precedence=st.sampled_from(Precedence), size=st.sampled_from([80, 400, 1_000, 4_000]), kind=st.integers(0, 19)
    )
    def add(self, precedence: Precedence, size: int, kind: int) -> None:
        self.added += 1
        self.queue[self.added] = waiting(self.added, precedence, size)
        if kind == 0:
            self.gateway.unreadable.add(self.added)
        elif kind <= 2:
            self.gateway.bad[self.added] = list(Refusal)[kind + self.added % 2]

    @rule()
    def offer(self) -> None:
        urgent = sorted(self.queue.values(), key=lambda each: (each.precedence, each.sequence))
        self.forwarder.offer(urgent[:8])

    @rule(link=st.sampled_from(LINKS))
    def send(self, link: str) -> None:
        peeked = self.forwarder.peek(link)
        transmit = self.forwarder.poll_transmit(link, self.now)
        assert (peeked is None) == (transmit is None)
        if transmit is not None:
            assert transmit.precedence is peeked
            assert all(self.queue[n].precedence <= transmit.precedence for n in transmit.sequences if n in self.queue)
            self.requests.append((link, transmit))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), twice=st.booleans(), lost=st.booleans())
    def request_arrives(self, data: st.DataObject, twice: bool, lost: bool) -> None:
        link, transmit = self.requests.pop(data.draw(st.integers(0, len(self.requests) - 1)))
        if not lost:
            self.answers.append((link, transmit, self.gateway.answer(transmit)))
        if twice:
            self.answers.append((link, transmit, self.gateway.answer(transmit)))

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), keep=st.booleans(), lost=st.booleans())
    def answer_arrives(self, data: st.DataObject, keep: bool, lost: bool) -> None:
        at = data.draw(st.integers(0, len(self.answers) - 1))
        link, transmit, ack = self.answers[at] if keep else self.answers.pop(at)
        if not lost:
            self.settle(self.forwarder.handle_ack(link, transmit.number, ack, self.now))

    def settle(self, settled: Settled) -> None:
        for sequence in settled.delivered:
            assert sequence in self.gateway.committed, "acknowledged, but not committed"
            assert sequence not in self.delivered, "delivered twice"
            del self.queue[sequence]
            self.delivered.add(sequence)
        for sequence, _ in settled.quarantined:
            assert sequence in self.gateway.bad or sequence in self.gateway.unreadable
            del self.queue[sequence]
            self.quarantined.add(sequence)
        for sequence, _ in settled.refused:
            each = self.queue[sequence]
            self.queue[sequence] = Waiting(sequence, each.precedence, each.sealed, each.attempts + 1)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.forwarder.handle_timeout(self.now)
        until = self.forwarder.poll_timeout()
        assert until is None or until > self.now, "a timeout stays in the past: the loop would spin"

    @rule(link=st.sampled_from(LINKS))
    def link_fails(self, link: str) -> None:
        for number in self.forwarder.numbers_in_flight(link):
            self.forwarder.handle_loss(link, number)
        assert len(self.forwarder.flight(link)) == 0

    @rule()
    def gateway_forgets_the_epoch(self) -> None:
        self.gateway.knows_epoch = False

    @rule()
    def contact_begins(self) -> None:
        self.forwarder.new_contact()

    @rule()
    def truck_restarts(self) -> None:
        # The sockets are gone, and with them what was on its way back; uploads on their way still arrive.
        self.answers.clear()
        for _, transmit in self.requests:
            self.gateway.answer(transmit)
        self.requests.clear()
        self.forwarder = Forwarder(EPOCH, window=4)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert set(self.queue) | self.delivered | self.quarantined == set(range(1, self.added + 1))

    @invariant()
    def it_neither_stalls_nor_spins(self) -> None:
        held = [n for n in self.queue if self.forwarder.holds(n)]
        flying = self.forwarder.in_flight
        assert (self.forwarder.poll_timeout() is None) == (flying == 0)
        if held and not flying:
            assert all(self.forwarder.peek(link) is not None for link in LINKS)
        assert len(self.forwarder._ready) <= 2 * 8 + 4 * 4

    def teardown(self) -> None:
        """Once the links heal, everything drains, within a bounded number of exchanges."""
        for _ in range(40 + 12 * PARCEL_ATTEMPTS_MAX * (self.added + 1)):
            if not self.queue:
                break
            self.offer()
            self.now += 1.0
            self.forwarder.handle_timeout(self.now)
            for link in LINKS:
                transmit = self.forwarder.poll_transmit(link, self.now)
                if transmit is not None:
                    ack = self.gateway.answer(transmit)
                    self.settle(self.forwarder.handle_ack(link, transmit.number, ack, self.now + 0.1))
        assert not self.queue, "the queue does not drain"
        self.nothing_is_lost()
        assert self.delivered <= self.gateway.committed
        assert self.quarantined == set(self.gateway.bad) | self.gateway.unreadable


Forwarding.TestCase.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestForwarding = Forwarding.TestCase


def doubting(*sequences: int, known: int) -> Forwarder:
    """A machine that was given these parcels by state that may have been put back; `known` was numbered before."""
    forwarder = Forwarder(EPOCH, known=known)
    forwarder.offer([waiting(each, size=1_000) for each in sequences])
    return forwarder


def test_in_doubt_an_acknowledgement_settles_its_own_upload_until_all_that_was_sent_is_settled() -> None:
    forwarder = doubting(6, 7, 8, 9, known=5)
    first, second = send(forwarder), send(forwarder)
    assert forwarder.handle_ack("sat", second.number, Ack(cumulative=7), 1.0).delivered == second.sequences
    assert forwarder.is_exact
    assert forwarder.handle_ack("sat", first.number, Ack(cumulative=7), 1.0).delivered == first.sequences
    assert not forwarder.forked
    assert not forwarder.is_exact
    third, fourth = send(forwarder, 1.0), send(forwarder, 1.0)
    # From now on one answer makes up for a lost one.
    assert forwarder.handle_ack("sat", fourth.number, Ack(cumulative=9), 2.0).delivered == (8, 9)
    assert third.sequences == (8,)


def test_numbers_below_those_of_an_answer_are_not_believed_before_they_are_settled() -> None:
    """The gateway holds 6 and 7 of another; the answer to 8 comes first and covers them."""
    forwarder = doubting(6, 7, 8, known=5)
    first, second, third = send(forwarder), send(forwarder), send(forwarder)
    assert forwarder.handle_ack("sat", third.number, Ack(cumulative=8), 1.0).delivered == (8,)
    for upload in (first, second):
        refused = tuple((each, Refusal.TAKEN) for each in upload.sequences)
        assert forwarder.handle_ack("sat", upload.number, Ack(cumulative=8, refused=refused), 1.0).taken
    assert forwarder.forked


@pytest.mark.parametrize(
    "ack",
    [Ack(cumulative=500), Ack(cumulative=6, ranges=((8, 8),)), Ack(cumulative=8, refused=((6, Refusal.TAKEN),))],
    ids=["many", "a gap", "taken"],
)
def test_numbers_that_were_never_sent_from_here_are_not_believed_to_be_ours(ack: Ack) -> None:
    forwarder = doubting(6, 7, 8, 9, known=5)
    first = send(forwarder)
    settled = forwarder.handle_ack("sat", first.number, ack, 1.0)
    assert forwarder.forked
    is_taken = bool(ack.refused)
    assert (settled.delivered, settled.taken) == (((), (6,)) if is_taken else ((6,), ()))
    assert all(forwarder.holds(each) for each in (7, 8, 9))
    second, third = send(forwarder, 1.0), send(forwarder, 1.0)
    assert forwarder.handle_ack("sat", third.number, Ack(cumulative=500), 2.0).delivered == third.sequences
    taken = Ack(cumulative=500, refused=tuple((each, Refusal.TAKEN) for each in second.sequences))
    assert forwarder.handle_ack("sat", second.number, taken, 2.0) == Settled(taken=second.sequences)


def test_a_number_that_a_living_clone_took_meanwhile_is_told_apart() -> None:
    forwarder = offered(waiting(1), waiting(2))
    transmit = send(forwarder)
    ack = Ack(cumulative=9, refused=((2, Refusal.TAKEN),))
    assert forwarder.handle_ack("sat", transmit.number, ack, 1.0) == Settled(delivered=(1,), taken=(2,))
    assert forwarder.forked


def test_an_answer_that_knows_no_epoch_settles_no_doubt() -> None:
    forwarder = doubting(6, 7, known=5)
    first = send(forwarder)
    forwarder.handle_ack("sat", first.number, Ack(cumulative=0, epoch_unknown=True), 1.0)
    assert forwarder.is_exact
    assert not forwarder.forked
