"""The fast lane: uploads from trucks with a session, past aiocoap's message layer, which costs more than the rest.

A request comes this way when it is in the one shape of `protocol.oscorebytes`, of a context that is in memory with an
open replay window, not yet seen, and inside a POST /u without further options. Then it meets what any other meets:
admission before, the same replay window, handler and commit group, the meter and the gate of answers after. Whatever is
unusual is left untouched to the other lane, before anything is noted of it: Echo, EDHOC, blocks, other resources,
unknown or revoked trucks, replays, what does not decrypt. Both lanes answer the same bytes; tests compare them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiocoap.numbers import codes

from gateway.admission import Admission
from gateway.bursts import Bursts, Pieces
from gateway.coap import Answer, Handler, Reply, Request, reply_to
from gateway.peers import Peer, Peers
from protocol import oscorebytes
from protocol.numbers import PATH_BURST, PATH_UPLOAD
from protocol.oscoreburst import BURST_HEAD
from protocol.oscorebytes import ProtectedRequest
from store.coapinterface import MeteredInterface
from store.coapmeter import Exchange, plain_host

# Inside: POST, one Uri-Path of one letter (RFC 7252 section 3.1), and a payload.
_UPLOAD_HEAD = bytes([int(codes.POST), 0xB1]) + PATH_UPLOAD.encode() + b"\xff"


class FastLane:
    """The fast lane of one CoAP socket; `close` it before the socket."""

    def __init__(
        self,
        interface: MeteredInterface,
        peers: Peers,
        upload: Handler,
        admission: Admission,
        pieces: Pieces | None = None,
    ) -> None:
        """Take over what fits of the requests that arrive at `interface`; `pieces` None: no bursts."""
        self._interface = interface
        self._peers = peers
        self._upload = upload
        self._admission = admission
        self._bursts = Bursts(interface, peers, pieces) if pieces is not None else None
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken = 0
        interface.shortcut = self.take

    def close(self) -> None:
        """Take nothing more, and answer nothing that is not committed yet."""
        self._interface.shortcut = None
        for task in self._tasks:
            task.cancel()

    def take(self, data: bytes, remote: Any, exchange: Exchange) -> bool:
        """Take a request over, and return True; or return False, with nothing noted of it."""
        if exchange.arrivals > 1:
            # What a network doubled gets no second answer (RFC 7252 section 4.5); whichever lane has it knows it.
            return exchange.in_fast_lane
        request = oscorebytes.parse(data)
        if request is None:
            return False
        peer = self._peers.ready(request.kid)
        if peer is None:
            return False
        window = peer.context.recipient_replay_window
        if not window.is_initialized() or not window.is_valid(request.sequence):
            return False
        plaintext = peer.cipher.open(request)
        if plaintext is None:
            return False
        is_burst = self._bursts is not None and plaintext.startswith(BURST_HEAD)
        head = BURST_HEAD if is_burst else _UPLOAD_HEAD
        if not plaintext.startswith(head) or len(plaintext) == len(head):
            return False
        window.strike_out(request.sequence)
        exchange.in_fast_lane = True
        self.taken += 1
        host, port = remote.sockaddr[:2]
        self._admission.proven((plain_host(host)[0], port))
        asked = Request(peer, remote, plaintext[len(head) :])
        serve = self._serve_burst if is_burst else self._serve
        task = asyncio.create_task(serve(peer, request, asked, exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _serve(self, peer: Peer, request: ProtectedRequest, asked: Request, exchange: Exchange) -> None:
        self._answer(
            peer, request, await reply_to(asked, self._upload, PATH_UPLOAD, int(codes.CHANGED)), asked, exchange
        )

    async def _serve_burst(self, peer: Peer, request: ProtectedRequest, asked: Request, exchange: Exchange) -> None:
        assert self._bursts is not None
        refusal: Exception | None
        try:
            refusal = await self._bursts.serve(peer, request, asked, exchange)
        except Exception as fault:
            refusal = fault
        if refusal is not None:

            async def refuse(_: Request) -> Answer:
                raise refusal

            reply = await reply_to(asked, refuse, PATH_BURST, int(codes.CONTENT))
            self._answer(peer, request, reply, asked, exchange)

    def _answer(self, peer: Peer, request: ProtectedRequest, reply: Reply, asked: Request, exchange: Exchange) -> None:
        self._interface.meter.assign(exchange, reply.account)
        sealed = peer.cipher.seal(request, oscorebytes.inner_response(reply.code, reply.payload))
        answer = oscorebytes.response(request, self._interface.next_message_id(), sealed)
        self._interface.answer(answer, asked.remote, reply.account)
