"""A link as arithmetic: when does an IP packet that is offered now come out at the other end, if at all.

Pure: `now` and randomness come in, delivery instants come out, so the same model serves the demo's UDP relay, a tun
forwarder and a simulation under a fake clock. The order inside a direction: tail-drop queue, serialisation at the
rate of that moment, loss on the air, propagation with jitter, reordering, duplication. Lost packets have used the
link's time; packets that the queue refused have not.

Deliberately absent: fairness between flows, and error bits inside a packet (UDP's checksum drops those).
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from enum import Enum

IPV4_UDP_HEADER_BYTES = 28
IPV6_UDP_HEADER_BYTES = 48


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Bursty loss: a good and a bad state, changed at most once a packet, each with its own loss."""

    good_to_bad: float
    bad_to_good: float
    loss_good: float = 0.0
    loss_bad: float = 1.0

    def __post_init__(self) -> None:
        for probability in (self.good_to_bad, self.bad_to_good, self.loss_good, self.loss_bad):
            _check_probability(probability)

    @classmethod
    def of_mean(cls, *, loss: float, burst_packets: float) -> GilbertElliott:
        """Return the two-state channel that loses the share `loss`, in bursts of `burst_packets` on average."""
        if not 0.0 <= loss < 1.0 or burst_packets < 1.0:
            raise ValueError("a mean loss is in [0, 1) and a burst is at least one packet")
        good_to_bad = loss / (burst_packets * (1.0 - loss))
        if good_to_bad > 1.0:
            raise ValueError(f"bursts of {burst_packets} packets cannot reach a loss of {loss}")
        return cls(good_to_bad=good_to_bad, bad_to_good=1.0 / burst_packets)


@dataclass(frozen=True, slots=True)
class OutageProfile:
    """When a link is dead in both directions: a list of [start, end) in seconds, or random on and off, or both."""

    scheduled_s: tuple[tuple[float, float], ...] = ()
    mean_up_s: float = 0.0
    mean_down_s: float = 0.0

    def __post_init__(self) -> None:
        edges = [edge for interval in self.scheduled_s for edge in interval]
        if edges != sorted(edges):
            raise ValueError("scheduled outages are in order and do not overlap")
        if self.mean_up_s < 0 or self.mean_down_s < 0 or (self.mean_up_s > 0) != (self.mean_down_s > 0):
            raise ValueError("random outages need a mean time up and a mean time down")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a link is like from `at_s` on; None: as its profile says."""

    at_s: float
    rate_bps: float
    delay_s: float | None = None
    jitter_s: float | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        _check_probability(self.loss or 0.0)
        if self.rate_bps <= 0 or min(self.at_s, self.delay_s or 0.0, self.jitter_s or 0.0) < 0:
            raise ValueError("a condition has a rate above zero and no negative time; a dead link is an outage")


@dataclass(frozen=True, slots=True)
class DirectionProfile:
    """What one direction of a link does to a packet; `conditions` change it, `rate_changes` only its rate.

    Instants count from the model's start.
    """

    rate_bps: float
    queue_bytes_max: int
    delay_s: float
    jitter_s: float = 0.0
    loss: float = 0.0
    burst_loss: GilbertElliott | None = None
    duplication: float = 0.0
    reordering: float = 0.0
    reordering_delay_s: float = 0.05
    mtu_bytes: int = 1500
    rate_changes: tuple[tuple[float, float], ...] = ()
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for probability in (self.loss, self.duplication, self.reordering):
            _check_probability(probability)
        if self.rate_bps <= 0 or any(rate <= 0 for _, rate in self.rate_changes):
            raise ValueError("a rate is above zero; a dead link is an outage")
        if list(self.rate_changes) != sorted(self.rate_changes, key=lambda change: change[0]):
            raise ValueError("rate changes are in order of time")
        if [each.at_s for each in self.conditions] != sorted(each.at_s for each in self.conditions):
            raise ValueError("conditions are in order of time")
        if min(self.delay_s, self.jitter_s, self.reordering_delay_s, self.queue_bytes_max, self.mtu_bytes) < 0:
            raise ValueError("delays and sizes are not negative")


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """Both directions of a link, seen from the truck: `up` leaves it, `down` reaches it."""

    name: str
    up: DirectionProfile
    down: DirectionProfile
    outages: OutageProfile = OutageProfile()


class Fate(Enum):
    """Why a packet did not come out."""

    OVERSIZE = "oversize"
    OUTAGE = "outage"
    QUEUE_FULL = "queue_full"
    LOSS = "loss"
    BURST_LOSS = "burst_loss"


@dataclass(frozen=True, slots=True)
class Tally:
    """Packets and their IP bytes."""

    packets: int = 0
    bytes_ip: int = 0

    def plus(self, bytes_ip: int) -> Tally:
        """Return the tally with one more packet."""
        return Tally(packets=self.packets + 1, bytes_ip=self.bytes_ip + bytes_ip)


@dataclass(frozen=True, slots=True)
class DirectionCounts:
    """What happened so far: offered = delivered + the five reasons; a duplicate is counted apart, on top.

    A packet counts as delivered when its delivery is decided, which is before it has arrived.
    """

    offered: Tally
    delivered: Tally
    duplicated: Tally
    oversize: Tally
    outage: Tally
    queue_full: Tally
    loss: Tally
    burst_loss: Tally

    @property
    def dropped_packets(self) -> int:
        """Packets that did not come out, for any reason."""
        return self.offered.packets - self.delivered.packets


class Outages:
    """The dead times of one link, the same for both directions; random ones are drawn as time goes on."""

    def __init__(self, profile: OutageProfile, rng: random.Random, start: float) -> None:
        self.forced = False
        self._profile = profile
        self._rng = rng
        self._start = start
        self._drawn: deque[tuple[float, float]] = deque()
        self._drawn_until = start

    def is_dead(self, at: float, now: float) -> bool:
        """Say whether the link is dead at the instant `at`, which is not before `now`."""
        if self.forced or any(start <= at - self._start < end for start, end in self._profile.scheduled_s):
            return True
        if self._profile.mean_up_s <= 0:
            return False
        while self._drawn_until <= at:
            start = self._drawn_until + self._rng.expovariate(1.0 / self._profile.mean_up_s)
            self._drawn_until = start + self._rng.expovariate(1.0 / self._profile.mean_down_s)
            self._drawn.append((start, self._drawn_until))
        # Nobody asks about the past again, so it need not be kept.
        while self._drawn[0][1] < now and len(self._drawn) > 1:
            self._drawn.popleft()
        return any(start <= at < end for start, end in self._drawn)


class Direction:
    """One direction of a link. `now` is monotonic seconds and never falls between calls."""

    def __init__(self, profile: DirectionProfile, rng: random.Random, outages: Outages, start: float) -> None:
        self.profile = profile
        self._rng = rng
        self._outages = outages
        changes = profile.rate_changes or tuple((each.at_s, each.rate_bps) for each in profile.conditions)
        self._changes = tuple((start + at, rate) for at, rate in changes)
        self._conditions = deque((start + each.at_s, each) for each in profile.conditions)
        self._delay_s, self._jitter_s, self._loss = profile.delay_s, profile.jitter_s, profile.loss
        self._waiting: deque[tuple[float, int]] = deque()
        self._waiting_bytes = 0
        self._free_at = start
        self._last_in_order = start
        self._bad = False
        self._offered = self._delivered = self._duplicated = Tally()
        self._dropped = dict.fromkeys(Fate, Tally())

    def offer(self, packet_bytes: int, now: float) -> tuple[float, ...]:
        """Put one IP packet (its whole length, headers included) on the link.

        Returns the instants at which copies of it come out: none if it is lost, two if it is duplicated. Instants of
        successive packets may be out of order only by reordering and duplication.
        """
        self._offered = self._offered.plus(packet_bytes)
        if packet_bytes > self.profile.mtu_bytes:
            return self._drop(Fate.OVERSIZE, packet_bytes)
        if self._outages.is_dead(now, now):
            return self._drop(Fate.OUTAGE, packet_bytes)
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting_bytes -= self._waiting.popleft()[1]
        if self._waiting_bytes + packet_bytes > self.profile.queue_bytes_max:
            return self._drop(Fate.QUEUE_FULL, packet_bytes)
        departure = self._serialised_at(packet_bytes, max(now, self._free_at))
        self._free_at = departure
        self._waiting.append((departure, packet_bytes))
        self._waiting_bytes += packet_bytes
        if self._outages.is_dead(departure, now):
            return self._drop(Fate.OUTAGE, packet_bytes)
        if self._in_burst():
            return self._drop(Fate.BURST_LOSS, packet_bytes)
        self._change(departure)
        if self._rng.random() < self._loss:
            return self._drop(Fate.LOSS, packet_bytes)
        self._delivered = self._delivered.plus(packet_bytes)
        return self._arrivals(departure, packet_bytes)

    def queued_bytes(self, now: float) -> int:
        """Return the bytes that have not left the sending end yet."""
        return sum(size for departure, size in self._waiting if departure > now)

    @property
    def counts(self) -> DirectionCounts:
        """What happened so far."""
        return DirectionCounts(
            offered=self._offered,
            delivered=self._delivered,
            duplicated=self._duplicated,
            oversize=self._dropped[Fate.OVERSIZE],
            outage=self._dropped[Fate.OUTAGE],
            queue_full=self._dropped[Fate.QUEUE_FULL],
            loss=self._dropped[Fate.LOSS],
            burst_loss=self._dropped[Fate.BURST_LOSS],
        )

    def _drop(self, fate: Fate, packet_bytes: int) -> tuple[float, ...]:
        self._dropped[fate] = self._dropped[fate].plus(packet_bytes)
        return ()

    def _serialised_at(self, packet_bytes: int, begin: float) -> float:
        """Return when the last bit has left, through every change of rate on the way."""
        bits = packet_bytes * 8.0
        rate = self.profile.rate_bps
        for at, new_rate in self._changes:
            if at > begin:
                if bits <= (at - begin) * rate:
                    break
                bits -= (at - begin) * rate
                begin = at
            rate = new_rate
        return begin + bits / rate

    def _in_burst(self) -> bool:
        model = self.profile.burst_loss
        if model is None:
            return False
        if self._rng.random() < (model.bad_to_good if self._bad else model.good_to_bad):
            self._bad = not self._bad
        return self._rng.random() < (model.loss_bad if self._bad else model.loss_good)

    def _change(self, departure: float) -> None:
        """Let the conditions begin that hold when a packet leaves; departures never go back."""
        while self._conditions and self._conditions[0][0] <= departure:
            _, now = self._conditions.popleft()
            self._delay_s = self.profile.delay_s if now.delay_s is None else now.delay_s
            self._jitter_s = self.profile.jitter_s if now.jitter_s is None else now.jitter_s
            self._loss = self.profile.loss if now.loss is None else now.loss

    def _arrivals(self, departure: float, packet_bytes: int) -> tuple[float, ...]:
        profile = self.profile
        arrival = departure + self._delay_s + self._rng.uniform(0.0, self._jitter_s)
        if self._rng.random() < profile.reordering:
            # A late packet does not hold up those behind it: that is what reordering is.
            arrival += profile.reordering_delay_s
        else:
            arrival = self._last_in_order = max(arrival, self._last_in_order)
        if self._rng.random() >= profile.duplication:
            return (arrival,)
        self._duplicated = self._duplicated.plus(packet_bytes)
        return arrival, arrival + self._rng.uniform(0.0, max(self._jitter_s, 0.001))


class Link:
    """Both directions of one link with their shared outages; the same seed and the same offers replay bit for bit."""

    def __init__(self, profile: LinkProfile, *, seed: int, start: float) -> None:
        self.profile = profile
        self.outages = Outages(profile.outages, _generator(seed, "outages"), start)
        self.up = Direction(profile.up, _generator(seed, "up"), self.outages, start)
        self.down = Direction(profile.down, _generator(seed, "down"), self.outages, start)

    def become(self, profile: LinkProfile, *, seed: int, start: float) -> None:
        """Be as another profile says, from `start` on; what is on the air already still arrives."""
        self.__init__(profile, seed=seed, start=start)  # type: ignore[misc]

    def set_outage(self, on: bool) -> None:
        """Cut the link in both directions until further notice; what is on the air already still arrives."""
        self.outages.forced = on


def _generator(seed: int, part: str) -> random.Random:
    # One generator a part, so that traffic in one direction does not change the fate of the other.
    return random.Random(f"{seed}/{part}")  # noqa: S311 - emulation wants a replayable generator, not a secret one


def _check_probability(value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{value} is not a probability")


def _satellite_direction() -> DirectionProfile:
    # Two seconds of queue: satellite terminals buffer deeply. Jitter is centred so that the mean RTT is 600 ms.
    return DirectionProfile(rate_bps=64_000, queue_bytes_max=16_000, delay_s=0.295, jitter_s=0.010, loss=0.05)


def _lte_direction() -> DirectionProfile:
    return DirectionProfile(rate_bps=2_000_000, queue_bytes_max=128_000, delay_s=0.035, jitter_s=0.010, loss=0.02)


def _depot_direction() -> DirectionProfile:
    return DirectionProfile(rate_bps=20_000_000, queue_bytes_max=512_000, delay_s=0.005)


SATELLITE = LinkProfile(name="satellite", up=_satellite_direction(), down=_satellite_direction())
LTE = LinkProfile(
    name="lte",
    up=_lte_direction(),
    down=_lte_direction(),
    outages=OutageProfile(mean_up_s=45.0, mean_down_s=6.0),
)
DEPOT = LinkProfile(name="depot", up=_depot_direction(), down=_depot_direction())
