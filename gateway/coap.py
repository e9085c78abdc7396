"""The gateway's CoAP side: one site that lets nothing through but EDHOC's first message and OSCORE requests.

Before authentication every refusal looks the same (4.01 without a word; 4.02 for a critical option that is not known
here): an unknown kid, a bad MAC and a plain request cannot be told apart, and no answer is much longer than its
request. A truck takes an answer without protection as the end of its session: so nothing is said at all while this side
is at fault (its database is away), nor to the rest of a burst of which one request has just reopened the replay window.
Behind OSCORE the request goes to the handler of its resource with the peer that sent it; an error of the peer is
answered with its reason, one of ours with 5.00. Most uploads take `gateway.fastlane` instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiocoap import error, interfaces, oscore
from aiocoap.interfaces import EndpointAddress
from aiocoap.message import Message
from aiocoap.numbers import codes
from aiocoap.numbers.types import CON
from aiocoap.pipe import Pipe

from gateway.admission import Admission
from gateway.handshakes import Handshakes
from gateway.peers import Peer, Peers
from protocol.errors import PeerError
from protocol.numbers import PATH_EDHOC, PATH_ENROL, PATH_EXCHANGE, Precedence
from protocol.oscore import split_combined
from store.account import Account
from store.coapmeter import Meter, plain_host

log = structlog.get_logger("gateway.coap")


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler gets: who asks, from where, and the request's inner payload and query."""

    peer: Peer
    remote: EndpointAddress
    payload: bytes
    query: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The peer's address and port as text."""
        return str(self.remote.hostinfo)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back; `cause` and `precedence` are what the bytes are booked on."""

    payload: bytes
    cause: str
    precedence: Precedence = Precedence.NORMAL


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to a peer, inside OSCORE, and what its bytes are booked on."""

    code: int
    payload: bytes
    account: Account


class _StaleError(Exception):
    """A request of a burst that was overtaken by the one that answered the Echo challenge."""


_EDHOC_PATHS = (PATH_EDHOC, (PATH_EXCHANGE,))

Handler = Callable[[Request], Awaitable[Answer]]


async def reply_to(request: Request, handler: Handler, path: str, code: int) -> Reply:
    """Have a handler answer: with `code` if it does, 4.00 and the reason if it refuses, 5.00 if it fails."""
    peer = request.peer
    refused = Account(Precedence.NORMAL, "refused", peer.truck, peer.link)
    try:
        answer = await handler(request)
    except PeerError as refusal:
        log.warning("request.refused", truck=peer.truck, link=peer.link, path=path, reason=str(refusal))
        reason = str(refusal).encode()[:_REASON_BYTES_MAX].decode("utf-8", "ignore")
        return Reply(int(codes.BAD_REQUEST), reason.encode(), refused)
    except Exception:
        log.exception("request.failed", truck=peer.truck, link=peer.link, path=path)
        return Reply(int(codes.INTERNAL_SERVER_ERROR), b"", refused)
    return Reply(code, answer.payload, Account(answer.precedence, answer.cause, peer.truck, peer.link))


class Site(interfaces.Resource):  # type: ignore[misc]
    """Everything that the gateway answers over CoAP."""

    def __init__(
        self,
        peers: Peers,
        handshakes: Handshakes,
        handlers: dict[tuple[int, str], Handler],
        admission: Admission | None = None,
    ) -> None:
        """`handlers` maps (request code, path) to a handler. Set `meter` once the socket is open."""
        self._peers = peers
        self._handshakes = handshakes
        self._handlers = handlers
        self._admission = admission
        self._finishing: dict[bytes, asyncio.Task[None]] = {}
        self.meter: Meter | None = None

    async def needs_blockwise_assembly(self, request: Message) -> bool:
        """Never: no block of anything is kept for a stranger, and trucks do not need it."""
        return False

    async def render(self, request: Message) -> Message:
        """Not used: aiocoap drives `render_to_pipe`."""
        raise error.NotFound

    async def render_to_pipe(self, pipe: Pipe) -> None:
        """Answer one request."""
        request = pipe.request
        if any(option.number.is_critical() and option.number not in _OUTER for option in request.opt.option_list()):
            # RFC 7252 section 5.4.1: answered if it is confirmable, else silence.
            refusal = Message(code=codes.BAD_OPTION) if request.mtype == CON else _nothing()
            pipe.add_response(refusal, is_last=True)
        elif request.opt.oscore is not None:
            await self._protected(pipe, request)
        elif request.opt.uri_path in _EDHOC_PATHS and request.code == codes.POST and len(request.payload) > 1:
            pipe.add_response(self._first_message(request), is_last=True)
        else:
            pipe.add_response(Message(code=codes.UNAUTHORIZED), is_last=True)

    def _first_message(self, request: Message) -> Message:
        account = Account(Precedence.PRIORITY, "handshake")
        self._book(account)
        try:
            message_2 = self._handshakes.begin(request.payload, self._peers.free_kid(self._handshakes))
        except PeerError:
            return Message(code=codes.UNAUTHORIZED)
        response = Message(code=codes.CHANGED, payload=message_2)
        response.account = account
        return response

    async def _protected(self, pipe: Pipe, outer: Message) -> None:
        try:
            answer = await self._answer(outer)
        except (PeerError, ValueError, error.Error) as refusal:
            # Debug only: a stranger must not be able to fill the log.
            log.debug("request.unauthorized", address=outer.remote.hostinfo, reason=str(refusal))
            answer = Message(code=codes.UNAUTHORIZED)
        except _StaleError:
            answer = _nothing()
        except Exception:
            log.exception("request.unanswered")
            answer = _nothing()
        pipe.add_response(answer, is_last=True)

    async def _answer(self, outer: Message) -> Message:
        """Return the protected answer to a protected request; raise of one that is not to be believed."""
        kid = oscore.verify_start(outer).get(oscore.COSE_KID)
        if kid is None:
            raise ValueError("no kid")
        if outer.opt.edhoc:
            message_3, outer.payload = split_combined(outer.payload)
            outer.opt.edhoc = None
            await self._finish_handshake(kid, message_3)
        peer = await self._peers.find(kid)
        if peer is None:
            raise ValueError("unknown kid")
        await self._peers.ensure_sequences(peer)
        try:
            inner, request_id = self._peers.unprotect(peer, outer)
        except oscore.ReplayError as replay:
            if self._peers.reopened_lately(peer):
                raise _StaleError from replay
            raise
        except oscore.ReplayErrorWithEcho as challenge:
            account = Account(Precedence.PRIORITY, "handshake", peer.truck, peer.link)
            self._book(account)
            protected = challenge.to_message()
            protected.account = account
            return protected
        except (PeerError, ValueError, error.Error):
            raise
        except Exception as fault:
            # Whatever a hostile option makes aiocoap trip over: it is the sender's fault.
            raise ValueError(f"{type(fault).__name__} while unprotecting") from fault
        if self._admission is not None and peer.truck is not None:
            host, port = outer.remote.sockaddr[:2]
            self._admission.proven((plain_host(host)[0], port))
        response, account = await self._render(peer, outer, inner)
        self._book(account)
        response.account = account
        await self._peers.ensure_sequences(peer)
        protected, _ = peer.context.protect(response, request_id)
        return protected

    async def _finish_handshake(self, kid: bytes, message_3: bytes) -> None:
        # Until a truck hears an answer, message_3 rides on all that it sends: some arrive while the first is in work.
        task = self._finishing.get(kid)
        if task is None:
            task = self._finishing[kid] = asyncio.create_task(self._finish_once(kid, message_3))
            task.add_done_callback(lambda _: self._finishing.pop(kid, None))
        await asyncio.shield(task)

    async def _finish_once(self, kid: bytes, message_3: bytes) -> None:
        finished = await self._handshakes.finish(kid, message_3)
        if finished is None:
            # A retransmitted message_3 finds no pending handshake, but the context that the first one made.
            return
        secrets, link, who = finished
        if isinstance(who, bytes):
            self._peers.add_joining(secrets, link, who)
        else:
            await self._peers.add(secrets, link, who)
            log.info("session.established", truck=who.name, link=link)

    async def _render(self, peer: Peer, outer: Message, inner: Message) -> tuple[Message, Account]:
        path = "/".join(inner.opt.uri_path)
        account = Account(Precedence.NORMAL, "refused", peer.truck, peer.link)
        handler = self._handlers.get((int(inner.code), path))
        if handler is None or (peer.truck is None and path != PATH_ENROL):
            known = peer.truck is not None and any(path == each for _, each in self._handlers)
            return Message(code=codes.METHOD_NOT_ALLOWED if known else codes.NOT_FOUND), account
        if any(option.number.is_critical() and option.number not in _UNDERSTOOD for option in inner.opt.option_list()):
            return Message(code=codes.BAD_OPTION), account
        request = Request(peer, outer.remote, inner.payload, tuple(inner.opt.uri_query))
        code = codes.CHANGED if inner.code == codes.POST else codes.CONTENT
        reply = await reply_to(request, handler, path, int(code))
        return Message(code=codes.Code(reply.code), payload=reply.payload), reply.account

    def _book(self, account: Account) -> None:
        if self.meter is not None:
            self.meter.attribute(account)


def _nothing() -> Message:
    """Return what aiocoap does not send; without it, it would remember the request for ever."""
    answer = Message(code=codes.SERVICE_UNAVAILABLE)
    answer.opt.no_response = _SAY_NOTHING
    return answer


# The critical options that are known here: If-Match, Uri-Host, If-None-Match, Uri-Port, OSCORE, Uri-Path, Uri-Query,
# Accept, EDHOC, Block2, Block1. No proxy is here. Around OSCORE those of class E mean nothing (RFC 8613 section 8.2).
_OUTER = frozenset({1, 3, 5, 7, 9, 11, 15, 17, 21, 23, 27})
# Uri-Path and Uri-Query are the critical options that a handler's request may carry.
_UNDERSTOOD = frozenset({11, 15})
_REASON_BYTES_MAX = 128
# No-Response (RFC 7967): aiocoap then sends nothing, or the empty acknowledgement that a confirmable request waits for.
_SAY_NOTHING = 0b11010
