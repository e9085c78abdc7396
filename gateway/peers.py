"""The gateway's OSCORE contexts: found by kid in constant time, durable in the fleet database, rebuilt after a restart.

A context belongs to one link of one truck, so the kid of a request already says both. After a restart its replay window
is unknown and the first request is answered with an Echo challenge. The gateway's own sequence numbers (used only for
answers that cannot reuse a request's nonce) are reserved in the database before use.

Anybody may finish a handshake with a key of their own and so become a peer that may only enrol: those are few, in
memory only, and in a table of their own, so that they never push out a truck.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

from aiocoap import oscore
from aiocoap.message import Message

from protocol import oscorebytes
from protocol.errors import PeerError
from protocol.numbers import OSCORE_KID_BYTES, OSCORE_SEQUENCE_BLOCK
from protocol.oscore import LinkContext, Secrets
from protocol.oscorebytes import Cipher
from store.fleet.errors import StaleContextError
from store.fleet.fleet import FleetStore
from store.fleet.records import Change, ContextRecord, TruckRecord

_CACHED_MAX = 50_000
_JOINING_MAX = 256
# The change feed says when a truck's record changed; should it ever fail, a revocation is heard of this late.
_RECORD_FRESH_MS = 30_000
_LOW_WATER = 32
_OVERTAKEN_MS = 30_000
_CHANGES_OF_A_RECORD = frozenset({"truck", "revoked", "desired", "receipt"})


@dataclass(slots=True, eq=False)
class Peer:
    """Who sent a request: a truck and its link; `truck` is None while it joins and may only enrol.

    `record` is the truck's, as fresh as the latest `Peers.find`.
    """

    context: LinkContext
    secrets: Secrets
    truck: str | None
    link: str
    credential: bytes
    record: TruckRecord | None = None
    reopened_ms: int | None = None
    reserving: asyncio.Lock = field(default_factory=asyncio.Lock)
    _cipher: Cipher | None = None

    @property
    def cipher(self) -> Cipher:
        """Its keys, for the shortcut."""
        if self._cipher is None:
            keys = self.context
            self._cipher = Cipher(keys.recipient_key, keys.sender_key, keys.common_iv, keys.recipient_id)
        return self._cipher

    @property
    def kid(self) -> bytes:
        """The key id that its requests name."""
        return self.secrets.recipient_id


class Peers:
    """Every context that this gateway process has met, and the way to the others."""

    def __init__(self, fleet: FleetStore, *, entropy: Callable[[int], bytes], now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._entropy = entropy
        self._now_ms = now_ms
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()
        self._kids: dict[str, set[bytes]] = {}
        self._joining: OrderedDict[bytes, Peer] = OrderedDict()
        self._records: OrderedDict[str, tuple[TruckRecord, int]] = OrderedDict()

    def free_kid(self, taken: Container[bytes]) -> bytes:
        """Return a kid that nobody uses here; `add` makes sure of it fleet-wide."""
        while True:
            kid = self._entropy(OSCORE_KID_BYTES)
            if kid not in self._peers and kid not in self._joining and kid not in taken:
                return kid

    def __contains__(self, kid: object) -> bool:
        """Return whether an enrolled truck's session of this kid is in memory."""
        return kid in self._peers

    def verifies(self, data: bytes) -> bool:
        """Return whether a datagram is a request of a session in memory that decrypts and was not seen before."""
        request = oscorebytes.parse(data)
        peer = self._peers.get(request.kid) if request is not None else None
        if request is None or peer is None:
            return False
        window = peer.context.recipient_replay_window
        is_new = window.is_initialized() and window.is_valid(request.sequence)
        return is_new and peer.cipher.open(request) is not None

    async def find(self, kid: bytes) -> Peer | None:
        """Return the peer that sends under `kid`, with its truck record fresh, or None: unknown or revoked."""
        joining = self._joining.get(kid)
        if joining is not None:
            return joining
        peer = self._peers.get(kid) or await self._load(kid)
        if peer is None or peer.truck is None:
            return None
        peer.record = await self.record(peer.truck)
        if peer.record is None or peer.record.revoked_ms is not None:
            self.forget_truck(peer.truck)
            return None
        if kid in self._peers:
            self._peers.move_to_end(kid)
        return peer

    def ready(self, kid: bytes) -> Peer | None:
        """Return the peer of an enrolled truck as `find` would, or None where that would have to wait or to refuse."""
        peer = self._peers.get(kid)
        if peer is None or peer.truck is None or not _has_sequences(peer.context):
            return None
        record = self._fresh(peer.truck)
        if record is None or record.revoked_ms is not None:
            return None
        peer.record = record
        self._peers.move_to_end(kid)
        return peer

    async def record(self, truck: str) -> TruckRecord | None:
        """Return a truck's record: from memory while the change feed says nothing of it, else from the database."""
        record = self._fresh(truck)
        if record is not None:
            return record
        record = await self._fleet.truck(truck)
        if record is not None:
            self._note(record)
        return record

    def add_joining(self, secrets: Secrets, link: str, credential: bytes) -> Peer:
        """Keep the context of a truck that has not enrolled yet; it lives in memory only."""
        peer = Peer(_new_context(secrets), secrets, None, link, credential)
        self._joining[peer.kid] = peer
        if len(self._joining) > _JOINING_MAX:
            self._joining.popitem(last=False)
        return peer

    async def add(self, secrets: Secrets, link: str, record: TruckRecord) -> Peer:
        """Make the context of a truck that has just finished EDHOC durable; older ones of that link end with it.

        Raises `PeerError` if its kid is in use after all: the truck begins another handshake.
        """
        await self._store(secrets, record.name, link)
        for kid in list(self._kids.get(record.name, ())):
            if self._peers[kid].link == link:
                self._drop(kid)
        self._note(record)
        return self._keep(Peer(_new_context(secrets), secrets, record.name, link, record.credential, record))

    async def enrolled(self, peer: Peer, record: TruckRecord) -> None:
        """Turn a joining peer into the truck that it has just become; contexts of its former keys end."""
        self.forget_truck(record.name)
        await self._store(peer.secrets, record.name, peer.link)
        self._joining.pop(peer.kid, None)
        peer.truck, peer.record = record.name, record
        self._note(record)
        self._keep(peer)

    def forget_truck(self, truck: str) -> None:
        """Drop what is held in memory of a truck; what is in the database is read again if it is asked for."""
        self._records.pop(truck, None)
        for kid in list(self._kids.get(truck, ())):
            self._drop(kid)

    def forget_record(self, truck: str) -> None:
        """Have a truck's record read again when it is next asked for."""
        self._records.pop(truck, None)

    def changed(self, change: Change) -> None:
        """Hear of a change: have the truck's record read again at its next request."""
        if change.kind == "gap":
            self._records.clear()
        elif change.truck is not None and change.kind in _CHANGES_OF_A_RECORD:
            self.forget_record(change.truck)

    def unprotect(self, peer: Peer, outer: Message) -> tuple[Message, Any]:
        """Return the inner request and its identifiers; raise what aiocoap's OSCORE raises."""
        window = peer.context.recipient_replay_window
        was_open = window.is_initialized()
        result: tuple[Message, Any] = peer.context.unprotect(outer)
        if not was_open:
            peer.reopened_ms = self._now_ms()
        return result

    def reopened_lately(self, peer: Peer) -> bool:
        """Return whether requests below the one that reopened the replay window may still be on their way."""
        return peer.reopened_ms is not None and 0 <= self._now_ms() - peer.reopened_ms < _OVERTAKEN_MS

    async def ensure_sequences(self, peer: Peer, *, ahead: int = _LOW_WATER) -> None:
        """Reserve more sequence numbers before fewer than `ahead` are left, so that protecting an answer never waits.

        Raises `PeerError` when the context has ended meanwhile.
        """
        context = peer.context
        if peer.truck is None or _has_sequences(context, ahead):
            return
        async with peer.reserving:
            if _has_sequences(context, ahead):
                return
            below = max(context.sender_sequence_number, context.reserved_below) + OSCORE_SEQUENCE_BLOCK
            try:
                await self._fleet.reserve_sequences(peer.kid, below)
            except StaleContextError as error:
                self._drop(peer.kid)
                raise PeerError(str(error)) from error
            context.reserved_below = below

    async def _store(self, secrets: Secrets, truck: str, link: str) -> None:
        await self._fleet.put_context(
            ContextRecord(
                kid=secrets.recipient_id,
                peer_id=secrets.sender_id,
                truck=truck,
                link=link,
                master_secret=secrets.master_secret,
                master_salt=secrets.master_salt,
                sender_sequence_reserved=OSCORE_SEQUENCE_BLOCK,
                created_ms=self._now_ms(),
            )
        )

    async def _load(self, kid: bytes) -> Peer | None:
        stored = await self._fleet.context(kid)
        if stored is None:
            return None
        record = await self.record(stored.truck)
        if record is None or record.revoked_ms is not None:
            return None
        present = self._peers.get(kid)
        if present is not None:
            # Another request of the same burst was quicker. Two contexts would count the same numbers twice.
            return present
        secrets = Secrets(stored.master_secret, stored.master_salt, stored.peer_id, stored.kid)
        context = LinkContext(
            secrets,
            first_sequence=stored.sender_sequence_reserved,
            reserve=_no_reservation,
            echo=self._entropy(8),
        )
        return self._keep(Peer(context, secrets, stored.truck, stored.link, record.credential, record))

    def _fresh(self, truck: str) -> TruckRecord | None:
        record, read_ms = self._records.get(truck, (None, 0))
        # A clock that was set back must not make a record fresh for ever.
        return record if 0 <= self._now_ms() - read_ms <= _RECORD_FRESH_MS else None

    def _note(self, record: TruckRecord) -> None:
        self._records[record.name] = (record, self._now_ms())
        self._records.move_to_end(record.name)
        if len(self._records) > _CACHED_MAX:
            self._records.popitem(last=False)

    def _keep(self, peer: Peer) -> Peer:
        assert peer.truck is not None
        self._peers[peer.kid] = peer
        self._kids.setdefault(peer.truck, set()).add(peer.kid)
        if len(self._peers) > _CACHED_MAX:
            self._drop(next(iter(self._peers)))
        return peer

    def _drop(self, kid: bytes) -> None:
        peer = self._peers.pop(kid, None)
        if peer is None or peer.truck is None:
            return
        kids = self._kids[peer.truck]
        kids.discard(kid)
        if not kids:
            del self._kids[peer.truck]


def _has_sequences(context: LinkContext, ahead: int = _LOW_WATER) -> bool:
    return context.reserved_below - context.sender_sequence_number >= ahead


def _new_context(secrets: Secrets) -> LinkContext:
    context = LinkContext(secrets, first_sequence=0, reserve=_no_reservation, echo=None)
    # A joining peer's are never used up: its answers reuse the nonces of its requests.
    context.reserved_below = OSCORE_SEQUENCE_BLOCK
    return context


def _no_reservation(below: int) -> None:
    raise oscore.ContextUnavailable(f"sequence numbers below {below} were not reserved in time")
