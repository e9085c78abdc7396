"""EDHOC on the gateway: handshakes between message_1 and message_3, capped in number and in time.

Whoever can send a datagram can begin one, so nothing is stored for it but a bounded table in memory, and the answer is
smaller than what the limit before authentication allows (message_2 is 54 bytes for a message_1 of 38).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from protocol.edhoc import EdhocKey, Responder, expected_key
from protocol.errors import UntrustedError
from protocol.oscore import Secrets
from store.fleet.fleet import FleetStore
from store.fleet.records import TruckRecord

_PENDING_MAX = 2_000
_LIFETIME_S = 120.0


class Handshakes:
    """The handshakes that wait for their message_3."""

    def __init__(
        self, keys: Callable[[], Mapping[int, EdhocKey]], fleet: FleetStore, *, now: Callable[[], float]
    ) -> None:
        """`keys` gives the gateway's keys by number, the newest last; a truck says which one it expects."""
        self._keys = keys
        self._fleet = fleet
        self._now = now
        self._pending: OrderedDict[bytes, tuple[float, Responder]] = OrderedDict()

    def __contains__(self, kid: object) -> bool:
        """Return whether a connection identifier was given out and not used yet."""
        return kid in self._pending

    def __len__(self) -> int:
        """Return how many handshakes wait."""
        return len(self._pending)

    def begin(self, payload: bytes, kid: bytes) -> bytes:
        """Return message_2; the oldest pending handshake makes room when the table is full."""
        self._expire()
        keys = self._keys()
        responder = Responder(keys.get(expected_key(payload)) or list(keys.values())[-1])
        message_2 = responder.answer(payload, kid)
        self._pending[kid] = (self._now() + _LIFETIME_S, responder)
        if len(self._pending) > _PENDING_MAX:
            self._pending.popitem(last=False)
        return message_2

    async def finish(self, kid: bytes, message_3: bytes) -> tuple[Secrets, str, TruckRecord | bytes] | None:
        """Return the secrets, the link and who it is: an enrolled truck's record, or the credential of one that joins.

        None means that no such handshake is pending. Raises `PeerError`; a handshake is tried once and then gone.
        """
        self._expire()
        _, responder = self._pending.pop(kid, (0.0, None))
        if responder is None:
            return None
        identity = responder.read_message_3(message_3)
        if identity.credential is not None:
            return responder.finish(identity.credential), responder.link, identity.credential
        record = await self._fleet.truck_by_kid_cred(identity.kid)
        if record is None or record.revoked_ms is not None:
            raise UntrustedError("no enrolled truck has this key")
        return responder.finish(record.credential), responder.link, record

    def _expire(self) -> None:
        now = self._now()
        while self._pending and next(iter(self._pending.values()))[0] <= now:
            self._pending.popitem(last=False)
