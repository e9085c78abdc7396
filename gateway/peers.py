"""The gateway's OSCORE contexts: found by kid in constant time, durable in the fleet database, rebuilt after a restart.

A context belongs to one link of one truck, so the kid of a request already says both. After a restart its replay window
is unknown and the first request is answered with an Echo challenge. The gateway's own sequence numbers (used only for
answers that cannot reuse a request's nonce) are reserved in the database before use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from aiocoap import oscore

from protocol.numbers import OSCORE_KID_BYTES, OSCORE_SEQUENCE_BLOCK
from protocol.oscore import LinkContext, Secrets
from store.fleet.fleet import FleetStore
from store.fleet.records import ContextRecord, TruckRecord

_CACHED_MAX = 50_000
_TRUCK_FRESH_MS = 15_000  # a revocation made by another gateway process takes effect within this time
_LOW_WATER = 32


@dataclass(slots=True)
class Peer:
    """Who sent a request: a truck and its link; `truck` is None while it joins and may only enrol."""

    context: LinkContext
    truck: str | None
    link: str
    kid: bytes
    credential: bytes
    record: TruckRecord | None = None
    checked_ms: int = 0


class Peers:
    """Every context that this gateway process has met, and the way to the others."""

    def __init__(self, fleet: FleetStore, *, entropy: Callable[[int], bytes], now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._entropy = entropy
        self._now_ms = now_ms
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()

    def free_kid(self, taken: set[bytes]) -> bytes:
        """Return a kid that nobody uses here; the insert of its context makes sure of it fleet-wide."""
        while True:
            kid = self._entropy(OSCORE_KID_BYTES)
            if kid not in self._peers and kid not in taken:
                return kid

    async def find(self, kid: bytes) -> Peer | None:
        """Return the peer that sends under `kid`, with its truck record fresh, or None: unknown or revoked."""
        peer = self._peers.get(kid)
        if peer is None:
            peer = await self._load(kid)
            if peer is None:
                return None
        self._peers.move_to_end(kid)
        if peer.truck is not None and not await self._still_enrolled(peer):
            return None
        return peer

    def add_joining(self, secrets: Secrets, link: str, credential: bytes) -> Peer:
        """Keep the context of a truck that has not enrolled yet; it lives in memory only."""
        context = LinkContext(secrets, first_sequence=0, reserve=_no_reservation, echo=None)
        context.reserved_below = OSCORE_SEQUENCE_BLOCK
        return self._keep(Peer(context, None, link, secrets.recipient_id, credential))

    async def add(self, secrets: Secrets, link: str, record: TruckRecord) -> Peer:
        """Make the context of a truck that has just finished EDHOC durable; older ones of that link end with it."""
        await self._store(secrets, record.name, link)
        context = LinkContext(secrets, first_sequence=0, reserve=_no_reservation, echo=None)
        context.reserved_below = OSCORE_SEQUENCE_BLOCK
        peer = Peer(context, record.name, link, secrets.recipient_id, record.credential, record, self._now_ms())
        for kid in [kid for kid, old in self._peers.items() if old.truck == record.name and old.link == link]:
            del self._peers[kid]
        return self._keep(peer)

    async def enrolled(self, peer: Peer, secrets: Secrets, record: TruckRecord) -> None:
        """Turn a joining peer into the truck that it has just become; contexts of its former keys end."""
        for kid in [kid for kid, old in self._peers.items() if old.truck == record.name]:
            del self._peers[kid]
        await self._store(secrets, record.name, peer.link)
        peer.truck, peer.record, peer.checked_ms = record.name, record, self._now_ms()

    def forget_truck(self, truck: str) -> None:
        """Drop a truck's contexts at once (revoked here)."""
        for kid in [kid for kid, peer in self._peers.items() if peer.truck == truck]:
            del self._peers[kid]

    def changed(self, truck: str) -> None:
        """Have the truck's record read again at its next request."""
        for peer in self._peers.values():
            if peer.truck == truck:
                peer.checked_ms = 0

    async def ensure_sequences(self, peer: Peer) -> None:
        """Reserve more sequence numbers before the block runs out, so that protecting an answer never waits."""
        context = peer.context
        if context.reserved_below - context.sender_sequence_number < _LOW_WATER and peer.truck is not None:
            below = context.sender_sequence_number + OSCORE_SEQUENCE_BLOCK
            await self._fleet.reserve_sequences(peer.kid, below)
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
        await self._fleet.delete_contexts(truck, keep_kids=(secrets.recipient_id,), link=link)

    async def _load(self, kid: bytes) -> Peer | None:
        stored = await self._fleet.context(kid)
        if stored is None:
            return None
        record = await self._fleet.truck(stored.truck)
        if record is None or record.revoked_ms is not None:
            return None
        secrets = Secrets(stored.master_secret, stored.master_salt, stored.peer_id, stored.kid)
        context = LinkContext(
            secrets,
            first_sequence=stored.sender_sequence_reserved,
            reserve=_no_reservation,
            echo=self._entropy(8),
        )
        return self._keep(Peer(context, stored.truck, stored.link, kid, record.credential, record, self._now_ms()))

    async def _still_enrolled(self, peer: Peer) -> bool:
        now_ms = self._now_ms()
        if peer.truck is not None and now_ms - peer.checked_ms > _TRUCK_FRESH_MS:
            peer.record = await self._fleet.truck(peer.truck)
            peer.checked_ms = now_ms
        return peer.record is not None and peer.record.revoked_ms is None

    def _keep(self, peer: Peer) -> Peer:
        self._peers[peer.kid] = peer
        while len(self._peers) > _CACHED_MAX:
            self._peers.popitem(last=False)
        return peer


def _no_reservation(below: int) -> None:
    raise oscore.ContextUnavailable(f"sequence numbers below {below} were not reserved in time")
