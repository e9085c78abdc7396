"""aiocoap contexts as this project uses them: one metered UDP socket and OSCORE, nothing else.

No SO_REUSEPORT (a stale server silently took its successor's clients), no name resolution, no multicast, no other
transport. A request is charged by setting `account` on its message (any value but None) before `Context.request`:
all that follows from it, block-wise continuations and the OSCORE message around it included, is charged alike.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable
from contextvars import ContextVar
from ipaddress import IPv4Address, ip_address
from typing import Any

from aiocoap.protocol import Context
from aiocoap.transports.oscore import TransportOSCORE
from aiocoap.transports.udp6 import UDP6EndpointAddress

from store.coapinterface import EXCHANGE_LIFETIME_S, MeteredInterface, short_memory
from store.coaplog import CappedLogger, quiet_stock_loggers
from store.coapmeter import Address, Attribution, Datagram, Meter, plain_host
from store.coaptokens import Tokens

RECEIVE_BUFFER_BYTES = 1 << 20
# Some 3,000 datagrams: what a flood brings while other processes have the processor for a third of a second.
SERVER_RECEIVE_BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33

_charged: ContextVar[object | None] = ContextVar("digitruck_coap_account", default=None)


class MeteredContext(Context):  # type: ignore[misc]  # aiocoap has no types
    """An aiocoap Context over one metered socket; made by `client_context` and `server_context`."""

    meter: Meter
    interface: MeteredInterface

    @property
    def address(self) -> Address:
        """The (IP literal, port) that the socket is bound to."""
        sockaddr = self.interface.sock.getsockname()
        return plain_host(sockaddr[0])[0], sockaddr[1]

    def remote_at(self, address: Address) -> Any:
        """Return what to set as `Message.remote` for a peer at (IP literal, port): so no Uri-Host goes on the wire."""
        return UDP6EndpointAddress((_mapped(address[0]), address[1], 0, 0), self.interface)

    def request(self, request_message: Any, handle_blockwise: bool = True) -> Any:
        """Send a request, as aiocoap does; its account is that of the message, or of the request it is made for."""
        # aiocoap makes the messages of a block-wise transfer, and those around OSCORE ones, in tasks that it starts in
        # here: they inherit the variable, and come through here again.
        account = getattr(request_message, "account", None)
        if account is None:
            account = _charged.get()
        request_message.account = account
        # aiocoap cuts what it sends around an OSCORE message into outer blocks beyond 1,024 bytes. A batch is meant to
        # fill a datagram, and its peer assembles no blocks of strangers.
        handle_blockwise = handle_blockwise and request_message.opt.oscore is None
        token = _charged.set(account)
        try:
            request = super().request(request_message, handle_blockwise)
        finally:
            _charged.reset(token)
        if not handle_blockwise:
            request.response = _Answer(request)
        return request


class _Answer(asyncio.Future[Any]):
    """The answer to a request; cancelled, aiocoap hears of it at once.

    It would hear in the next turn of the loop only, and break when the answer comes in between.
    """

    def __init__(self, request: Any) -> None:
        super().__init__(loop=request.response.get_loop())
        self._request = request

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the request up."""
        if not super().cancel(msg):
            return False
        self._request._response_cancellation_handler(self)
        return True


class _CancellableOSCORE(TransportOSCORE):  # type: ignore[misc]  # aiocoap has no types
    """aiocoap's OSCORE transport, except that a request which nobody waits for any more ends.

    Stock keeps its task, the message around it and its token until shutdown, and then logs an error for each of them.
    """

    def request(self, request: Any) -> None:
        """Send a request from a task that ends when its pipe is left."""
        task = self.loop.create_task(self._request(request), name="OSCORE request")
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and isinstance(failure := task.exception(), Exception):
                request.add_exception(failure)

        task.add_done_callback(done)
        request.on_interest_end(task.cancel)


async def client_context(
    *,
    on_datagram: Callable[[Datagram], None],
    on_attribution: Callable[[Attribution], None] | None = None,
    before_send: Callable[[Datagram], None] | None = None,
    bind: Address = ("::", 0),
    interface: str | None = None,
    credentials: Any = None,
    exchange_lifetime_s: float = EXCHANGE_LIFETIME_S,
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
) -> MeteredContext:
    """Open a context for sending requests, one a link.

    `bind` is (IP literal, port), "::" being both families; `interface` binds the socket to a network interface
    (SO_BINDTODEVICE); `credentials` are aiocoap's client credentials. The callbacks are those of `Meter`.
    Raises OSError if the address or the interface cannot be had.
    """
    context = MeteredContext(loop=asyncio.get_running_loop(), serversite=None)
    if credentials is not None:
        # Not by the constructor: it takes an empty map for none.
        context.client_credentials = credentials
    context.meter = Meter(
        on_datagram=on_datagram,
        on_attribution=on_attribution,
        before_send=before_send,
        lifetime_s=exchange_lifetime_s,
    )
    await _connect(context, _open_socket(bind, interface, receive_buffer_bytes), exchange_lifetime_s)
    return context


async def server_context(
    site: Any,
    *,
    bind: Address,
    on_datagram: Callable[[Datagram], None],
    on_attribution: Callable[[Attribution], None] | None = None,
    before_send: Callable[[Datagram], None] | None = None,
    admit: Callable[[bytes, int, Address, bool], bool] | None = None,
    interface: str | None = None,
    credentials: Any = None,
    exchange_lifetime_s: float = EXCHANGE_LIFETIME_S,
    receive_buffer_bytes: int = SERVER_RECEIVE_BUFFER_BYTES,
) -> MeteredContext:
    """Open a context that answers requests from `site` (None: set `serversite` later), see `client_context`.

    The site charges a request by `context.meter.attribute(account)` as soon as it knows whose it is, best in its own
    `render_to_pipe`: aiocoap answers the later blocks of a response without asking the resource. `credentials` are
    aiocoap's server credentials; `admit(datagram, IP bytes, source, much waits)` says whether one is looked at.
    Raises OSError if the port is taken.
    """
    context = MeteredContext(loop=asyncio.get_running_loop(), serversite=site)
    if credentials is not None:
        context.server_credentials = credentials
    context.meter = Meter(
        on_datagram=on_datagram,
        on_attribution=on_attribution,
        before_send=before_send,
        lifetime_s=exchange_lifetime_s,
    )
    await _connect(context, _open_socket(bind, interface, receive_buffer_bytes), exchange_lifetime_s)
    context.interface.admit = admit
    return context


def raise_receive_buffer(sock: socket.socket, size_bytes: int) -> int:
    """Ask for a receive buffer of this size and return what the kernel granted.

    net.core.rmem_max bounds it, except for a process that may administer the network.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size_bytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)
    # The kernel doubles it for its own bookkeeping, and reports the double.
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


async def _connect(context: MeteredContext, sock: socket.socket, exchange_lifetime_s: float) -> None:
    """Give a context its log, OSCORE and the metered interface on `sock`."""
    quiet_stock_loggers()
    context.log = CappedLogger("digitruck.coap", logging.getLogger("digitruck"))
    # First: it takes the requests for which there are credentials, and sends them through the context again.
    context.request_interfaces.append(_CancellableOSCORE(context, context))

    async def open_interface(manager: Any) -> MeteredInterface:
        context.interface = await MeteredInterface.open(
            manager, sock=sock, log=context.log, meter=context.meter, tuning=tuning
        )
        return context.interface

    try:
        tuning = short_memory(exchange_lifetime_s=exchange_lifetime_s)
        await context._append_tokenmanaged_messagemanaged_transport(open_interface)
        tokens = Tokens(monotonic=time.monotonic, first=random.getrandbits(16))
        context.request_interfaces[-1].next_token = tokens.next
    except BaseException:
        sock.close()
        raise


def _open_socket(bind: Address, interface: str | None, receive_buffer_bytes: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        raise_receive_buffer(sock, receive_buffer_bytes)
        if interface is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        sock.bind((_mapped(bind[0]), bind[1]))
    except BaseException:
        sock.close()
        raise
    return sock


def _mapped(host: str) -> str:
    return f"::ffff:{host}" if isinstance(ip_address(host), IPv4Address) else host
