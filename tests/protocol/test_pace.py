"""How fast a transfer is on links of known rate, delay and loss, and what the pace learns. All time is virtual."""

import heapq
import itertools
from dataclasses import dataclass

import pytest

from gateway.demo.linkmodel import DirectionProfile, Link, LinkProfile, OutageProfile
from protocol.numbers import PIECE_BYTES
from protocol.pace import DATAGRAM_BYTES, WINDOW_BYTES_MAX, WINDOW_FIRST_BYTES, Flight, Pace
from protocol.transfer import Ask, Transfer, piece_count

# IP packets on the wire: a request for a piece, and what stands around a piece (IPv4, UDP, CoAP, OSCORE).
REQUEST_BYTES = 93
ANSWER_OVERHEAD_BYTES = 45
# Of a rate R at a loss p each way, 0.95 R (1 - p) can be payload.
PAYLOAD_SHARE = 0.95


@dataclass(frozen=True)
class Outcome:
    """`share` is goodput over what the link allows; `asks` is requests a piece; queue in seconds of the link's rate."""

    share: float
    asks: float
    queue_s: float
    overruns: int
    seconds: float


def link_of(
    rate_bps: float,
    rtt_s: float,
    *,
    loss: float = 0.0,
    jitter_s: float = 0.0,
    outages: OutageProfile | None = None,
    later: tuple[tuple[float, float], ...] = (),
) -> LinkProfile:
    direction = DirectionProfile(
        rate_bps=rate_bps,
        queue_bytes_max=int(rate_bps / 8 * 2),
        delay_s=(rtt_s - jitter_s) / 2,
        jitter_s=jitter_s,
        loss=loss,
        rate_changes=later,
    )
    return LinkProfile("test", direction, direction, outages or OutageProfile())


def fetch(profile: LinkProfile, size: int, *, seed: int = 1) -> Outcome:
    """Bring an object of `size` bytes over the link and say how it went."""
    link = Link(profile, seed=seed, start=0.0)
    transfer = Transfer(bytes(32), size, range(piece_count(size)))
    events: list[tuple[float, int, bool, Ask]] = []
    order = itertools.count()
    now = queue = 0.0
    asks = 0
    while not transfer.complete:
        transfer.handle_timeout(now)
        while (ask := transfer.poll_transmit("test", now)) is not None:
            asks += 1
            for at in link.up.offer(REQUEST_BYTES, now):
                heapq.heappush(events, (at, next(order), True, ask))
        timeout = transfer.poll_timeout()
        assert timeout is not None
        assert timeout >= now, "a timeout that has passed was not handled"
        now = min(timeout, events[0][0]) if events else timeout
        while events and events[0][0] <= now:
            _, _, arriving, ask = heapq.heappop(events)
            length = transfer.expected_bytes(ask.request.first)
            if arriving:
                for at in link.down.offer(length + ANSWER_OVERHEAD_BYTES, now):
                    heapq.heappush(events, (at, next(order), False, ask))
                queue = max(queue, link.down.queued_bytes(now) * 8 / profile.down.rate_bps)
            else:
                transfer.handle_piece("test", ask, bytes(length), now)
        assert now < 3_600, "the transfer does not end"
    allowed = PAYLOAD_SHARE * profile.down.rate_bps * (1 - profile.down.loss)
    overruns = link.down.counts.queue_full.packets + link.up.counts.queue_full.packets
    return Outcome(size * 8 / now / allowed, asks / piece_count(size), queue, overruns, now)


# kbit/s, round trip in s, bytes: a satellite terminal, a better one, 4G.
SATELLITE = (64_000.0, 0.6, 300_000)
GOOD_SATELLITE = (1_000_000.0, 0.6, 4_000_000)
LTE = (2_000_000.0, 0.08, 2_000_000)


@pytest.mark.parametrize(
    ("link", "loss", "jitter_s", "share_min"),
    [
        pytest.param(SATELLITE, 0.0, 0.02, 0.92, id="64k"),
        pytest.param(SATELLITE, 0.05, 0.02, 0.87, id="64k-5%"),
        pytest.param(GOOD_SATELLITE, 0.0, 0.0, 0.9, id="1M"),
        pytest.param(GOOD_SATELLITE, 0.0, 0.02, 0.9, id="1M-jitter"),
        pytest.param(GOOD_SATELLITE, 0.05, 0.02, 0.86, id="1M-5%"),
        pytest.param(GOOD_SATELLITE, 0.2, 0.02, 0.6, id="1M-20%"),
        pytest.param(LTE, 0.0, 0.02, 0.95, id="2M"),
        pytest.param(LTE, 0.05, 0.02, 0.9, id="2M-5%"),
    ],
)
def test_goodput(link: tuple[float, float, int], loss: float, jitter_s: float, share_min: float) -> None:
    rate_bps, rtt_s, size = link
    outcome = fetch(link_of(rate_bps, rtt_s, loss=loss, jitter_s=jitter_s), size)
    assert outcome.share >= share_min
    # What is asked for again is what was lost, and next to nothing else: each byte is paid for.
    assert outcome.asks <= 1.02 / (1 - loss) ** 2 + 0.02
    assert outcome.overruns == 0
    assert outcome.queue_s <= 0.35 + 8 * DATAGRAM_BYTES * 8 / rate_bps + loss


def test_goodput_on_a_thin_link_with_a_fifth_lost_each_way() -> None:
    outcomes = [fetch(link_of(64_000, 0.6, loss=0.2), 300_000, seed=seed) for seed in range(1, 6)]
    assert sorted(outcome.share for outcome in outcomes)[2] >= 0.7
    assert max(outcome.seconds for outcome in outcomes) <= 150


def test_a_link_that_became_slower_is_not_flooded() -> None:
    profile = link_of(2_000_000, 0.08, later=((2.0, 250_000.0),))
    outcome = fetch(profile, 1_000_000)
    assert outcome.overruns == 0
    assert outcome.asks <= 1.1
    assert outcome.seconds <= 2.0 + (1_000_000 - 450_000) * 8 / (0.8 * 250_000)


def test_a_link_that_became_faster_is_used() -> None:
    outcome = fetch(link_of(250_000, 0.08, later=((5.0, 4_000_000.0),)), 4_000_000)
    assert outcome.seconds <= 5.0 + 4_000_000 * 8 / (0.75 * 4_000_000)


def test_an_outage_costs_its_own_time_and_few_bytes() -> None:
    whole = fetch(link_of(1_000_000, 0.6), 2_000_000)
    cut = fetch(link_of(1_000_000, 0.6, outages=OutageProfile(scheduled_s=((8.0, 28.0),))), 2_000_000)
    # The next try comes at most one backed-off timeout after the link is back.
    assert cut.seconds <= whole.seconds + 20.0 + 15.0
    assert cut.asks <= whole.asks + 0.15


def test_the_queue_does_not_ratchet_up_over_a_long_transfer() -> None:
    # 7 minutes: the shortest round trip is measured anew many times, always with its own queue drained.
    outcome = fetch(link_of(64_000, 0.6), 3_000_000)
    assert outcome.share >= 0.93
    assert outcome.queue_s <= 1.4


def test_first_window_is_small_and_grows_with_answers_only_when_it_is_used() -> None:
    flight = Flight()
    first = flight.pace.window_bytes
    assert first == WINDOW_FIRST_BYTES == 8 * DATAGRAM_BYTES
    number = flight.send(100, 0.0)
    assert flight.answer(number, 0.5)
    assert flight.pace.window_bytes == first
    numbers = [flight.send(DATAGRAM_BYTES, 1.0) for _ in range(8)]
    assert not flight.has_room(1)
    assert flight.answer(numbers[0], 1.5)
    assert flight.pace.window_bytes == first + DATAGRAM_BYTES


def test_one_packet_may_always_be_sent() -> None:
    flight = Flight()
    assert flight.has_room(1 << 20)
    flight.send(1 << 20, 0.0)
    assert not flight.has_room(1)


def test_window_is_bounded() -> None:
    flight = Flight()
    now = 0.0
    for _ in range(40):
        numbers = []
        while flight.has_room(DATAGRAM_BYTES):
            numbers.append(flight.send(DATAGRAM_BYTES, now))
        now += 0.5
        for number in numbers:
            flight.answer(number, now)
    assert flight.pace.window_bytes == WINDOW_BYTES_MAX


def test_timeouts_back_off_and_one_answer_ends_that() -> None:
    flight = Flight()
    now = 0.0
    waits = []
    for _ in range(6):
        flight.send(100, now)
        until = flight.next_timeout()
        assert until is not None
        waits.append(until - now)
        now = until
        assert len(flight.lost(now)) == 1
    assert waits[:4] == [3.0, 6.0, 12.0, 24.0]
    assert waits[-1] == 24.0
    assert flight.pace.backoffs == 3
    number = flight.send(100, now)
    flight.answer(number, now + 0.6)
    assert flight.pace.backoffs == 0
    assert 0.6 < flight.pace.rto_s < 3.0


def test_timeout_of_a_lone_packet_does_not_back_off_while_others_are_answered() -> None:
    flight = Flight()
    now = 0.0
    for _ in range(20):
        flight.answer(flight.send(100, now), now + 0.5)
        now += 0.5
    lone = flight.send(100, now)
    until = flight.next_timeout()
    assert until is not None
    late = flight.send(100, until - 0.5)
    flight.answer(late, until)
    assert flight.lost(until) == [lone]
    assert flight.pace.backoffs == 0


def test_packet_is_lost_when_three_later_ones_were_answered_and_time_passed() -> None:
    flight = Flight()
    flight.answer(flight.send(100, 0.0), 0.5)
    first, *others = [flight.send(100, 1.0) for _ in range(4)]
    for number in others:
        flight.answer(number, 1.5)
    assert flight.lost(1.5) == []
    until = flight.next_timeout()
    assert until == pytest.approx(1.0 + 1.25 * 0.5)
    assert flight.lost(until) == [first]
    assert flight.bytes == 0
    assert flight.pace.backoffs == 0


def test_two_later_answers_are_reordering_not_loss() -> None:
    flight = Flight()
    flight.answer(flight.send(100, 0.0), 0.5)
    first, *others = [flight.send(100, 1.0) for _ in range(3)]
    for number in others:
        flight.answer(number, 1.5)
    assert flight.lost(1.7) == []
    assert flight.answer(first, 1.7)


def test_answer_to_what_was_given_up_teaches_nothing() -> None:
    flight = Flight()
    number = flight.send(100, 0.0)
    flight.forget(number)
    flight.forget(number)
    before = flight.pace.rto_s, flight.pace.window_bytes
    assert not flight.answer(number, 9.0)
    assert (flight.pace.rto_s, flight.pace.window_bytes) == before
    assert flight.bytes == 0


def test_every_timeout_is_handled_at_its_instant() -> None:
    # Instants that round differently would leave a loop spinning on a timeout that never happens.
    flight = Flight()
    now = 0.1
    for step in range(400):
        number = flight.send(100 + step, now)
        if step % 7:
            flight.answer(number, now + 0.1 + (step % 13) / 37)
        now += 0.0137 * (step % 5)
        until = flight.next_timeout()
        if until is not None and until <= now + 0.2:
            assert flight.lost(until)
            now = max(now, until)


def test_after_a_long_rest_the_window_opens_anew() -> None:
    flight = Flight()
    now = 0.0
    for _ in range(15):
        numbers = []
        while flight.has_room(PIECE_BYTES):
            numbers.append(flight.send(PIECE_BYTES, now))
        now += 0.5
        for number in numbers:
            flight.answer(number, now)
    assert flight.pace.window_bytes > 16 * DATAGRAM_BYTES
    flight.send(PIECE_BYTES, now + 600)
    assert flight.pace.window_bytes == WINDOW_FIRST_BYTES


def test_retransmission_timeout_follows_the_round_trip() -> None:
    pace = Pace()
    assert (pace.rto_s, pace.rtt_s, pace.backoffs) == (3.0, 1.0, 0)
    flight = Flight(pace)
    now = 0.0
    for _ in range(50):
        flight.answer(flight.send(100, now), now + 0.02)
        now += 1
    assert pace.rtt_s == pytest.approx(0.02)
    assert pace.rto_s == 0.5
