"""The transfer machine: an object of known digest and size comes down in pieces, in any order, over any link.

Receiver-driven selective repeat: the truck holds the bitmap and asks, the gateway answers. No piece is asked for again
while it may still be in flight; the state that matters (which pieces are durable) is the staging area's, so a restart,
a new address or another link continues the same bitmap.

A request asks for one piece (FETCH /p) or for a burst of them (FETCH /b), of which several share a window, so that a
lost request costs a fraction of it. Where requests are lost often each leaves twice, which costs a hundredth of what it
asks for. The last lost pieces, which would take a round trip each time they are lost, are asked for twice, in two
requests: of those few bytes some are paid for twice, `REPEATED_PIECES_MAX` pieces at the most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from protocol.errors import MalformedError
from protocol.messages import BurstRequest, PiecesRequest
from protocol.numbers import BURST_PIECES_MAX, BURST_SPACING_US_MAX, PIECE_BYTES
from protocol.pace import Flight, Pace

REPEATED_PIECES_MAX = 32  # asked for twice at the end of a lossy transfer, as a precaution
_OUTSTANDING_MAX = 1_024
_BURSTS_IN_WINDOW = 5
_BURST_PIECES = 16
_REACH_PIECES = 1 << 16  # from the first piece of a burst to its last
_REQUEST_LOSS_TO_REPEAT = 0.08
_TAIL_LOSS_TO_REPEAT = 0.08
_TELLING_PIECES = 3  # so many are hardly ever all lost by themselves: their request was
_REQUESTS_REMEMBERED = 32
_REQUESTS_TO_TELL = 6  # before that many a request that is lost costs a timeout, and another one nearly nothing
_ASIDE_MAX = 16


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to send now; pass `number` back with its answer."""

    number: int
    request: PiecesRequest


@dataclass(frozen=True, slots=True)
class Burst:
    """One request for several pieces: the answer with ordinal n is that of `asks[n]`. Send it `copies` times."""

    request: BurstRequest
    asks: tuple[Ask, ...]
    lengths: tuple[int, ...]
    copies: int = 1


@dataclass(slots=True)
class _Way:
    """What a transfer knows of one link: what is in flight there, and how often its requests get lost."""

    flight: Flight
    bursts: dict[int, list[int]] = field(default_factory=dict)  # by number: the unsettled numbers of its burst
    request_loss: float = 0.0
    requests: int = 0
    repeats: bool = False

    def copies(self, pieces: int) -> int:
        """Return how often a request for so many pieces should be sent."""
        # Sent twice, they are lost by the square of the usual share.
        self.repeats = self.request_loss > (_REQUEST_LOSS_TO_REPEAT**2 if self.repeats else _REQUEST_LOSS_TO_REPEAT)
        is_new = pieces >= _TELLING_PIECES and self.requests < _REQUESTS_TO_TELL and not self.flight.pace.is_clean
        return 1 + (self.repeats or is_new) + bool(self.flight.pace.backoffs)

    def settle(self, number: int, *, arrived: bool) -> None:
        """Note that a piece of a burst has come or is lost."""
        mine = self.bursts.pop(number, None)
        if not mine:
            return  # not of a burst, or its burst is known to have arrived
        if arrived:
            self._count(lost=False)
            mine.clear()
            return
        mine.remove(number)
        if not mine:
            self._count(lost=True)

    def _count(self, *, lost: bool) -> None:
        self.requests = min(self.requests + 1, _REQUESTS_REMEMBERED)
        self.request_loss += (lost - self.request_loss) / self.requests


def piece_count(size: int, piece_bytes: int = PIECE_BYTES) -> int:
    """Return how many pieces an object of `size` bytes has."""
    return -(-size // piece_bytes)


class Transfer:
    """One object on its way down."""

    def __init__(
        self,
        digest: bytes,
        size: int,
        missing: Iterable[int],
        *,
        piece_bytes: int = PIECE_BYTES,
        paces: Mapping[str, Pace] | None = None,
    ) -> None:
        """`paces` are what is known of links from transfers before this one."""
        self.digest = digest
        self.size = size
        self.piece_bytes = piece_bytes
        self._wanted: deque[int] = deque(dict.fromkeys(missing))
        self._left = set(self._wanted)
        self._paces = paces or {}
        self._ways: dict[str, _Way] = {}
        self._asked: dict[tuple[str, int], int] = {}
        self._copies = REPEATED_PIECES_MAX

    @property
    def complete(self) -> bool:
        """Whether every piece has arrived."""
        return not self._left

    @property
    def pieces_left(self) -> int:
        """How many pieces have not arrived."""
        return len(self._left)

    def expected_bytes(self, index: int) -> int:
        """Return the length that piece `index` must have."""
        return min(self.piece_bytes, self.size - index * self.piece_bytes)

    def flight(self, link: str) -> Flight:
        """Return what is in flight on a link."""
        return self._way(link).flight

    def _way(self, link: str) -> _Way:
        way = self._ways.get(link)
        if way is None:
            way = self._ways[link] = _Way(Flight(self._paces.get(link)))
        return way

    def poll_burst(self, link: str, now: float, *, pieces_max: int = BURST_PIECES_MAX) -> Burst | None:
        """Return the next request for several pieces, of at most `pieces_max`, or None: all is asked for, or no room.

        It asks for less only where less is left: a burst waits for room of its size.
        """
        way = self._way(link)
        flight, pace = way.flight, way.flight.pace
        window = int(pace.window_bytes) // self.piece_bytes
        size = max(1, min(_BURST_PIECES, pieces_max, max(window // _BURSTS_IN_WINDOW, min(3, window // 3))))
        # Half a burst beyond the window: it is the window on average that a link should have.
        if len(flight) and flight.bytes + size * self.piece_bytes // 2 > pace.window_bytes:
            return None
        chosen = self._choose(min(size, _OUTSTANDING_MAX - len(self._asked)))
        if not chosen:
            return None
        spacing_us = min(BURST_SPACING_US_MAX, int(pace.spacing_s * 1_000_000))
        asks = []
        for turn, index in enumerate(chosen):
            at = now + turn * spacing_us / 1_000_000
            asks.append(self._sent(link, index, flight.send(self.expected_bytes(index), now, at=at)))
        if len(asks) >= _TELLING_PIECES:
            unsettled = [ask.number for ask in asks]
            way.bursts.update(dict.fromkeys(unsettled, unsettled))
        lengths = tuple(self.expected_bytes(index) for index in chosen)
        return Burst(BurstRequest.of(self.digest, chosen, spacing_us), tuple(asks), lengths, way.copies(len(asks)))

    def _choose(self, count: int) -> list[int]:
        """Take up to `count` wanted pieces that one request can name; in ascending order."""
        chosen: list[int] = []
        aside = []
        while self._wanted and len(chosen) < count:
            index = self._wanted.popleft()
            if index not in self._left:
                continue
            if index in chosen or (chosen and abs(index - chosen[0]) > _REACH_PIECES):
                aside.append(index)
                if len(aside) >= _ASIDE_MAX:
                    break
            else:
                chosen.append(index)
        self._wanted.extendleft(reversed(aside))
        return sorted(chosen)

    def _sent(self, link: str, index: int, number: int) -> Ask:
        self._asked[(link, number)] = index
        return Ask(number, PiecesRequest(self.digest, index, 1))

    def poll_transmit(self, link: str, now: float) -> Ask | None:
        """Return the next request for this link, or None: all is asked for, or the window is full."""
        flight = self.flight(link)
        while self._wanted and self._wanted[0] not in self._left:
            self._wanted.popleft()
        if not self._wanted or len(self._asked) >= _OUTSTANDING_MAX or not flight.has_room(self.piece_bytes):
            return None
        index = self._wanted.popleft()
        return self._sent(link, index, flight.send(self.expected_bytes(index), now))

    def handle_piece(self, link: str, ask: Ask, data: bytes, now: float) -> int | None:
        """Take the answer to a request, however late; return the index of its piece, or None when that is held already.

        Raises `MalformedError` when its length is not the one that the object's size asks for; the piece goes again.
        """
        way = self._way(link)
        way.flight.answer(ask.number, now)
        way.settle(ask.number, arrived=True)
        outstanding = self._asked.pop((link, ask.number), None) is not None
        index = ask.request.first
        if index not in self._left:
            return None
        if len(data) != self.expected_bytes(index):
            if outstanding:
                # One that counted as lost was put back then; it may even be in flight again.
                self._wanted.append(index)
            raise MalformedError(f"piece {index} has {len(data)} bytes, not {self.expected_bytes(index)}")
        self._left.discard(index)
        return index

    def handle_loss(self, link: str, number: int) -> None:
        """Note that a request will not be answered."""
        way = self._way(link)
        way.flight.forget(number)
        way.settle(number, arrived=False)
        index = self._asked.pop((link, number), None)
        if index is None or index not in self._left:
            return
        is_tail = len(self._left) <= len(self._asked) + REPEATED_PIECES_MAX
        if is_tail and self._copies and way.flight.pace.loss > _TAIL_LOSS_TO_REPEAT:
            self._copies -= 1
            self._wanted.appendleft(index)
        self._wanted.appendleft(index)

    def give_up(self, link: str) -> None:
        """Note that nothing in flight on a link will be answered: it is gone."""
        for name, number in [each for each in self._asked if each[0] == link]:
            self.handle_loss(name, number)

    def handle_timeout(self, now: float) -> int:
        """Put back what counts as lost now; return how many requests that were."""
        count = 0
        for link, way in self._ways.items():
            for number in way.flight.lost(now):
                self.handle_loss(link, number)
                count += 1
        return count

    def poll_timeout(self) -> float | None:
        """Return the instant at which `handle_timeout` should be called next."""
        return min((at for way in self._ways.values() if (at := way.flight.next_timeout()) is not None), default=None)
