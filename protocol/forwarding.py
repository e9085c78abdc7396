"""The forwarding machine: which parcels go up next, what an acknowledgement does to them, when to try again.

Pure: parcels waiting in the queue are offered to it, `poll_transmit` gives the next upload for a link that has room,
`handle_ack` and `handle_loss` move parcels through the one table below. It holds no parcel for ever: what it is not
told to keep lives in the store, so a restart begins by offering the queue again, and the gateway's deduplication makes
sending something twice harmless.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from msgspec.structs import replace

from protocol.messages import Ack, Upload
from protocol.numbers import (
    DATAGRAM_PAYLOAD_BYTES_MAX,
    PARCEL_ATTEMPTS_MAX,
    PARCEL_WINDOW,
    PARCELS_IN_UPLOAD_MAX,
    Precedence,
    Refusal,
)
from protocol.pace import Flight


class State(Enum):
    """Where a parcel stands on its way up."""

    QUEUED = auto()
    IN_FLIGHT = auto()
    DELIVERED = auto()
    QUARANTINED = auto()


class Happening(Enum):
    """What can happen to a parcel."""

    SENT = auto()
    ACKNOWLEDGED = auto()
    LOST = auto()
    REFUSED = auto()
    GIVEN_UP = auto()


# The one table of the machine. What is not in it cannot happen; DELIVERED and QUARANTINED are final.
TRANSITIONS: dict[tuple[State, Happening], State] = {
    (State.QUEUED, Happening.SENT): State.IN_FLIGHT,
    (State.QUEUED, Happening.ACKNOWLEDGED): State.DELIVERED,  # a late answer to a sending that counted as lost
    (State.IN_FLIGHT, Happening.ACKNOWLEDGED): State.DELIVERED,
    (State.IN_FLIGHT, Happening.LOST): State.QUEUED,
    (State.IN_FLIGHT, Happening.REFUSED): State.QUEUED,
    (State.IN_FLIGHT, Happening.GIVEN_UP): State.QUARANTINED,
}

# These refusals do not get better by trying again.
_FINAL_REFUSALS = frozenset({Refusal.MALFORMED, Refusal.BAD_SIGNATURE, Refusal.TOO_LARGE})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A parcel of the queue as the machine needs it. `attempts` counts the sendings that were refused so far."""

    sequence: int
    precedence: Precedence
    sealed: bytes = field(repr=False)
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Transmit:
    """One upload to send now: pass `number` back with its acknowledgement or loss."""

    number: int
    upload: Upload
    sequences: tuple[int, ...]
    precedence: Precedence

    def only(self, allowed: Container[int]) -> Upload:
        """Return the upload with only the parcels of these sequences."""
        pairs = zip(self.sequences, self.upload.parcels, strict=True)
        return replace(self.upload, parcels=tuple(sealed for sequence, sealed in pairs if sequence in allowed))


@dataclass(frozen=True, slots=True)
class Settled:
    """What an acknowledgement settled, to be written to the store before anything else is sent."""

    delivered: tuple[int, ...] = ()
    refused: tuple[tuple[int, Refusal], ...] = ()
    quarantined: tuple[tuple[int, Refusal], ...] = ()
    taken: tuple[int, ...] = ()  # to be sent under another number, of another epoch


@dataclass(slots=True)
class _Entry:
    waiting: Waiting
    attempts: int
    state: State = State.QUEUED


class Forwarder:
    """Forwards the parcels of one epoch over one or several links."""

    def __init__(self, epoch: int, *, window: int = PARCEL_WINDOW, known: int | None = None) -> None:
        """`known` is the last sequence that may have been sent before; None: there is nothing to doubt.

        State that was put back may give numbers again that the gateway holds for other parcels. So an acknowledgement
        counts for its own upload's parcels only, until all that was sent from here is settled and the gateway tells of
        no number beyond; for good if it does, or if a number is taken.
        """
        self.epoch = epoch
        self.forked = False
        self._in_doubt = known is not None
        self._sent_max = known or 0
        self._unsettled: set[int] = set()  # what was sent while in doubt
        self._window = window
        self._entries: dict[int, _Entry] = {}
        self._ready: list[tuple[Precedence, int]] = []
        self._flights: dict[str, Flight] = {}
        self._uploads: dict[tuple[str, int], tuple[tuple[int, ...], bool]] = {}  # sequences; was the epoch named?
        self._carried: dict[int, tuple[str, int]] = {}  # by sequence: the upload that it went with last
        self._epoch_known = False

    @property
    def room(self) -> int:
        """How many parcels may be offered now (memory is bounded by the window); urgent ones displace what waits."""
        return sum(entry.state is State.QUEUED for entry in self._entries.values()) + self._free

    @property
    def runs_low(self) -> bool:
        """Whether so few parcels wait that more should be offered."""
        waits = sum(entry.state is State.QUEUED for entry in self._entries.values())
        return waits < self._window // 2

    @property
    def in_flight(self) -> int:
        """How many uploads are in flight on all links."""
        return len(self._uploads)

    def numbers_in_flight(self, link: str) -> list[int]:
        """Return the numbers of the uploads that are in flight on a link."""
        return [number for name, number in self._uploads if name == link]

    def holds(self, sequence: int) -> bool:
        """Return whether this parcel was offered and is not settled yet."""
        return sequence in self._entries

    def newest(self, precedence: Precedence) -> int:
        """Return the highest sequence of this precedence among the parcels that are held, 0 if there is none."""
        mine = (sequence for sequence, entry in self._entries.items() if entry.waiting.precedence is precedence)
        return max(mine, default=0)

    def offer(self, parcels: Iterable[Waiting]) -> None:
        """Take parcels from the queue; ones it holds already are left as they are.

        When there is no room, a more urgent parcel takes the place of the least urgent one that waits (which the queue
        still holds and offers again); others are not taken.
        """
        for waiting in parcels:
            if waiting.sequence not in self._entries and (self._free or self._displace(waiting.precedence)):
                self._entries[waiting.sequence] = _Entry(waiting, waiting.attempts)
                heapq.heappush(self._ready, (waiting.precedence, waiting.sequence))
        self._tidy()

    def _tidy(self) -> None:
        if len(self._ready) > 4 * self._window:
            # Displaced and withdrawn parcels leave their places in the heap behind.
            queued = [entry.waiting for entry in self._entries.values() if entry.state is State.QUEUED]
            self._ready = [(waiting.precedence, waiting.sequence) for waiting in queued]
            heapq.heapify(self._ready)

    def flight(self, link: str) -> Flight:
        """Return what is in flight on a link."""
        return self._flights.setdefault(link, Flight())

    def waiting_bytes(self) -> dict[Precedence, int]:
        """Return how many bytes of each precedence are ready to go, of those that were offered."""
        found: dict[Precedence, int] = {}
        for entry in self._entries.values():
            if entry.state is State.QUEUED:
                precedence = entry.waiting.precedence
                found[precedence] = found.get(precedence, 0) + len(entry.waiting.sealed)
        return found

    def peek(self, link: str, *, only: Precedence | None = None) -> Precedence | None:
        """Return the precedence of the parcel that would go next over this link, or None when none may go now.

        `only`: parcels of this precedence, because the link may not carry the more urgent ones.
        """
        self._drop_settled()
        if not self._ready or len(self.flight(link)) >= self._window:
            return None
        precedence, sequence = self._ready[0]
        if only is not None and precedence is not only:
            precedence, sequence = only, self._first(only)
        if not sequence or not self.flight(link).has_room(len(self._entries[sequence].waiting.sealed)):
            return None
        return precedence

    def _first(self, precedence: Precedence) -> int:
        """Return the sequence of the first parcel of a precedence that is ready, 0 if there is none."""
        mine = (
            entry.waiting.sequence
            for entry in self._entries.values()
            if entry.waiting.precedence is precedence and entry.state is State.QUEUED
        )
        return min(mine, default=0)

    def poll_transmit(
        self,
        link: str,
        now: float,
        *,
        bytes_max: int | None = None,
        ask_time: bool = False,
        only: Precedence | None = None,
    ) -> Transmit | None:
        """Return the next upload for this link, or None: nothing waits, or the window is full. `only` as in `peek`.

        Parcels of the first one's precedence share the datagram while they fit it: a less urgent one must not travel on
        the budget of an urgent one, or over a link that may not carry it. `bytes_max` bounds the payload further (what
        the budget still holds).
        """
        first = self.peek(link, only=only)
        if first is None:
            return None
        # What is passed over keeps its place in the heap.
        passed = [] if only is None else [each for each in self._ready if each[0] is not only]
        if passed:
            self._ready = [each for each in self._ready if each[0] is only]
            heapq.heapify(self._ready)
            self._drop_settled()
        limit = min(DATAGRAM_PAYLOAD_BYTES_MAX, bytes_max if bytes_max is not None else DATAGRAM_PAYLOAD_BYTES_MAX)
        chosen: list[_Entry] = []
        size = 16 + (10 if not self._epoch_known else 0)
        while self._ready and len(chosen) < PARCELS_IN_UPLOAD_MAX:
            entry = self._entries[self._ready[0][1]]
            cost = len(entry.waiting.sealed) + 3
            # One parcel larger than a datagram still goes, alone: the IP layer cuts it, and it is not refused for ever.
            if size + cost > limit and (chosen or bytes_max is not None):
                break
            if entry.waiting.precedence > first:
                break
            heapq.heappop(self._ready)
            self._move(entry, Happening.SENT)
            chosen.append(entry)
            size += cost
            self._drop_settled()
        if passed:
            self._ready += passed
            heapq.heapify(self._ready)
        if not chosen:
            return None
        sequences = tuple(sorted(entry.waiting.sequence for entry in chosen))
        upload = Upload(
            parcels=tuple(self._entries[sequence].waiting.sealed for sequence in sequences),
            epoch=None if self._epoch_known else self.epoch,
            ask_time=ask_time,
        )
        self._sent_max = max(self._sent_max, sequences[-1])
        if self._in_doubt:
            self._unsettled.update(sequences)
        number = self.flight(link).send(size, now)
        self._uploads[(link, number)] = (sequences, upload.epoch is not None)
        self._carried.update(dict.fromkeys(sequences, (link, number)))
        return Transmit(number, upload, sequences, first)

    def handle_ack(self, link: str, number: int, ack: Ack, now: float) -> Settled:
        """Apply an acknowledgement, however late or often it comes, and return what it settled."""
        self.flight(link).answer(number, now)
        mine, named = self._uploads.pop((link, number), ((), False))
        self._epoch_known = not ack.epoch_unknown
        refusals = dict(ack.refused)
        if any(reason is Refusal.TAKEN for reason in refusals.values()):
            self.forked = True
        refused, quarantined, taken = [], [], []
        for sequence in mine:
            entry = self._entries.get(sequence)
            covered = ack.covers(sequence) and not ack.epoch_unknown
            reason = refusals.get(sequence)
            if entry is not None and entry.state is State.IN_FLIGHT and reason is Refusal.TAKEN:
                # Its number is covered, but for another parcel.
                self._move(entry, Happening.GIVEN_UP)
                del self._entries[sequence]
                taken.append(sequence)
                continue
            if entry is None or entry.state is not State.IN_FLIGHT or covered:
                continue
            if reason is None and ((ack.epoch_unknown and not named) or not ack.tells_of(sequence)):
                # The gateway could not tell its epoch, or the answer had no place for it: it goes again uncounted.
                self._requeue(entry, Happening.LOST)
                continue
            entry.attempts += 1
            if reason is None:
                # The gateway could not even read its sequence. It must not be sent over and over for ever.
                reason = Refusal.MALFORMED if entry.attempts >= PARCEL_ATTEMPTS_MAX else Refusal.UNKNOWN_EPOCH
            if reason in _FINAL_REFUSALS or entry.attempts >= PARCEL_ATTEMPTS_MAX:
                self._move(entry, Happening.GIVEN_UP)
                del self._entries[sequence]
                quarantined.append((sequence, reason))
            else:
                self._requeue(entry, Happening.REFUSED)
                refused.append((sequence, reason))
        delivered = [
            sequence
            for sequence in ([] if ack.epoch_unknown else mine if self.is_exact else self._entries)
            if sequence in self._entries and ack.covers(sequence)
        ]
        for sequence in delivered:
            self._move(self._entries.pop(sequence), Happening.ACKNOWLEDGED)
        self._settle_others(delivered)
        self._unsettled.difference_update(delivered, taken, [sequence for sequence, _ in quarantined])
        if mine and not ack.epoch_unknown:
            self._judge(ack)
        return Settled(tuple(sorted(delivered)), tuple(refused), tuple(quarantined), tuple(taken))

    def _settle_others(self, delivered: list[int]) -> None:
        """Take uploads out of flight that are known to have arrived, whatever became of their own answers."""
        for sequence in delivered:
            key = self._carried.pop(sequence, None)
            if key in self._uploads and not any(each in self._entries for each in self._uploads[key][0]):
                del self._uploads[key]
                self.flight(key[0]).arrived(key[1])

    @property
    def is_exact(self) -> bool:
        """Whether an acknowledgement says nothing of parcels that were not in its upload."""
        return self.forked or self._in_doubt

    def _judge(self, ack: Ack) -> None:
        """Find out from an acknowledgement whether somebody else has given numbers of this epoch."""
        if self._in_doubt and max([ack.cumulative, *(last for _, last in ack.ranges)]) > self._sent_max:
            self.forked = True
        self._in_doubt = self._in_doubt and not self.forked and bool(self._unsettled)

    def handle_loss(self, link: str, number: int) -> None:
        """Note that an upload will not be answered (its link went down, its socket failed)."""
        self.flight(link).forget(number)
        for sequence in self._uploads.pop((link, number), ((), False))[0]:
            if self._carried.get(sequence) == (link, number):
                del self._carried[sequence]
            entry = self._entries.get(sequence)
            if entry is not None and entry.state is State.IN_FLIGHT:
                self._requeue(entry, Happening.LOST)

    def handle_timeout(self, now: float) -> int:
        """Put back what counts as lost now; return how many uploads that were."""
        count = 0
        for link, flight in self._flights.items():
            for number in flight.lost(now):
                self.handle_loss(link, number)
                count += 1
        return count

    def poll_timeout(self) -> float | None:
        """Return the instant at which `handle_timeout` should be called next."""
        return min((at for flight in self._flights.values() if (at := flight.next_timeout()) is not None), default=None)

    def new_contact(self) -> None:
        """Start a contact: the gateway may be another one, so the epoch is named again until it is acknowledged."""
        self._epoch_known = False

    def withdraw(self, sequences: Iterable[int]) -> None:
        """Forget parcels that the queue no longer holds (evicted, folded)."""
        for sequence in sequences:
            self._entries.pop(sequence, None)
            self._carried.pop(sequence, None)

    def withdraw_covered(self, ack: Ack) -> None:
        """Forget parcels that arrived by another way; what flies is left to its own answer."""
        self.withdraw(
            [
                sequence
                for sequence, entry in self._entries.items()
                if entry.state is State.QUEUED and ack.covers(sequence)
            ]
        )

    @property
    def _free(self) -> int:
        return max(0, 2 * self._window - len(self._entries))

    def _displace(self, precedence: Precedence) -> bool:
        """Make room for a parcel of this precedence; return whether there was a less urgent one to put out."""
        queued = [entry.waiting for entry in self._entries.values() if entry.state is State.QUEUED]
        last = max(queued, key=lambda waiting: (waiting.precedence, waiting.sequence), default=None)
        if last is None or last.precedence <= precedence:
            return False
        del self._entries[last.sequence]
        return True

    def _requeue(self, entry: _Entry, happening: Happening) -> None:
        self._move(entry, happening)
        heapq.heappush(self._ready, (entry.waiting.precedence, entry.waiting.sequence))
        self._tidy()

    def _drop_settled(self) -> None:
        # The heap may still name parcels that a late acknowledgement has settled or that fly already.
        while self._ready:
            entry = self._entries.get(self._ready[0][1])
            if entry is not None and entry.state is State.QUEUED:
                return
            heapq.heappop(self._ready)

    @staticmethod
    def _move(entry: _Entry, happening: Happening) -> None:
        entry.state = TRANSITIONS[(entry.state, happening)]
