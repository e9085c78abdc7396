"""Bursts: many pieces for one request, each a datagram of its own, spaced as the truck asked.

The truck says how fast, since it alone knows what its link delivers and what its budget has reserved; the gateway sends
nothing again, and keeps nothing once the last piece has left. Each answer takes a sequence number of this side, which
are reserved in the database in blocks, before they are used.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from gateway.coap import Request
from gateway.peers import Peer, Peers
from protocol.errors import PeerError
from protocol.messages import BurstRequest
from protocol.numbers import BURST_PIECES_MAX, Precedence
from protocol.oscoreburst import AnswererCipher, Piece
from protocol.oscorebytes import ProtectedRequest
from store.account import Account
from store.coapinterface import MeteredInterface
from store.coapmeter import Exchange

log = structlog.get_logger("gateway.bursts")

# What one session may have under way: four windows of the largest link. More is not answered, as if it had been lost.
_UNDER_WAY_MAX = 4_096
_SEQUENCES_AHEAD = 2 * BURST_PIECES_MAX

# The pieces of a request, what they are booked on, and how urgent they are; raises `PeerError`.
Pieces = Callable[[Request, BurstRequest], Awaitable[tuple[list[bytes], str, Precedence]]]


class Bursts:
    """Sends bursts over one socket."""

    def __init__(self, interface: MeteredInterface, peers: Peers, pieces: Pieces) -> None:
        self._interface = interface
        self._peers = peers
        self._pieces = pieces
        self._under_way: Counter[bytes] = Counter()

    async def serve(
        self, peer: Peer, request: ProtectedRequest, asked: Request, exchange: Exchange
    ) -> PeerError | None:
        """Answer a request with its pieces; return why not, when the request is at fault."""
        try:
            wanted = BurstRequest.decode(asked.payload)
            count = len(wanted.pieces())
            if self._under_way[peer.kid] + count > _UNDER_WAY_MAX:
                return None
            pieces, cause, precedence = await self._pieces(asked, wanted)
        except PeerError as refusal:
            return refusal
        account = Account(precedence, cause, peer.truck, peer.link)
        self._interface.meter.assign(exchange, account)
        self._under_way[peer.kid] += count
        try:
            await self._send(peer, request, asked.remote, pieces, wanted.spacing_us / 1_000_000, account)
        except PeerError as ended:
            log.info("burst.ended", truck=peer.truck, link=peer.link, reason=str(ended))
        finally:
            self._under_way[peer.kid] -= count
            if self._under_way[peer.kid] <= 0:
                del self._under_way[peer.kid]
        return None

    async def _send(
        self,
        peer: Peer,
        request: ProtectedRequest,
        remote: Any,
        pieces: list[bytes],
        spacing_s: float,
        account: Account,
    ) -> None:
        loop = asyncio.get_running_loop()
        keys = peer.context
        cipher = AnswererCipher(keys.sender_key, keys.common_iv, keys.sender_id)
        started = loop.time()
        for ordinal, data in enumerate(pieces):
            await self._peers.ensure_sequences(peer, ahead=_SEQUENCES_AHEAD)
            # Instants are those of the plan: a pause that was too long is made up for.
            wait_s = started + ordinal * spacing_s - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            sequence = keys.new_sequence_number()
            piece = Piece(ordinal, data)
            datagram = cipher.answer(request, piece, message_id=self._interface.next_message_id(), sequence=sequence)
            self._interface.answer(datagram, remote, account)
