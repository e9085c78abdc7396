"""Who may make this gateway work: token buckets ahead of parsing, and a limit on what an unproven address gets back.

Anybody can write any source address on a datagram. So a stranger's datagrams draw from the bucket of their prefix and
from one for all strangers, after no more than a look at the header: what is no request is dropped first. To an address
that has not proven to be a truck's, never more than three times the bytes go out that came from it (RFC 9175 section
2.4), whatever is retransmitted and for whatever reason. An address counts as a truck's for a while after an OSCORE
request of an enrolled truck verified there: it then has a bucket of its own, so that a flood of strangers costs the
trucks nothing. From any other address a truck's request is let in if it verifies and is fresh, which takes a hundredth
of the time that answering it takes. What names a session or a handshake that is known here and cannot be verified yet
(message_3, the first requests after a restart) has a bucket apart from the strangers'.

Deliberately absent: anything that outlives the process, and any list of addresses to believe or to ban.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_network

from protocol.errors import PeerError
from protocol.oscorebytes import kid_of
from store.coapmeter import Address, Datagram

ANSWER_FACTOR_MAX = 3
# Each may cost a millisecond (a handshake), and aiocoap keeps about 2.5 kB for a minute for it: a sixth of a core and
# 23 MB at the very most, while ten thousand trucks still begin their handshakes within two minutes.
STRANGERS_PER_S, STRANGERS_BURST = 150.0, 200.0
# Many trucks share the addresses of one carrier.
PREFIX_PER_S, PREFIX_BURST = 100.0, 150.0
# Requests under a kid that is known here, from an address that is not, and not verified.
KNOWN_PER_S, KNOWN_BURST = 100.0, 200.0
# A truck that fetches at 16 Mbit/s asks 2,000 times a second.
TRUCK_PER_S, TRUCK_BURST = 4_000.0, 8_000.0
TRUCK_MEMORY_S = 900.0
CREDIT_MEMORY_S = 120.0
_PREFIXES_MAX = 8_192
_TRUCKS_MAX = 32_768
_CREDITS_MAX = 16_384
# What an address may save up by sending without being answered.
_CREDIT_BYTES_MAX = 16_384
_IPV6_PREFIX = 48
_COAP_HEADER_BYTES, _COAP_CON_OR_NON, _COAP_REQUESTS_END = 4, 0x40, 0x20


class UnprovenAddressError(PeerError):
    """An answer stays here: its addressee has not sent enough, and has not proven to be a truck."""


class _Bucket:
    """A token bucket: `per_s` tokens a second, at most `burst` of them."""

    __slots__ = ("_at", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._tokens, self._at = burst, now

    def holds(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        return self._tokens >= 1.0

    def take(self, now: float) -> bool:
        if not self.holds(now):
            return False
        self._tokens -= 1.0
        return True


class Admission:
    """The gate of one CoAP socket; every table is bounded, and forgetting an entry only ever costs its owner."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        knows: Callable[[bytes], bool] = lambda kid: False,
        verifies: Callable[[bytes], bool] = lambda data: False,
    ) -> None:
        """`knows` says of a kid whether there is a session or a pending handshake for it in this process.

        `verifies` says of a datagram whether it is a request of an enrolled truck's session that was not seen before.
        """
        self._monotonic = monotonic
        self._knows = knows
        self._verifies = verifies
        self._strangers = _Bucket(STRANGERS_PER_S, STRANGERS_BURST, monotonic())
        self._known = _Bucket(KNOWN_PER_S, KNOWN_BURST, monotonic())
        self._prefixes: OrderedDict[str, _Bucket] = OrderedDict()
        self._trucks: OrderedDict[Address, tuple[float, _Bucket]] = OrderedDict()
        self._credits: OrderedDict[str, tuple[float, int]] = OrderedDict()
        # Datagrams turned away unread, and answers held back.
        self.turned_away = 0
        self.held_back = 0

    def admit(self, data: bytes, bytes_ip: int, remote: Address, is_behind: bool = False) -> bool:
        """Say whether a datagram of this size (headers included) is looked at; called for each one that arrives.

        While this process `is_behind` with what arrives, it has no time for strangers.
        """
        now = self._monotonic()
        bucket = self._truck(remote, now)
        if bucket is not None:
            admitted = bucket.take(now)
        else:
            admitted = _asks(data) and self._admit_stranger(data, remote[0], now, is_behind)
            if admitted:
                self._earn(remote[0], bytes_ip, now)
        self.turned_away += not admitted
        return admitted

    def _admit_stranger(self, data: bytes, host: str, now: float, is_behind: bool) -> bool:
        kid = kid_of(data)
        is_known = kid is not None and self._knows(kid)
        if is_known and self._verifies(data):
            return True
        if is_behind:
            return False
        if is_known:
            return self._known.take(now)
        # In a flood the common bucket is empty, and nothing more is looked up; no prefix alone may empty it.
        return self._strangers.holds(now) and self._prefix(host, now).take(now) and self._strangers.take(now)

    def proven(self, remote: Address) -> None:
        """Note that a request of an enrolled truck from this address verified."""
        now = self._monotonic()
        known = self._trucks.get(remote)
        bucket = known[1] if known is not None else _Bucket(TRUCK_PER_S, TRUCK_BURST, now)
        self._trucks[remote] = (now + TRUCK_MEMORY_S, bucket)
        self._trucks.move_to_end(remote)
        if len(self._trucks) > _TRUCKS_MAX:
            self._trucks.popitem(last=False)

    def check_answer(self, datagram: Datagram) -> None:
        """Let a datagram leave, or raise `UnprovenAddressError`; called for each one that is about to."""
        now = self._monotonic()
        host, _ = datagram.remote
        if self._truck(datagram.remote, now) is not None:
            return
        until, credit = self._credits.get(host, (0.0, 0))
        if until <= now or credit < datagram.bytes_ip:
            self.held_back += 1
            raise UnprovenAddressError(f"{datagram.bytes_ip} bytes are more than {host} has earned")
        self._credits[host] = (until, credit - datagram.bytes_ip)

    def _truck(self, remote: Address, now: float) -> _Bucket | None:
        known = self._trucks.get(remote)
        if known is None:
            return None
        if known[0] <= now:
            del self._trucks[remote]
            return None
        return known[1]

    def _prefix(self, host: str, now: float) -> _Bucket:
        prefix = _prefix_of(host)
        bucket = self._prefixes.get(prefix)
        if bucket is None:
            bucket = self._prefixes[prefix] = _Bucket(PREFIX_PER_S, PREFIX_BURST, now)
            if len(self._prefixes) > _PREFIXES_MAX:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(prefix)
        return bucket

    def _earn(self, host: str, bytes_ip: int, now: float) -> None:
        until, credit = self._credits.get(host, (0.0, 0))
        earned = (credit if until > now else 0) + ANSWER_FACTOR_MAX * bytes_ip
        self._credits[host] = (now + CREDIT_MEMORY_S, min(_CREDIT_BYTES_MAX, earned))
        self._credits.move_to_end(host)
        if len(self._credits) > _CREDITS_MAX:
            self._credits.popitem(last=False)


def _asks(data: bytes) -> bool:
    """Return whether a datagram begins as a request or a ping does (RFC 7252 section 3): CON or NON, of class 0."""
    return len(data) >= _COAP_HEADER_BYTES and data[0] & 0xE0 == _COAP_CON_OR_NON and data[1] < _COAP_REQUESTS_END


def _prefix_of(host: str) -> str:
    """Return the network of an IP literal that counts as one sender."""
    if ":" not in host:
        return host.rpartition(".")[0]
    return str(ip_network((host.partition("%")[0], _IPV6_PREFIX), strict=False))
