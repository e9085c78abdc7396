"""One uplink of the truck: a metered socket bound to it, one OSCORE session with the gateway, requests with a timeout.

NON requests and our own reliability throughout: a confirmable request would block its successors and retransmit after
nobody wants it any more. A session begins with EDHOC, whose third message rides on the first request; it is kept in the
database and only made anew when the gateway no longer knows it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from aiocoap import Unreliable, error, oscore
from aiocoap.message import Message
from aiocoap.numbers import codes
from aiocoap.transports.oscore import OSCOREAddress

from edge.bursts import Bursts
from edge.config import LinkSettings
from edge.identity import Keys
from edge.link_errors import LinkDownError, RefusedError, SessionLostError
from edge.names import Names
from edge.spending import Spending, Unmetered
from edge.standing import Standing
from protocol.documents import ExchangeKey
from protocol.edhoc import Initiator
from protocol.errors import BudgetExceededError, SignatureError
from protocol.numbers import OSCORE_REKEY_AFTER, PATH_EXCHANGE, Precedence
from protocol.oscore import InitiatingContext, LinkContext, Secrets
from store.coapcontext import MeteredContext, client_context
from store.contexts import Contexts, StoredContext
from store.errors import ContextGoneError

log = structlog.get_logger("edge.link")

_HANDSHAKE_TRIES = 4
_HANDSHAKE_FIRST_S = 3.0
# A gateway that does not know this truck any more (revoked, its database gone) must not cost a handshake a minute.
_REKEY_PAUSE_S, _REKEY_PAUSE_MAX_S = 120.0, 7_200.0
_MESSAGE_2_BYTES = 80
ANSWER_BYTES = 200


@dataclass(frozen=True, slots=True)
class Answered:
    """A response's payload, how long it took, and the code it came with."""

    payload: bytes
    rtt_s: float


class Link(Standing):
    """A link and its session."""

    def __init__(
        self,
        settings: LinkSettings,
        *,
        keys: Keys,
        gateways: tuple[str, ...],
        gateway_keys: Callable[[], Sequence[ExchangeKey]],
        contexts: Contexts | None,
        spending: Spending | Unmetered,
        monotonic: Callable[[], float],
    ) -> None:
        """`gateway_keys` gives those that are believed now; `contexts` None: a truck that joins, whose session ends."""
        super().__init__(settings.name, monotonic=monotonic, gateway=lambda: self.gateway)
        self.settings = settings
        self.price = settings.price_per_mb
        self._keys = keys
        self._gateways = settings.gateways or gateways
        self._gateway_at = 0
        self._gateway_keys = gateway_keys
        self._contexts = contexts
        self._monotonic = monotonic
        self._spending = spending
        self._coap: MeteredContext | None = None
        self._socket_is_stale = False
        self._socket_lock = asyncio.Lock()
        self._session: LinkContext | None = None
        self._opening = asyncio.Lock()
        self._handshake_failed_at, self._rekey_after = -1.0, 0.0
        self._rekey_pause_s = _REKEY_PAUSE_S
        self._names = Names(monotonic)
        self.bursts = Bursts(spending, monotonic=monotonic, on_heard=self.heard, count=self.count)

    @property
    def gateway(self) -> str:
        """The address of the gateway that this link talks to now."""
        return self._gateways[self._gateway_at % len(self._gateways)]

    def next_gateway(self) -> None:
        """Turn to the next gateway of the list; its session is another one."""
        if len(self._gateways) > 1:
            self._gateway_at += 1
            self._session = None

    async def request(
        self,
        code: codes.Code,
        path: str,
        payload: bytes,
        *,
        precedence: Precedence,
        cause: str,
        timeout_s: float,
        query: tuple[str, ...] = (),
        answer_bytes: int = ANSWER_BYTES,
    ) -> Answered:
        """Send one request over OSCORE and return its answer, of at most `answer_bytes` of payload as a rule.

        Raises `LinkDownError` (no answer in time), `SessionLostError`, `RefusedError`, `BudgetExceededError`.
        """
        session = await self._ensure_session(precedence)
        try:
            return await self._request(
                session, code, path, payload, precedence, cause, timeout_s, query=query, answer_bytes=answer_bytes
            )
        except SessionLostError as failure:
            failure.renewable = self._give_up(session, str(failure))
            raise

    async def _request(
        self,
        session: LinkContext,
        code: codes.Code,
        path: str,
        payload: bytes,
        precedence: Precedence,
        cause: str,
        timeout_s: float,
        *,
        query: tuple[str, ...],
        answer_bytes: int,
    ) -> Answered:
        # By its tuning, not its type: only that is copied to the OSCORE message around it.
        message = Message(code=code, transport_tuning=Unreliable, uri_path=[path], uri_query=query, payload=payload)
        remote = await self._remote()
        message.remote = OSCOREAddress(session, remote)
        started = self._monotonic()
        size = len(payload) + sum(len(each) for each in query)
        response = await self._exchange(message, timeout_s, precedence, cause, size, answer_bytes)
        self.heard(self._monotonic() - started)
        self.bursts.prove(session, remote, self.gateway)
        self._rekey_pause_s = _REKEY_PAUSE_S
        if not response.code.is_successful():
            raise RefusedError(str(response.code), response.payload.decode("utf-8", "replace")[:128])
        return Answered(response.payload, self._monotonic() - started)

    @property
    def takes_bursts(self) -> bool:
        """Whether a burst may go now: the session is proven to live, and the gateway is not known to know none."""
        return self._coap is not None and not self._socket_is_stale and self.bursts.may_go(self._session, self.gateway)

    def _give_up(self, session: LinkContext, reason: str) -> bool:
        """Give a session up, but not too often; return whether the next request makes (or has) a new one."""
        if self._session is not session:
            return True  # another request noticed before this one
        now = self._monotonic()
        if now < self._rekey_after:
            return False
        self._rekey_after = now + self._rekey_pause_s
        self._rekey_pause_s = min(_REKEY_PAUSE_MAX_S, 2 * self._rekey_pause_s)
        self.end_session()
        log.warning("session.lost", link=self.name, gateway=self.gateway, reason=reason)
        return True

    def end_session(self) -> None:
        """Forget the session: it may have been made with a key of the gateway's that is not believed any more."""
        self._session = None
        if self._contexts is not None:
            self._contexts.drop(self.name)

    async def join(self, *, again: bool = False) -> bytes:
        """Run EDHOC as a truck that the gateway does not know yet, or `again` as one that it should know by now.

        Return the credential it was done with.
        """
        await self._handshake(joining=not again)
        return self._keys.edhoc.credential

    async def close(self) -> None:
        """Close the socket."""
        self.bursts.detach()
        if self._coap is not None:
            await self._coap.shutdown()
            self._coap = None
        self._spending.close()

    def mark_down(self) -> None:
        """Note that the link does not answer; after a few such contacts in a row the next gateway is tried."""
        self.doubt()
        if self.fell():
            self.next_gateway()

    def doubt(self) -> None:
        """Take nothing of the network for granted: it may be another one."""
        self._names.forget()
        self.bursts.doubt()
        # An interface that went and came back is another one to the kernel: the old socket stays on the old one.
        self._socket_is_stale = self.settings.interface is not None

    def affordable(self, precedence: Precedence) -> bool:
        """Return whether the budget holds at least one more exchange of this precedence."""
        return self._spending.affordable(precedence)

    async def _exchange(
        self,
        message: Message,
        timeout_s: float,
        precedence: Precedence,
        cause: str,
        request_bytes: int,
        answer_bytes: int,
    ) -> Message:
        charge = self._spending.open(precedence, cause, request_bytes=request_bytes, answer_bytes=answer_bytes)
        message.account = charge
        try:
            response = await self._answer(message, timeout_s)
        except LinkDownError:
            self.count(lost=True)
            self._spending.abandon(charge)
            raise
        except asyncio.CancelledError:
            self._spending.abandon(charge)
            raise
        except BaseException:
            self._spending.settle(charge)
            raise
        self._spending.settle(charge)
        self.count(lost=False)
        return response

    async def _answer(self, message: Message, timeout_s: float) -> Message:
        coap = await self._open()
        request = coap.request(message, handle_blockwise=False)
        try:
            async with asyncio.timeout(timeout_s):
                return await request.response
        except TimeoutError as failure:
            raise LinkDownError(f"no answer over {self.name} within {timeout_s:.1f} s") from failure
        except oscore.NotAProtectedMessage as failure:
            raise SessionLostError(f"the gateway does not know the session of {self.name}") from failure
        except oscore.ProtectionInvalid as failure:
            raise SessionLostError(f"an answer over {self.name} does not verify") from failure
        except ContextGoneError as failure:
            raise SessionLostError(f"the session of {self.name} is gone from the database") from failure
        except (error.Error, OSError) as failure:
            if isinstance(failure.__cause__, BudgetExceededError):
                raise failure.__cause__ from None
            raise LinkDownError(f"{self.name}: {failure or type(failure).__name__}") from failure

    async def _open(self) -> MeteredContext:
        async with self._socket_lock:
            if self._coap is not None and self._socket_is_stale:
                self.bursts.detach()
                await self._coap.shutdown()
                self._coap = None
            self._socket_is_stale = False
            if self._coap is None:
                try:
                    self._coap = await client_context(
                        on_datagram=self._spending.on_datagram,
                        before_send=self._spending.before_send,
                        interface=self.settings.interface,
                    )
                except OSError as failure:
                    # A modem that is not plugged in, or not yet.
                    raise LinkDownError(f"{self.name}: {self.settings.interface or 'socket'}: {failure}") from failure
                self.bursts.attach(self._coap.interface)
            return self._coap

    async def _remote(self) -> object:
        host, _, port = self.gateway.rpartition(":")
        host = host.strip("[]")
        try:
            address = await self._names.resolve(host)
        except OSError as failure:
            raise LinkDownError(f"{host} does not resolve over {self.name}") from failure
        return (await self._open()).remote_at((address, int(port)))

    async def _ensure_session(self, precedence: Precedence) -> LinkContext:
        asked_at = self._monotonic()
        async with self._opening:
            if self._handshake_failed_at >= asked_at:
                raise LinkDownError(f"no gateway answers over {self.name}")
            if self._session is not None and self._session.sender_sequence_number < OSCORE_REKEY_AFTER:
                return self._session
            if self._session is None and self._contexts is not None:
                stored = self._contexts.get(self.name)
                if stored is not None and stored.gateway == self.gateway:
                    self._session = self._resume(stored, self._contexts)
                    return self._session
            await self._handshake(precedence, joining=False)
            assert self._session is not None
            return self._session

    @staticmethod
    def _resume(stored: StoredContext, contexts: Contexts) -> LinkContext:
        secrets = Secrets(stored.master_secret, stored.master_salt, stored.sender_id, stored.recipient_id)
        return LinkContext(
            secrets,
            first_sequence=stored.sequence_reserved,
            reserve=lambda below: contexts.reserve(stored.id, below),
            echo=os.urandom(8),
        )

    def _made_durable(self, secrets: Secrets) -> Callable[[int], None]:
        """Store a new session and return how its sequence numbers are reserved."""
        if self._contexts is None:
            return lambda below: None
        contexts = self._contexts
        stored = contexts.put(
            self.name,
            gateway=self.gateway,
            master_secret=secrets.master_secret,
            master_salt=secrets.master_salt,
            sender_id=secrets.sender_id,
            recipient_id=secrets.recipient_id,
        )
        return lambda below: contexts.reserve(stored.id, below)

    async def _handshake(self, precedence: Precedence = Precedence.PRIORITY, *, joining: bool) -> None:
        """Make a session with a gateway that proves one of the keys that are believed; in a rotation there are two."""
        *others, last = self._gateway_keys()
        for key in others:
            with suppress(SignatureError):
                return await self._handshake_for(key, precedence, joining)
        return await self._handshake_for(last, precedence, joining)

    async def _handshake_for(self, key: ExchangeKey, precedence: Precedence, joining: bool) -> None:
        initiator = Initiator(self._keys.edhoc, key.key, link=self.name, joining=joining, number=key.number)
        first, wait_s = initiator.message_1(), _HANDSHAKE_FIRST_S
        cost = (min(precedence, Precedence.PRIORITY), "handshake", len(first), _MESSAGE_2_BYTES)
        for _ in range(_HANDSHAKE_TRIES):
            message = Message(code=codes.POST, transport_tuning=Unreliable, uri_path=[PATH_EXCHANGE], payload=first)
            message.remote = await self._remote()
            pause_s = wait_s * random.uniform(1.0, 1.3)  # noqa: S311 - it only spreads retransmissions
            try:
                response = await self._exchange(message, pause_s, *cost)
            except LinkDownError:
                wait_s *= 2
                continue
            if not response.code.is_successful():
                raise RefusedError(str(response.code), "the handshake was refused")
            message_3, secrets = initiator.finish(response.payload)
            reserve = self._made_durable(secrets)
            self._session = InitiatingContext(secrets, message_3, first_sequence=0, reserve=reserve, echo=None)
            log.info("session.started", link=self.name, gateway=self.gateway)
            return
        self._handshake_failed_at = self._monotonic()
        self.next_gateway()
        raise LinkDownError(f"no gateway answers over {self.name}")
