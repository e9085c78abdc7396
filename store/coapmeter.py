"""The byte meter of CoAP: what each datagram costs in IP bytes, and whose account it belongs to.

It reads the four bytes of the CoAP header and the token (RFC 7252 section 3), nothing else, and it holds no socket:
`store.coapinterface` shows it every datagram. Attribution is by exchange. A request opens one; everything after it
that carries the same token or message id (retransmissions, empty acknowledgements, resets, responses, bursts, ICMP
errors that quote it) belongs to it. A request that arrives has no account until the server has read who sent it: its
bytes are reported without an account, and `attribute` reports later, as one `Attribution`, how many of those moved.

So for any account the sum is: its datagrams, plus its attributions; and for None: its datagrams, less all of them.

Not seen here: fragments beyond the first of a datagram over the path's MTU, and what the kernel dropped unread.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Address

Address = tuple[str, int]

IPV4_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40
UDP_HEADER_BYTES = 8
ICMP_HEADER_BYTES = 8
TOKEN_BYTES_MAX = 8

# About 350 bytes a key, and an exchange has two or three: 23 MB at the very most.
KEYS_MAX = 65_536
# Anybody can open an exchange at a server; only these few wait for an account, so a flood pushes out none that has one.
PENDING_KEYS_MAX = 4_096
KEYS_A_PENDING_EXCHANGE = 8

_CON, _NON, _ACK, _RST = range(4)


class Direction(StrEnum):
    """Which way a datagram went, seen from this socket."""

    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True, slots=True)
class Datagram:
    """One IP packet of this socket: its size with IP and UDP headers, its peer as (IP literal, port), its account."""

    direction: Direction
    bytes_ip: int
    remote: Address
    account: object | None = None
    is_icmp: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """Datagrams and their IP bytes."""

    datagrams: int = 0
    bytes_ip: int = 0

    def plus(self, bytes_ip: int) -> Tally:
        """Return the tally with one more datagram."""
        return Tally(datagrams=self.datagrams + 1, bytes_ip=self.bytes_ip + bytes_ip)


@dataclass(frozen=True, slots=True)
class Attribution:
    """Datagrams that were reported without an account, and belong to this one as it turned out."""

    remote: Address
    account: object
    sent: Tally
    received: Tally


@dataclass(frozen=True, slots=True)
class CoapHeader:
    """The fixed header and the token of a CoAP message over UDP."""

    kind: int
    code: int
    message_id: int
    token: bytes

    @classmethod
    def parse(cls, data: bytes) -> CoapHeader | None:
        """Read the header; None means a message format error (RFC 7252 section 3: version, token length)."""
        token_bytes = data[0] & 0x0F if data else 0
        if len(data) < 4 + token_bytes or data[0] >> 6 != 1 or token_bytes > TOKEN_BYTES_MAX:
            return None
        return cls(
            kind=data[0] >> 4 & 3,
            code=data[1],
            message_id=data[2] << 8 | data[3],
            token=data[4 : 4 + token_bytes],
        )

    @property
    def is_request(self) -> bool:
        """Whether the code is of class 0 and not empty."""
        return 0 < self.code < 32

    @property
    def is_empty(self) -> bool:
        """Whether this is a bare acknowledgement, reset or ping."""
        return self.code == 0


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and all that answers it. Opaque outside of the meter, but for what a fast lane needs."""

    remote: Address
    token: bytes
    account: object | None
    owner: Meter
    # How often the request itself arrived: beyond the first these are what a network doubled, or a peer repeated.
    arrivals: int = 0
    # Whoever takes requests past aiocoap marks them, since aiocoap will not know their repetitions.
    in_fast_lane: bool = False
    sent: Tally = Tally()
    received: Tally = Tally()
    keys: list[_Key] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram that is about to leave, and whether it is the first transmission of a request."""

    datagram: Datagram
    exchange: Exchange | None
    opens_exchange: bool


# (host, port, "token" or whose message id it is, token or message id)
_Key = tuple[str, int, str, bytes | int]


class _Table:
    """Exchanges by key: bounded, each entry forgotten `lifetime_s` after its last use."""

    def __init__(self, *, lifetime_s: float, keys_max: int) -> None:
        self._lifetime_s = lifetime_s
        self._keys_max = keys_max
        self._entries: OrderedDict[_Key, tuple[float, Exchange]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: _Key, now: float) -> Exchange | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._entries[key]
            return None
        self._entries[key] = (now + self._lifetime_s, entry[1])
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: _Key, exchange: Exchange, now: float) -> None:
        self._entries[key] = (now + self._lifetime_s, exchange)
        self._entries.move_to_end(key)
        while len(self._entries) > self._keys_max or next(iter(self._entries.values()))[0] <= now:
            self._entries.popitem(last=False)

    def discard(self, key: _Key, exchange: Exchange) -> bool:
        entry = self._entries.get(key)
        if entry is None or entry[1] is not exchange:
            return False
        del self._entries[key]
        return True


class Meter:
    """Counts the datagrams of one socket and says whose they are.

    `on_datagram` hears of each datagram that left or arrived, `on_attribution` of bytes that found their account
    afterwards. `before_send` is asked before each datagram leaves, aiocoap's own retransmissions and acknowledgements
    included; it refuses by raising (BudgetExceededError): then nothing leaves, and a request that had not been
    transmitted yet fails with that very exception.
    """

    def __init__(
        self,
        *,
        on_datagram: Callable[[Datagram], None],
        on_attribution: Callable[[Attribution], None] | None = None,
        before_send: Callable[[Datagram], None] | None = None,
        lifetime_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        keys_max: int = KEYS_MAX,
        pending_keys_max: int = PENDING_KEYS_MAX,
    ) -> None:
        self._on_datagram = on_datagram
        self._on_attribution = on_attribution
        self._before_send = before_send
        self._monotonic = monotonic
        self._known = _Table(lifetime_s=lifetime_s, keys_max=keys_max)
        self._pending = _Table(lifetime_s=lifetime_s, keys_max=pending_keys_max)
        self.sent = Tally()
        self.received = Tally()
        self.refused = Tally()
        # Datagrams that the kernel would not take, and datagrams that are no CoAP message.
        self.unsent = 0
        self.malformed = 0

    def attribute(self, account: object) -> bool:
        """Charge the request that is being handled to `account`, with all that came and goes for it.

        Called from the task that aiocoap runs for a request (any task that this one started counts too). Returns
        False if there is none, or if it has been forgotten: its bytes then stay without an account.
        """
        exchange = _handled.get()
        if exchange is None or exchange.owner is not self:
            return False
        self.assign(exchange, account)
        return True

    def attribute_token(self, remote: Address, token: bytes, account: object) -> bool:
        """Charge the exchange of this peer and token to `account`; False if there is none or it was forgotten."""
        exchange = self._find((*remote, "token", token), self._monotonic())
        if exchange is None:
            return False
        self.assign(exchange, account)
        return True

    def outgoing(self, data: bytes, remote: Address, ip_header_bytes: int, account: object | None) -> Outgoing:
        """Say whose datagram this is before it leaves; follow up with `admit` and then `record`."""
        now = self._monotonic()
        header = CoapHeader.parse(data)
        exchange, opens = None, False
        if header is not None and header.is_request:
            exchange, opens = self._of_request(header, remote, "ours", account, now)
        elif header is not None and header.is_empty:
            exchange = self._find((*remote, "theirs", header.message_id), now)
        elif header is not None:
            exchange = self._find((*remote, "token", header.token), now)
            if exchange is not None and header.kind in (_CON, _NON):
                # The peer may reset it by nothing but this message id.
                self._register((*remote, "ours", header.message_id), exchange, now)
        if exchange is not None and exchange.account is None and account is not None:
            self.assign(exchange, account)
        owner = account if exchange is None else exchange.account
        size = ip_header_bytes + UDP_HEADER_BYTES + len(data)
        return Outgoing(Datagram(Direction.SENT, size, remote, owner), exchange, opens)

    def admit(self, outgoing: Outgoing) -> None:
        """Ask `before_send`; whatever it raises means that the datagram stays here, and is counted as refused."""
        if self._before_send is None:
            return
        try:
            self._before_send(outgoing.datagram)
        except Exception:
            self.refused = self.refused.plus(outgoing.datagram.bytes_ip)
            raise

    def record(self, outgoing: Outgoing) -> None:
        """Count a datagram that has left."""
        datagram, exchange = outgoing.datagram, outgoing.exchange
        self.sent = self.sent.plus(datagram.bytes_ip)
        if exchange is not None and datagram.account is None:
            exchange.sent = exchange.sent.plus(datagram.bytes_ip)
        self._on_datagram(datagram)

    def incoming(self, data: bytes, remote: Address, ip_header_bytes: int) -> Exchange | None:
        """Count a datagram that has arrived, well formed or not, and return the exchange that it belongs to."""
        now = self._monotonic()
        header = CoapHeader.parse(data)
        exchange = None
        if header is not None and header.is_request:
            exchange, _ = self._of_request(header, remote, "theirs", None, now)
            exchange.arrivals += 1
        elif header is not None and header.is_empty:
            exchange = self._find((*remote, "ours", header.message_id), now)
        elif header is not None:
            exchange = self._find((*remote, "token", header.token), now)
            if exchange is not None and header.kind == _CON:
                self._register((*remote, "theirs", header.message_id), exchange, now)
        self._arrived(ip_header_bytes + UDP_HEADER_BYTES + len(data), remote, exchange)
        return exchange

    def turned_away(self, data: bytes, remote: Address, ip_header_bytes: int) -> None:
        """Count a datagram that arrived and that nobody will look at: it costs as much as any other."""
        self._arrived(ip_header_bytes + UDP_HEADER_BYTES + len(data), remote, None)

    def incoming_icmp(self, quoted: bytes, remote: Address, ip_header_bytes: int) -> None:
        """Count an ICMP error about a datagram to `remote`; `quoted` is what it quotes after the UDP header."""
        header = CoapHeader.parse(quoted)
        exchange = None
        if header is not None:
            exchange = self._find((*remote, "ours", header.message_id), self._monotonic())
        size = 2 * ip_header_bytes + ICMP_HEADER_BYTES + UDP_HEADER_BYTES + len(quoted)
        self._arrived(size, remote, exchange, is_icmp=True)

    def _arrived(self, size: int, remote: Address, exchange: Exchange | None, *, is_icmp: bool = False) -> None:
        self.received = self.received.plus(size)
        if exchange is not None and exchange.account is None:
            exchange.received = exchange.received.plus(size)
        account = None if exchange is None else exchange.account
        self._on_datagram(Datagram(Direction.RECEIVED, size, remote, account, is_icmp))

    def _of_request(
        self, header: CoapHeader, remote: Address, whose: str, account: object | None, now: float
    ) -> tuple[Exchange, bool]:
        """Return the exchange of a request and whether it is new: the same message id and token repeat it."""
        by_id = (*remote, whose, header.message_id)
        exchange = self._find(by_id, now)
        if exchange is not None and exchange.token == header.token:
            return exchange, False
        exchange = Exchange(remote=remote, token=header.token, account=account, owner=self)
        self._register(by_id, exchange, now)
        self._register((*remote, "token", header.token), exchange, now)
        return exchange, True

    def _find(self, key: _Key, now: float) -> Exchange | None:
        return self._known.get(key, now) or self._pending.get(key, now)

    def _register(self, key: _Key, exchange: Exchange, now: float) -> None:
        if exchange.account is not None:
            self._known.put(key, exchange, now)
        elif len(exchange.keys) < KEYS_A_PENDING_EXCHANGE:
            # A key that belonged to an older exchange must not go on finding that one first.
            stale = self._known.get(key, now)
            if stale is not None:
                self._known.discard(key, stale)
            exchange.keys.append(key)
            self._pending.put(key, exchange, now)

    def assign(self, exchange: Exchange, account: object) -> None:
        """Charge an exchange to `account`, with all that came and went and will come and go for it."""
        if exchange.account is None:
            now = self._monotonic()
            for key in exchange.keys:
                if self._pending.discard(key, exchange):
                    self._known.put(key, exchange, now)
            exchange.keys.clear()
        exchange.account = account
        sent, received = exchange.sent, exchange.received
        exchange.sent = exchange.received = Tally()
        if self._on_attribution is not None and (sent.datagrams or received.datagrams):
            self._on_attribution(Attribution(exchange.remote, account, sent, received))


_handled: ContextVar[Exchange | None] = ContextVar("digitruck_coap_exchange", default=None)


@contextmanager
def handling(exchange: Exchange | None) -> Iterator[None]:
    """Make this the exchange that `Meter.attribute` charges, in here and in every task that is started in here."""
    token = _handled.set(exchange)
    try:
        yield
    finally:
        _handled.reset(token)


@lru_cache(maxsize=4_096)
def plain_host(host: str) -> tuple[str, int]:
    """Return the IP literal behind a host of an IPv6 socket, and its IP header's bytes: mapped IPv4 is IPv4."""
    if host.startswith("::ffff:") and "." in host:
        # As the kernel writes it: parsing it anew would be most of the cost of a datagram that is turned away.
        return host[7:], IPV4_HEADER_BYTES
    mapped = IPv6Address(host.partition("%")[0]).ipv4_mapped
    return (host, IPV6_HEADER_BYTES) if mapped is None else (str(mapped), IPV4_HEADER_BYTES)
