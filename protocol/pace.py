"""How much may be in flight on a link, and when something in flight counts as lost.

`Pace` keeps the window at what the link was seen to deliver in its shortest round trip, plus a small queue: the rate
comes from the answers themselves (as in BBR), so that random loss on the air does not shrink it, and the queue of its
own making is bounded by `queue_s`, so that it stays out of the way of the classroom's traffic. A window a quarter wider
than needed is also the probe: on a link that became faster the next estimate is a quarter higher. Rising delay beyond
that queue (others send, or the link became slower) makes it forget old rates at once.
`Flight` keeps what was sent and not answered: a packet is lost when three later ones were answered and a reordering
time has passed (RFC 9002 section 6.1), or when its retransmission timeout has (RFC 6298). No clock: `now` comes in,
in seconds. Deliberately absent: spacing of the packets inside a window, which answers clock by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

DATAGRAM_BYTES = 1_252  # the largest datagram of ours, headers included
WINDOW_BYTES_MAX = 1_024 * DATAGRAM_BYTES  # a round trip of 10 Mbit/s by satellite, and its queue
_WINDOW_MIN = 4 * DATAGRAM_BYTES  # few enough for any queue, enough that one survives random loss
WINDOW_FIRST_BYTES = 8 * DATAGRAM_BYTES  # less than RFC 6928 has: a second of a thin link
_RTO_FIRST_S = 3.0
_RTO_MIN_S, _RTO_MAX_S = 0.5, 60.0
_BACKOFFS_MAX = 3  # beyond that the daemon leaves the link alone; random loss of a tail must not cost minutes
_REORDER_PACKETS = 3
_REORDER_MIN_S = 0.01
# Of the round trip: what an overtaken packet may still take; more where that was too little, and less with time.
_REORDER_SHARE, _REORDER_SHARE_MAX, _REORDER_FORGIVEN = 0.25, 4.0, 0.95
_GIVEN_UP_MAX = 1_024
_QUEUE_MIN_S = 0.05
_QUEUE_SHARE = 0.25  # of the shortest round trip
_IN_USE = 0.7  # of the window: with less in flight, an answer tells nothing about what the link could carry
_ROUNDS = 10  # round trips for which the highest rate is remembered
_HIGH_DELAYS_TO_END_START = 3
_LOSS_PACKETS = 256  # over so many packets the share of lost ones is averaged
_LOSS_MAX = 0.6
_LOSS_MAX_START = 0.3  # the first few packets say little of it
_SETTLED_TO_TELL, _CLEAN_LOSS = 32, 0.02
_CHANCE = 0.05  # packets that are lost together with more than this probability, by the link's usual loss, say nothing
# Every so often the window shrinks for a moment, so that its own queue drains and the shortest round trip shows again.
_DRAIN_EVERY_S = 30.0
_DRAIN_SHARE = 0.75
_DRAIN_ROUNDS = 1.5
_SPACING_GAIN_START, _SPACING_GAIN = 2.0, 1.25
_GAIN_KNOWN = 3.0
_LOST_FOR = 1.25  # round trips


@dataclass(frozen=True, slots=True)
class Sample:
    """What one answer tells: its round trip, its size, and the rate (bytes/s, None: too short to say) around it.

    `in_use` is whether the window was nearly full; `new_round` whether a round trip began with this packet.
    """

    rtt_s: float
    size: int
    rate: float | None
    in_use: bool
    new_round: bool


class Pace:
    """The window and the round-trip estimate of one link and direction."""

    def __init__(self) -> None:
        self.window_bytes = float(WINDOW_FIRST_BYTES)
        self._known_bytes = 0.0  # half of what the link carried before it rested or went silent
        self._starting = True
        self._high_delays = 0
        self._srtt_s: float | None = None
        self._rttvar_s = 0.0
        self._base_rtt_s = float("inf")
        self._next_base_s = float("inf")
        self._drain_at: float | None = None
        self._drained_at = 0.0
        self._rates: deque[float] = deque([0.0], maxlen=_ROUNDS)
        self._loss = 0.0
        self._settled = 0
        self._silent = 0
        self._backoffs = 0
        self._answered_at: float | None = None
        self._patient_until = 0.0
        self._reorder = _REORDER_SHARE

    @property
    def rto_s(self) -> float:
        """The retransmission timeout now, with its exponential back-off."""
        return self.timeout_s(self._backoffs)

    def timeout_s(self, backoffs: int) -> float:
        """Return the retransmission timeout after so many of them in a row."""
        if self._srtt_s is None:
            rto_s = _RTO_FIRST_S
        else:
            rto_s = max(_RTO_MIN_S, self._srtt_s + max(4 * self._rttvar_s, 0.5 * self._srtt_s))
        return float(min(_RTO_MAX_S, rto_s * 2**backoffs))

    @property
    def backoffs(self) -> int:
        """How many timeouts in a row passed without any answer."""
        return self._backoffs

    @property
    def rtt_s(self) -> float:
        """The smoothed round-trip time, or a careful guess before the first answer."""
        return self._srtt_s if self._srtt_s is not None else 1.0

    @property
    def overtaken_s(self) -> float:
        """How long after its sending a packet that others overtook counts as lost."""
        return self.rtt_s + max(_REORDER_MIN_S, self._reorder * self.rtt_s)

    @property
    def loss(self) -> float:
        """The share of the packets that are lost, averaged over the last few hundred."""
        return self._loss

    @property
    def rate_bps(self) -> int | None:
        """What the link was seen to deliver lately, in bit/s; None: nothing yet, or nothing since it was silent."""
        return int(max(self._rates) * 8) or None

    @property
    def is_clean(self) -> bool:
        """Whether the link is known to lose next to nothing."""
        return self._settled >= _SETTLED_TO_TELL and self._loss < _CLEAN_LOSS

    @property
    def spacing_s(self) -> float:
        """How far apart full datagrams should leave: a window takes less than a round trip, and less at the start."""
        gain = _SPACING_GAIN_START if self._starting else _SPACING_GAIN
        return DATAGRAM_BYTES * self.rtt_s / (gain * self.window_bytes)

    @property
    def queue_s(self) -> float:
        """The queueing delay that this side may cause."""
        return max(_QUEUE_MIN_S, _QUEUE_SHARE * self._base_rtt_s)

    def answered(self, sample: Sample, now: float) -> None:
        """Learn from one answer."""
        self._answered_at = now
        self._backoffs = self._silent = 0
        self._patient_until = 0.0
        self._count(lost=False)
        self._estimate(sample.rtt_s)
        self._base_rtt_s = min(self._base_rtt_s, sample.rtt_s)
        self._next_base_s = min(self._next_base_s, sample.rtt_s)
        delay_s = sample.rtt_s - self._base_rtt_s
        if sample.new_round:
            self._reorder = max(_REORDER_SHARE, _REORDER_FORGIVEN * self._reorder)
        if sample.in_use and sample.new_round:
            while delay_s > 2 * self.queue_s and len(self._rates) > 1:
                self._rates.popleft()
            self._rates.append(0.0)
        if sample.rate is not None:
            self._rates[-1] = max(self._rates[-1], sample.rate)
        self._high_delays = self._high_delays + 1 if delay_s > self.queue_s else 0
        if self._starting and self._high_delays < _HIGH_DELAYS_TO_END_START:
            if sample.in_use:
                # Twice as much a round trip, whatever share is lost; faster up to half of what it is known to carry.
                gain = _GAIN_KNOWN if self.window_bytes < self._known_bytes else 1.0
                grown = self.window_bytes + gain * sample.size / (1 - min(self._loss, _LOSS_MAX_START))
                self.window_bytes = min(float(WINDOW_BYTES_MAX), grown)
            return
        self._starting = False
        self.window_bytes = self._window(now)

    def mistaken(self) -> None:
        """Learn that a packet which counted as lost has come after all: wait longer from here on (as RFC 8985 does)."""
        self._reorder = min(_REORDER_SHARE_MAX, 2 * self._reorder)
        self._loss = max(0.0, self._loss - 1 / max(1, self._settled))

    def arrived(self) -> None:
        """Learn that a packet was not lost, though its answer may have been."""
        self._count(lost=False)

    def overtaken(self) -> None:
        """Learn that a packet was lost while others behind it arrived."""
        self._count(lost=True)

    def timed_out(self, packets: int, now: float) -> None:
        """Learn that a whole retransmission timeout passed without any answer: the link may come back as another.

        That takes more of the `packets` that timed out than the usual loss explains: the last packet of a transfer is
        lost alone, and waiting ever longer for it would cost more than the rest of the transfer.
        """
        self._silent += packets
        if self._loss**self._silent > _CHANCE or now < self._patient_until:
            return
        # One window is one loss, though its packets time out one by one.
        self._patient_until = now + self.rto_s
        self._backoffs = min(self._backoffs + 1, _BACKOFFS_MAX)
        self._start_again(max(float(_WINDOW_MIN), self.window_bytes / 2))

    def has_rested(self, now: float) -> bool:
        """Return whether the last answer was so long ago that the link may be another one by now."""
        return self._answered_at is not None and now - self._answered_at > 4 * self.rto_s

    def rested(self) -> None:
        """Learn that nothing was sent for long: the window opens anew instead of bursting into a queue."""
        self._start_again(min(self.window_bytes, float(WINDOW_FIRST_BYTES)))

    def _start_again(self, window_bytes: float) -> None:
        self._known_bytes = max(self.window_bytes / 2, self._known_bytes / 2)
        self.window_bytes = window_bytes
        self._starting, self._high_delays = True, 0
        self._rates.clear()
        self._rates.append(0.0)

    def _window(self, now: float) -> float:
        """Return what the link takes in its shortest round trip and the queue allowed, lost packets included."""
        loss = min(self._loss, _LOSS_MAX)
        # What is lost is in flight for longer, until it is known to be lost.
        rate = max(self._rates) * (1 + _LOST_FOR * loss / (1 - loss))
        if self._drain_at is None:
            self._drain_at = now + _DRAIN_EVERY_S
        if now >= self._drain_at:
            if now < self._drain_at + _DRAIN_ROUNDS * self.rtt_s:
                return max(float(_WINDOW_MIN), rate * self._base_rtt_s * _DRAIN_SHARE)
            # The shortest round trip since the drain before: a path that became longer is noticed after two drains.
            self._drain_at = now + _DRAIN_EVERY_S
            self._base_rtt_s, self._next_base_s = self._next_base_s, float("inf")
        window = rate * (self._base_rtt_s + self.queue_s) + DATAGRAM_BYTES
        return min(float(WINDOW_BYTES_MAX), max(float(_WINDOW_MIN), window))

    def _count(self, *, lost: bool) -> None:
        # A plain average until there is enough of it: losses are found in bunches, which must not move the window.
        self._settled = min(self._settled + 1, _LOSS_PACKETS)
        self._loss += (lost - self._loss) / self._settled

    def _estimate(self, rtt_s: float) -> None:
        if self._srtt_s is None:
            self._srtt_s, self._rttvar_s = rtt_s, rtt_s / 2
            return
        self._rttvar_s += 0.25 * (abs(self._srtt_s - rtt_s) - self._rttvar_s)
        self._srtt_s += 0.125 * (rtt_s - self._srtt_s)


@dataclass(frozen=True, slots=True)
class Sent:
    """One packet in flight: `number` counts sendings, `size` is in bytes, `at` is the instant it left.

    `answered_bytes` had been answered by then, the last of them at `answered_at` and sent at `first_at`: from these
    the rate around this packet follows when it is answered.
    """

    number: int
    size: int
    at: float
    backoffs: int
    answered_bytes: int
    answered_at: float
    first_at: float


class Flight:
    """What is in flight on one link, under its pace."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.bytes = 0
        self._sent: dict[int, Sent] = {}
        self._given_up: dict[int, None] = {}
        self._next = 0
        self._largest_answered = -1
        self._round_ends = 0
        self._answered_bytes = 0
        self._answered_at = 0.0
        self._first_at = 0.0

    def __len__(self) -> int:
        return len(self._sent)

    def __contains__(self, number: int) -> bool:
        return number in self._sent

    def has_room(self, size: int) -> bool:
        """Return whether `size` more bytes may be sent now; one packet may always be."""
        return not self._sent or self.bytes + size <= self.pace.window_bytes

    def send(self, size: int, now: float, *, at: float | None = None) -> int:
        """Note a sending and return its number; `at`: when the other side is to send it, if that is later than now."""
        if not self._sent:
            if self.pace.has_rested(now):
                self.pace.rested()
            self._answered_at = self._first_at = now
        number = self._next
        self._next += 1
        at = now if at is None else at
        self._sent[number] = Sent(
            number, size, at, self.pace.backoffs, self._answered_bytes, self._answered_at, self._first_at
        )
        self.bytes += size
        return number

    def answer(self, number: int, now: float) -> bool:
        """Note the answer to a sending; return False when it was given up before (it teaches nothing then)."""
        sent = self._sent.pop(number, None)
        if sent is None:
            if number in self._given_up:
                del self._given_up[number]
                self.pace.mistaken()
            return False
        in_use = self.bytes > _IN_USE * self.pace.window_bytes
        self.bytes -= sent.size
        self._answered_bytes += sent.size
        self._answered_at = now
        self._first_at = sent.at
        self._largest_answered = max(self._largest_answered, number)
        new_round = number >= self._round_ends
        if new_round:
            self._round_ends = self._next
        # The longer of the two spans: neither a burst of sendings nor one of answers looks like a fast link.
        span_s = max(now - sent.answered_at, sent.at - sent.first_at)
        rate = (self._answered_bytes - sent.answered_bytes) / span_s if span_s > 0 else None
        self.pace.answered(Sample(now - sent.at, sent.size, rate, in_use, new_round), now)
        return True

    def arrived(self, number: int) -> None:
        """Note that another answer told of a sending's arrival; its own may be lost, or still to come."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            self.bytes -= sent.size
            self._answered_bytes += sent.size
            self._largest_answered = max(self._largest_answered, number)
            self.pace.arrived()

    def forget(self, number: int) -> None:
        """Take a sending out of flight without learning from it."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            self.bytes -= sent.size

    def lost(self, now: float) -> list[int]:
        """Return, and take out of flight, the sendings that count as lost now, oldest first."""
        gone = [sent for at, sent in self._deadlines(now) if at <= now]
        silent = 0
        for sent in gone:
            self.forget(sent.number)
            self._given_up[sent.number] = None
            if len(self._given_up) > _GIVEN_UP_MAX:
                del self._given_up[next(iter(self._given_up))]
            if self._is_overtaken(sent):
                self.pace.overtaken()
            silent += sent.number > self._largest_answered
        if silent and now >= self._answered_at + self.pace.rtt_s:
            self.pace.timed_out(silent, now)
        return [sent.number for sent in gone]

    def next_timeout(self) -> float | None:
        """Return the instant at which `lost` should be asked next, or None with nothing in flight."""
        return min((at for at, _ in self._deadlines(float("-inf"))), default=None)

    def _is_overtaken(self, sent: Sent) -> bool:
        return sent.number + _REORDER_PACKETS <= self._largest_answered

    def _deadlines(self, now: float) -> Iterator[tuple[float, Sent]]:
        """Yield sendings with the instants at which they count as lost: the overtaken, then as they were sent.

        It ends with the first of the others that is not lost `now`: those behind it were sent later.
        """
        overtaken_s, pace = self.pace.overtaken_s, self.pace
        for sent in self._sent.values():
            # A back-off since then is for those sent since then; an answer since then is good for all.
            wait_s = pace.timeout_s(min(sent.backoffs, pace.backoffs))
            if self._is_overtaken(sent):
                yield sent.at + min(wait_s, overtaken_s), sent
                continue
            yield sent.at + wait_s, sent
            if sent.at + wait_s > now:
                return
