"""A wire between truck and gateway that looks for nonces used twice, which would give the keys away (RFC 8613, 7.2.1).

A request's nonce is made of the truck's kid and the partial IV that it shows; an answer's of its own partial IV, or
without one of its request's. Whatever shows the same nonce twice must be the same datagram sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections import OrderedDict

from aiocoap import error
from aiocoap.message import Message

Nonce = tuple[str, bytes, bytes]
_TOKENS_KEPT = 4_096


class NonceWatch:
    """Every nonce that was seen, and what it protected."""

    def __init__(self) -> None:
        self.seen: dict[Nonce, bytes] = {}
        self.doubled: list[str] = []
        self._asked: OrderedDict[tuple[object, bytes], tuple[bytes, bytes]] = OrderedDict()

    def request(self, data: bytes, peer: object) -> None:
        """Look at a datagram from the truck at address `peer`."""
        message, option = _protected(data)
        if message is None or option is None:
            return
        piv, kid = option
        if not piv:
            return
        self._asked[(peer, message.token)] = (kid, piv)
        if len(self._asked) > _TOKENS_KEPT:
            self._asked.popitem(last=False)
        self._look(("request", kid, piv), message.payload)

    def answer(self, data: bytes, peer: object) -> None:
        """Look at a datagram to the truck at address `peer`."""
        message, option = _protected(data)
        if message is None or option is None:
            return
        asked = self._asked.get((peer, message.token))
        if asked is None:
            return
        kid, request_piv = asked
        # One context's answers have the gateway's own numbers, or each the number of its request.
        self._look(("answer", kid, option[0]) if option[0] else ("to request", kid, request_piv), message.payload)

    def _look(self, nonce: Nonce, protected: bytes) -> None:
        content = hashlib.sha256(protected).digest()
        if self.seen.setdefault(nonce, content) != content:
            kind, kid, piv = nonce
            self.doubled.append(f"the nonce of {kind} {piv.hex()} of kid {kid.hex()} protects two messages")


def _protected(data: bytes) -> tuple[Message | None, tuple[bytes, bytes] | None]:
    """Return a datagram's message and the (partial IV, kid) of its OSCORE option, if it has one."""
    try:
        message = Message.decode(data)
    except error.UnparsableMessage:
        return None, None
    value = message.opt.oscore
    if value is None:
        return message, None
    if not value:
        return message, (b"", b"")
    flags, rest = value[0], value[1:]
    piv, rest = rest[: flags & 7], rest[flags & 7 :]
    if flags & 0x10:
        rest = rest[1 + rest[0] :]
    return message, (piv, rest if flags & 8 else b"")


class Tap(asyncio.DatagramProtocol):
    """A relay on loopback that hands every datagram on, and shows it to the watch."""

    def __init__(self, gateway: tuple[str, int]) -> None:
        self.watch = NonceWatch()
        self._gateway = gateway
        self._near: asyncio.DatagramTransport | None = None
        self._far: dict[tuple[str, int], socket.socket] = {}

    async def open(self) -> str:
        """Start; return the address to call."""
        loop = asyncio.get_running_loop()
        self._near, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = self._near.get_extra_info("sockname")
        return f"{host}:{port}"

    def close(self) -> None:
        """Stop."""
        for each in self._far.values():
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        if self._near is not None:
            self._near.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram of the truck's."""
        self.watch.request(data, addr)
        if addr not in self._far:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect(self._gateway)
            asyncio.get_running_loop().add_reader(sock, self._answered, sock, addr)
            self._far[addr] = sock
        try:
            self._far[addr].send(data)
        except OSError:
            return  # the gateway has no power

    def _answered(self, sock: socket.socket, addr: tuple[str, int]) -> None:
        try:
            data = sock.recv(65_535)
        except OSError:
            return
        self.watch.answer(data, addr)
        if self._near is not None:
            self._near.sendto(data, addr)
