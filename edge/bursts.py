"""The bursts of one link: requests that many datagrams answer, past aiocoap's message layer, which knows one answer.

A burst only goes where a plain request was just answered: it has no handshake, no Echo and no renewal of a session of
its own. After whatever is not a piece (an unprotected answer, a gateway that knows no bursts) the plain way is taken.
A token is kept for as long as an answer may still come: pieces that come late are taken, and paid for by the charge of
their request; of the reservation only what is still missing is kept back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge.spending import Charge, Spending, Unmetered
from protocol.numbers import OSCORE_REKEY_AFTER, Precedence
from protocol.oscore import LinkContext
from protocol.oscoreburst import ANSWER_OVERHEAD_BYTES, AskerCipher, Piece, Refused, partial_iv
from protocol.pace import Pace
from protocol.transfer import Burst
from store.coapinterface import MeteredInterface
from store.coapmeter import Exchange
from store.errors import ContextGoneError

# Longer than any link holds a datagram back; tokens rest for longer than that.
_LATE_S = 60.0
# The second copy of a request, where one is sent: behind the burst of loss that may have taken the first.
_COPY_S = 0.03
_CODE_OF_ANSWERS = 0x40
_NOT_KNOWN = (0x84, 0x85)  # 4.04 and 4.05: a gateway of before there were bursts


@dataclass(slots=True, eq=False)
class _Asked:
    burst: Burst
    asked_at: float
    cipher: AskerCipher
    piv: bytes
    charge: Charge
    heard: Callable[[int, bytes], None]
    missing: set[int]
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def is_silent(self) -> bool:
        return len(self.missing) == len(self.burst.asks)


class Bursts:
    """All bursts that are under way on one link, and what is known of its way down, which outlives a download."""

    def __init__(
        self,
        spending: Spending | Unmetered,
        *,
        monotonic: Callable[[], float],
        on_heard: Callable[[float], None],
        count: Callable[..., None],
    ) -> None:
        """`on_heard` is told the round trip of each burst that is answered, `count` whether it was lost."""
        self.pace = Pace()
        self._spending = spending
        self._monotonic = monotonic
        self._on_heard = on_heard
        self._count = count
        self._asked: dict[bytes, _Asked] = {}
        self._interface: MeteredInterface | None = None
        self._proven: tuple[LinkContext, Any, str] | None = None
        self._knows_none: str | None = None
        self._cipher: tuple[LinkContext, AskerCipher] | None = None

    def attach(self, interface: MeteredInterface) -> None:
        """Take the answers that arrive at this socket from here on."""
        self.detach()
        self._interface = interface
        interface.shortcut = self._take

    def detach(self) -> None:
        """Give up all that is under way: its socket goes."""
        self.doubt()
        self._interface = None
        for token in list(self._asked):
            self._end(token)

    def prove(self, session: LinkContext, remote: Any, gateway: str) -> None:
        """Note that a plain request was answered under this session, from there."""
        self._proven = session, remote, gateway

    def doubt(self) -> None:
        """Note that the session, the socket or the gateway may be gone: a plain request goes first."""
        self._proven = None

    def may_go(self, session: LinkContext | None, gateway: str) -> bool:
        """Return whether a burst may go under this session to this gateway."""
        return (
            self._interface is not None
            and self._proven is not None
            and self._proven[0] is session
            and self._proven[2] == gateway != self._knows_none
            and self._proven[0].sender_sequence_number < OSCORE_REKEY_AFTER
        )

    def ask(self, burst: Burst, heard: Callable[[int, bytes], None], *, precedence: Precedence, cause: str) -> None:
        """Send a request where one `may_go`; `heard` gets the ordinal and the bytes of each piece that comes, once.

        Raises `BudgetExceededError` when not all of its answers can be paid for.
        """
        interface = self._interface
        assert interface is not None
        assert self._proven is not None
        session, remote, _ = self._proven
        payload = burst.request.encode()
        answers = sum(burst.lengths) + len(burst.lengths) * ANSWER_OVERHEAD_BYTES
        charge = self._spending.open(precedence, cause, request_bytes=len(payload), answer_bytes=answers)
        try:
            sequence = session.new_sequence_number()
        except ContextGoneError:
            self._spending.settle(charge)
            self.doubt()
            return
        cipher, token = self._cipher_of(session), interface.next_token()
        data = cipher.request(payload, token=token, message_id=interface.next_message_id(), sequence=sequence)
        missing = set(range(len(burst.asks)))
        asked = _Asked(burst, self._monotonic(), cipher, partial_iv(sequence), charge, heard, missing)
        self._end(token)
        self._asked[token] = asked
        interface.ask(data, remote, charge)
        later = asyncio.get_running_loop().call_later
        patience_s = len(missing) * burst.request.spacing_us / 1_000_000 + 2 * self.pace.rto_s
        asked.timers += [later(copy * _COPY_S, self._again, asked, data, remote) for copy in range(1, burst.copies)]
        asked.timers.append(later(patience_s, self._narrow, asked))
        asked.timers.append(later(patience_s + _LATE_S, self._end, token))

    def _cipher_of(self, session: LinkContext) -> AskerCipher:
        if self._cipher is None or self._cipher[0] is not session:
            keys = session.sender_key, session.recipient_key, session.common_iv
            self._cipher = session, AskerCipher(*keys, session.sender_id, session.recipient_id)
        return self._cipher[1]

    def _again(self, asked: _Asked, data: bytes, remote: Any) -> None:
        # A piece says that the first copy has arrived.
        if self._interface is not None and asked.is_silent:
            self._interface.ask(data, remote, asked.charge)

    def _narrow(self, asked: _Asked) -> None:
        """Give back what was reserved beyond the pieces that may still come."""
        if asked.missing:
            late = [asked.burst.lengths[ordinal] + ANSWER_OVERHEAD_BYTES for ordinal in asked.missing]
            self._spending.narrow(asked.charge, sum(late))
            if asked.is_silent:
                self._count(lost=True)

    def _end(self, token: bytes) -> None:
        asked = self._asked.pop(token, None)
        if asked is not None:
            for timer in asked.timers:
                timer.cancel()
            self._spending.settle(asked.charge)

    def _take(self, data: bytes, remote: Any, exchange: Exchange) -> bool:
        """Take a datagram over that answers a burst."""
        del remote, exchange
        asked = self._asked.get(data[4 : 4 + (data[0] & 0x0F)])
        if asked is None or data[1] < _CODE_OF_ANSWERS:
            return False
        answer = asked.cipher.open(data, asked.piv)
        if isinstance(answer, Refused):
            if asked.missing:
                self._refused(answer.code)
        elif isinstance(answer, Piece) and answer.ordinal in asked.missing:
            self._heard(asked, answer)
        return True

    def _heard(self, asked: _Asked, piece: Piece) -> None:
        if asked.is_silent:
            planned_s = piece.ordinal * asked.burst.request.spacing_us / 1_000_000
            self._on_heard(max(0.0, self._monotonic() - asked.asked_at - planned_s))
            self._count(lost=False)
        asked.missing.discard(piece.ordinal)
        if not asked.missing:
            # Its token stays known: what the network doubles must not look like an answer to nothing.
            self._spending.settle(asked.charge)
        asked.heard(piece.ordinal, piece.data)

    def _refused(self, code: int | None) -> None:
        if code in _NOT_KNOWN and self._proven is not None:
            self._knows_none = self._proven[2]
        self.doubt()
