"""How much may be in flight on a link, and when something in flight counts as lost.

`Pace` is a window in bytes: it opens while the queueing delay stays small (RFC 6817's idea: delay, not loss, is the
signal, since radio links lose at random) and closes when the delay grows or when everything timed out.
`Flight` keeps what was sent and not answered: a packet is lost when three later ones were answered and a reordering
time has passed (RFC 9002 section 6.1), or when its retransmission timeout has (RFC 6298). No clock: `now` comes in,
in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

DATAGRAM_BYTES = 1_252  # the largest datagram of ours, headers included
WINDOW_BYTES_MAX = 512 * DATAGRAM_BYTES
_WINDOW_FIRST = 4 * DATAGRAM_BYTES
_WINDOW_MIN = 2 * DATAGRAM_BYTES
_RTO_FIRST_S = 3.0
_RTO_MIN_S, _RTO_MAX_S = 0.3, 60.0
_REORDER_PACKETS = 3
_BASE_RTT_MEMORY_S = 120.0


class Pace:
    """The window and the round-trip estimate of one link and direction."""

    def __init__(self) -> None:
        self.window_bytes = float(_WINDOW_FIRST)
        self._starting = True
        self._srtt_s: float | None = None
        self._rttvar_s = 0.0
        self._base_rtt_s: float | None = None
        self._next_base_s = float("inf")
        self._base_since_s = 0.0
        self._backoffs = 0
        self._held_until_s = 0.0

    @property
    def rto_s(self) -> float:
        """The retransmission timeout now, with its exponential back-off."""
        if self._srtt_s is None:
            rto_s = _RTO_FIRST_S
        else:
            rto_s = max(_RTO_MIN_S, self._srtt_s + max(4 * self._rttvar_s, 0.1 * self._srtt_s))
        return float(min(_RTO_MAX_S, rto_s * 2**self._backoffs))

    @property
    def backoffs(self) -> int:
        """How many timeouts in a row passed without any answer."""
        return self._backoffs

    @property
    def rtt_s(self) -> float:
        """The smoothed round-trip time, or a careful guess before the first answer."""
        return self._srtt_s if self._srtt_s is not None else 1.0

    def answered(self, rtt_s: float, sent_bytes: int, in_flight_bytes: int, now: float) -> None:
        """Learn from one answer. `in_flight_bytes` is what was in flight when it came, itself included."""
        self._backoffs = 0
        self._estimate(rtt_s)
        base_s = self._base(rtt_s, now)
        delay_s = rtt_s - base_s
        target_s = max(0.1, 0.25 * base_s)
        if delay_s > target_s:
            self._starting = False
            if now >= self._held_until_s:
                # One reduction a round trip: the answers behind this one tell of the same queue.
                self.window_bytes = max(float(_WINDOW_MIN), self.window_bytes * max(0.5, 1 - 0.5 * delay_s / rtt_s))
                self._held_until_s = now + rtt_s
        elif in_flight_bytes > 0.7 * self.window_bytes:
            # Only a window that is in use says anything about the link when it opens further.
            growth = 1.0 if self._starting else DATAGRAM_BYTES / self.window_bytes
            self.window_bytes = min(float(WINDOW_BYTES_MAX), self.window_bytes + growth * sent_bytes)

    def timed_out(self) -> None:
        """Learn that a whole retransmission timeout passed without any answer."""
        self._backoffs = min(self._backoffs + 1, 6)
        self._starting = False
        self.window_bytes = max(float(_WINDOW_MIN), self.window_bytes / 2)

    def _estimate(self, rtt_s: float) -> None:
        if self._srtt_s is None:
            self._srtt_s, self._rttvar_s = rtt_s, rtt_s / 2
            return
        self._rttvar_s += 0.25 * (abs(self._srtt_s - rtt_s) - self._rttvar_s)
        self._srtt_s += 0.125 * (rtt_s - self._srtt_s)

    def _base(self, rtt_s: float, now: float) -> float:
        # The smallest round trip of the last one to two memory periods, so that a changed path is noticed.
        if now - self._base_since_s > _BASE_RTT_MEMORY_S:
            self._base_rtt_s = self._next_base_s if self._next_base_s != float("inf") else None
            self._next_base_s, self._base_since_s = float("inf"), now
        self._next_base_s = min(self._next_base_s, rtt_s)
        self._base_rtt_s = rtt_s if self._base_rtt_s is None else min(self._base_rtt_s, rtt_s)
        return self._base_rtt_s


@dataclass(frozen=True, slots=True)
class Sent:
    """One packet in flight: `number` counts sendings, `size` is in bytes, `at` is the instant it left."""

    number: int
    size: int
    at: float
    expires_at: float


class Flight:
    """What is in flight on one link, under its pace."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.bytes = 0
        self._sent: dict[int, Sent] = {}
        self._next = 0
        self._largest_answered = -1

    def __len__(self) -> int:
        return len(self._sent)

    def __contains__(self, number: int) -> bool:
        return number in self._sent

    def has_room(self, size: int) -> bool:
        """Return whether `size` more bytes may be sent now; one packet may always be."""
        return not self._sent or self.bytes + size <= self.pace.window_bytes

    def send(self, size: int, now: float) -> int:
        """Note a sending and return its number."""
        number = self._next
        self._next += 1
        self._sent[number] = Sent(number, size, now, now + self.pace.rto_s)
        self.bytes += size
        return number

    def answer(self, number: int, now: float) -> bool:
        """Note the answer to a sending; return False when it was given up before (it teaches nothing then)."""
        sent = self._sent.pop(number, None)
        if sent is None:
            return False
        self.pace.answered(now - sent.at, sent.size, self.bytes, now)
        self.bytes -= sent.size
        self._largest_answered = max(self._largest_answered, number)
        return True

    def forget(self, number: int) -> None:
        """Take a sending out of flight without learning from it."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            self.bytes -= sent.size

    def lost(self, now: float) -> list[int]:
        """Return, and take out of flight, the sendings that count as lost now, oldest first."""
        reorder_s = 0.25 * self.pace.rtt_s
        gone = []
        expired = False
        for sent in self._sent.values():
            overtaken = sent.number + _REORDER_PACKETS <= self._largest_answered
            if overtaken and now >= sent.at + self.pace.rtt_s + reorder_s:
                gone.append(sent)
            elif now >= sent.expires_at:
                gone.append(sent)
                expired = expired or sent.number > self._largest_answered
        for sent in gone:
            self.forget(sent.number)
        if expired:
            self.pace.timed_out()
        return [sent.number for sent in gone]

    def next_timeout(self) -> float | None:
        """Return the instant at which `lost` should be asked next, or None with nothing in flight."""
        if not self._sent:
            return None
        soonest = min(sent.expires_at for sent in self._sent.values())
        wait_s = 1.25 * self.pace.rtt_s
        overtaken = [
            sent.at + wait_s for sent in self._sent.values() if sent.number + _REORDER_PACKETS <= self._largest_answered
        ]
        return min([soonest, *overtaken])
