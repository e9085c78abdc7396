"""The transfer machine: an object of known digest and size comes down in pieces, in any order, over any link.

Receiver-driven selective repeat: the truck holds the bitmap and asks, the gateway answers. No piece is asked for again
while it may still be in flight; the state that matters (which pieces are durable) is the staging area's, so a restart,
a new address or another link continues the same bitmap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.errors import MalformedError
from protocol.messages import PiecesRequest
from protocol.numbers import PIECE_BYTES
from protocol.pace import Flight

_OUTSTANDING_MAX = 256


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to send now; pass `number` back with its answer."""

    number: int
    request: PiecesRequest


def piece_count(size: int, piece_bytes: int = PIECE_BYTES) -> int:
    """Return how many pieces an object of `size` bytes has."""
    return -(-size // piece_bytes)


class Transfer:
    """One object on its way down."""

    def __init__(self, digest: bytes, size: int, missing: Iterable[int], *, piece_bytes: int = PIECE_BYTES) -> None:
        self.digest = digest
        self.size = size
        self.piece_bytes = piece_bytes
        self._wanted: deque[int] = deque(dict.fromkeys(missing))
        self._left = set(self._wanted)
        self._flights: dict[str, Flight] = {}
        self._asked: dict[tuple[str, int], int] = {}

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
        return self._flights.setdefault(link, Flight())

    def poll_transmit(self, link: str, now: float) -> Ask | None:
        """Return the next request for this link, or None: all is asked for, or the window is full."""
        flight = self.flight(link)
        while self._wanted and self._wanted[0] not in self._left:
            self._wanted.popleft()
        if not self._wanted or len(self._asked) >= _OUTSTANDING_MAX or not flight.has_room(self.piece_bytes):
            return None
        index = self._wanted.popleft()
        number = flight.send(self.expected_bytes(index), now)
        self._asked[(link, number)] = index
        return Ask(number, PiecesRequest(self.digest, index, 1))

    def handle_piece(self, link: str, ask: Ask, data: bytes, now: float) -> int | None:
        """Take the answer to a request, however late; return the index of its piece, or None when that is held already.

        Raises `MalformedError` when its length is not the one that the object's size asks for; the piece goes again.
        """
        self.flight(link).answer(ask.number, now)
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
        self.flight(link).forget(number)
        index = self._asked.pop((link, number), None)
        if index is not None and index in self._left:
            self._wanted.appendleft(index)

    def handle_timeout(self, now: float) -> int:
        """Put back what counts as lost now; return how many requests that were."""
        count = 0
        for link, flight in self._flights.items():
            for number in flight.lost(now):
                self.handle_loss(link, number)
                count += 1
        return count

    def poll_timeout(self) -> float | None:
        """Return the instant at which `handle_timeout` should be called next."""
        return min((at for flight in self._flights.values() if (at := flight.next_timeout()) is not None), default=None)
