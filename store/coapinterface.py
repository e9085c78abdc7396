"""The one module that reaches into aiocoap (0.4.17): its UDP message interface, with a meter and a gate at the socket.

It replaces `send` and `datagram_msg_received` of `MessageInterfaceUDP6` and extends three other methods; the test next
to it holds fingerprints of what is replaced, so that an upgrade that changes it fails there and not on a truck.
What differs from stock, besides the meter:

- A datagram that the gate refuses is not sent. If it opened a request, that request fails; aiocoap keeps running.
- The kernel reports an ICMP error about one peer on the next send to any other peer: that send is repeated.
- A full socket buffer loses the datagram, as the network would; stock fails every request to that peer.
- No exception leaves the datagram path, and token lengths above 8 are refused (RFC 7252 section 3).
- Message ids are remembered for a shorter time than 247 s (see `short_memory`).
- A datagram that `admit` turns away is counted and not looked at: aiocoap keeps state for whatever it gets to see.
- A request that `shortcut` takes is none of aiocoap's business: it is counted here and answered by `answer`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

from aiocoap.message import Direction as MessageDirection
from aiocoap.message import Message
from aiocoap.numbers.constants import TransportTuning
from aiocoap.transports.udp6 import MessageInterfaceUDP6, SockExtendedErr, UDP6EndpointAddress
from aiocoap.util import socknumbers
from aiocoap.util.asyncio.recvmsg import create_recvmsg_datagram_endpoint

from store.coapmeter import UDP_HEADER_BYTES, Address, CoapHeader, Exchange, Meter, handling, plain_host

# aiocoap reads 4,096 bytes and would count the rest of a longer datagram as nothing.
DATAGRAM_BYTES_MAX = 65_535
# MAX_TRANSMIT_SPAN is 45 s (RFC 7252 section 4.8.2): a confirmable request is repeated within that, and a trip.
EXCHANGE_LIFETIME_S = 60.0
# A garbage collection pause is longer than aiocoap's 0.1 s; each needless empty acknowledgement costs 32 bytes twice.
EMPTY_ACK_DELAY_S = 0.5
_SO_EE_ORIGIN_ICMP, _SO_EE_ORIGIN_ICMP6 = 2, 3
# Datagrams turned away or taken by the shortcut in one turn of the event loop, so that everything else gets its turn.
_READ_AT_ONCE_MAX = 64
_ANCILLARY_BYTES = 1_024
# The kernel's sock_diag(7) figures of a socket: nine numbers, of which the first two are what waits and what may.
_SO_MEMINFO, _MEMINFO_BYTES = 55, 36
_MEMORY = struct.Struct("=II")
# Much waits: half of the buffer. The kernel takes what was read off its count late, up to a quarter of the buffer.
_BEHIND_SHARE = 2


def short_memory(*, exchange_lifetime_s: float) -> Any:
    """Return tuning with which a received message id is remembered for this long and no longer.

    A socket pair has 65,536 message ids: at 247 s that is 265 requests a second, at 60 s 1,092, and the memory of each
    request (2-3 kB) is freed as much sooner. Our requests may be repeated safely, so forgetting early costs an answer,
    never correctness. Raises ValueError below aiocoap's own span of retransmissions.
    """
    span_s = TransportTuning().MAX_TRANSMIT_SPAN
    if exchange_lifetime_s <= span_s:
        raise ValueError(f"an exchange lives longer than its retransmissions, {span_s} s")

    class ShortMemory(TransportTuning):  # type: ignore[misc]  # aiocoap has no types
        EXCHANGE_LIFETIME = exchange_lifetime_s
        EMPTY_ACK_DELAY = EMPTY_ACK_DELAY_S

    return ShortMemory()


class MeteredInterface(MessageInterfaceUDP6):  # type: ignore[misc]  # aiocoap has no types
    """aiocoap's UDP message interface, each datagram of which passes a meter."""

    def __init__(self, manager: Any, *, log: Any, loop: Any, meter: Meter, tuning: Any) -> None:
        super().__init__(manager, log=log, loop=loop)
        self.meter = meter
        self.faults = 0
        # Asked with each arriving datagram, its IP bytes, its source, and whether much waits behind it, before anything
        # reads it.
        self.admit: Callable[[bytes, int, Address, bool], bool] | None = None
        self._is_behind = False
        # Asked with each datagram of an exchange that is known; whether it takes it over.
        self.shortcut: Callable[[bytes, Any, Exchange], bool] | None = None
        self._tuning = tuning

    @classmethod
    async def open(cls, manager: Any, *, sock: socket.socket, log: Any, meter: Meter, tuning: Any) -> MeteredInterface:
        """Take over a bound (or unbound) AF_INET6 datagram socket; `manager` is aiocoap's MessageManager."""
        loop = asyncio.get_running_loop()
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socknumbers.IPV6_RECVERR, 1)
        sock.setsockopt(socket.IPPROTO_IP, socknumbers.IP_RECVERR, 1)
        _, interface = await create_recvmsg_datagram_endpoint(
            loop, lambda: cls(manager, log=log, loop=loop, meter=meter, tuning=tuning), sock=sock
        )
        await interface.ready
        assert isinstance(interface, cls)
        return interface

    @property
    def sock(self) -> socket.socket:
        """The socket itself (closed after shutdown)."""
        sock = self.transport.get_extra_info("socket")
        assert isinstance(sock, socket.socket)
        return sock

    def connection_made(self, transport: Any) -> None:
        """Called by the transport before it reads for the first time."""
        transport.max_size = DATAGRAM_BYTES_MAX
        super().connection_made(transport)

    def send(self, message: Any) -> None:
        """Called by aiocoap for each transmission and retransmission of anything."""
        self._send(message.encode(), message.remote, getattr(message, "account", None), message)

    def answer(self, data: bytes, remote: Any, account: object) -> None:
        """Send the answer to a request that the shortcut took; refused by the gate, it is not sent and nobody hears."""
        if self._shutting_down is None:
            self._send(data, remote, account, None)

    def ask(self, data: bytes, remote: Any, account: object) -> None:
        """Send a request past aiocoap; `shortcut` sees its answers. Refused by the gate, it is not sent."""
        self.answer(data, remote, account)

    def next_token(self) -> bytes:
        """Return a token that no request of this socket has used lately."""
        return self._ctx.token_manager.next_token()  # type: ignore[no-any-return]

    def next_message_id(self) -> int:
        """Return a Message ID that this socket has not used lately."""
        return self._ctx._next_message_id()  # type: ignore[no-any-return]

    def _send(self, data: bytes, remote: Any, account: object, message: Any) -> None:
        outgoing = self.meter.outgoing(data, *_peer(remote.sockaddr), account)
        try:
            self.meter.admit(outgoing)
        except Exception as refusal:
            if outgoing.opens_exchange and message is not None:
                # Not now: aiocoap is in the middle of noting that it has sent this.
                self.loop.call_soon(self._fail_request, message, refusal)
            return
        if not self._transmit(data, remote):
            return
        try:
            self.meter.record(outgoing)
        except Exception as error:
            # Raised by our own callback; in here it would leave aiocoap's bookkeeping half done.
            self._note_fault("record", error)

    def datagram_msg_received(self, data: bytes, ancdata: Any, flags: int, address: Any) -> None:
        """Called by the transport for one datagram; reads on while what comes is no work for aiocoap.

        A turn of the event loop for each datagram would be most of the cost of a flood, and half of that of an upload.
        """
        is_server, sock = self.admit is not None, self.sock
        self._is_behind = is_server and _waits_behind(sock)
        for left in reversed(range(_READ_AT_ONCE_MAX if is_server else 1)):
            if self._received(data, ancdata, address) or not left or self._shutting_down is not None:
                return
            try:
                data, ancdata, _, address = sock.recvmsg(DATAGRAM_BYTES_MAX, _ANCILLARY_BYTES, socket.MSG_DONTWAIT)
            except OSError:  # nothing waits, or an error about another datagram, which the error queue tells too
                return

    def _received(self, data: bytes, ancdata: Any, address: Any) -> bool:
        """Take one datagram; return whether it was work for aiocoap."""
        exchange = None
        try:
            peer, ip_header_bytes = _peer(address)
            size = ip_header_bytes + UDP_HEADER_BYTES + len(data)
            if self.admit is not None and not self.admit(data, size, peer, self._is_behind):
                self.meter.turned_away(data, peer, ip_header_bytes)
                return False
            exchange = self.meter.incoming(data, peer, ip_header_bytes)
        except Exception as error:
            self._note_fault("meter", error)
        if self._shutting_down is not None:
            return False
        remote = self._remote(ancdata, address)
        if remote is None:
            self.meter.malformed += 1
            return False
        try:
            if self.shortcut is not None and exchange is not None and self.shortcut(data, remote, exchange):
                return False
        except Exception as error:
            self._note_fault("shortcut", error)
        message = self._decoded(data, remote)
        if message is None:
            return False
        with handling(exchange):
            try:
                self._ctx.dispatch_message(message)
            except Exception as error:
                self._note_fault("dispatch", error)
        return True

    def datagram_errqueue_received(self, data: bytes, ancdata: Any, flags: int, address: Any) -> None:
        """Called by the transport for each error that the kernel queued, ICMP ones above all."""
        try:
            for _, kind, value in ancdata:
                if kind != socknumbers.IPV6_RECVERR:
                    continue
                if SockExtendedErr.load(value).ee_origin in (_SO_EE_ORIGIN_ICMP, _SO_EE_ORIGIN_ICMP6):
                    self.meter.incoming_icmp(data, *_peer(address))
            if self._shutting_down is None:
                super().datagram_errqueue_received(data, ancdata, flags, address)
        except Exception as error:
            self._note_fault("errqueue", error)

    def error_received(self, exc: Exception) -> None:
        """Called by the transport when reading fails: the error queue says more, and is read anyway."""

    def _remote(self, ancdata: Any, address: Any) -> UDP6EndpointAddress | None:
        """Return where a datagram came from and which address of ours it was sent to, None if that is not known."""
        for level, kind, value in ancdata:
            if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                return UDP6EndpointAddress(address, self, pktinfo=value)
        return None

    def _decoded(self, data: bytes, remote: UDP6EndpointAddress) -> Any | None:
        try:
            if CoapHeader.parse(data) is None:
                raise ValueError("no CoAP header")
            message = Message.decode(data, remote)
        except Exception:
            # Options raise UnparsableMessage, UnicodeDecodeError and more; from outside they all mean the same.
            self.meter.malformed += 1
            return None
        message.direction = MessageDirection.INCOMING
        message.transport_tuning = self._tuning
        return message

    def _transmit(self, data: bytes, remote: Any) -> bool:
        ancdata = []
        if remote.pktinfo is not None:
            ancdata.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, remote.pktinfo))
        sock = self.sock
        for is_last_try in (False, True):
            try:
                sock.sendmsg((data,), ancdata, 0, remote.sockaddr)
            except OSError as error:
                if sock.fileno() < 0 or error.errno in (errno.EAGAIN, errno.ENOBUFS):
                    break
                if is_last_try:
                    self.loop.call_soon(self._fail_remote, error, remote)
            else:
                return True
        self.meter.unsent += 1
        return False

    def _fail_request(self, message: Any, refusal: Exception) -> None:
        """Undo what aiocoap noted about a request that was never sent, and give its caller the refusal."""
        if self._shutting_down is not None:
            return
        manager = self._ctx
        tokens = manager.token_manager
        if (message.remote, message.mid) in manager._active_exchanges:
            manager._remove_exchange(message)
        pipe = tokens.outgoing_requests.get((message.token, message.remote))
        if pipe is not None:
            pipe.add_exception(refusal)

    def _fail_remote(self, error: OSError, remote: Any) -> None:
        if self._shutting_down is None:
            self._ctx.dispatch_error(error, remote)

    def _note_fault(self, where: str, error: Exception) -> None:
        self.faults += 1
        self.log.error("%s: %s: %s", where, type(error).__name__, error)


def _waits_behind(sock: socket.socket) -> bool:
    """Return whether half of the receive buffer is taken: this process does not keep up."""
    waiting, room = _MEMORY.unpack_from(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_BYTES))
    return bool(waiting * _BEHIND_SHARE > room)


def _peer(sockaddr: Any) -> tuple[Address, int]:
    host, header_bytes = plain_host(sockaddr[0])
    return (host, sockaddr[1]), header_bytes
