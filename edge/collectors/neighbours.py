"""What the kernel knows of the computers on its own networks: its neighbour tables, by netlink (rtnetlink(7)).

A computer that drops pings still answers ARP. Forty lines in place of a library that would cost 14 MB of memory.
Deliberately absent: changing anything, and addresses of hardware, which would be personal data of whoever carries it.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from enum import IntFlag
from typing import Final

_GET_NEIGHBOURS, _NEW_NEIGHBOUR, _ERROR, _DONE = 30, 28, 2, 3
_REQUEST_DUMP: Final = 0x301
_ADDRESS: Final = 1  # NDA_DST
_HEAD: Final = struct.Struct("=IHHII")
_ENTRY: Final = struct.Struct("=BBHiHBB")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ANSWER_S_MAX: Final = 5.0
_ANSWER_BYTES: Final = 64 * 1024


class NeighbourState(IntFlag):
    """NUD_* of linux/neighbour.h: what the kernel believes of an address."""

    INCOMPLETE = 1
    REACHABLE = 2
    STALE = 4
    DELAY = 8
    PROBE = 16
    FAILED = 32
    NOARP = 64
    PERMANENT = 128


def read_neighbours() -> dict[str, NeighbourState]:
    """Return the state of each address that the kernel has heard of; blocks for moments; OSError if it refuses."""
    request = _HEAD.pack(_HEAD.size + _ENTRY.size, _GET_NEIGHBOURS, _REQUEST_DUMP, 1, 0)
    request += _ENTRY.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0)
    found: dict[str, NeighbourState] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_ANSWER_S_MAX)
        kernel.bind((0, 0))
        kernel.send(request)
        while take_answer(kernel.recv(_ANSWER_BYTES), found):
            pass
    return found


def take_answer(answer: bytes, found: dict[str, NeighbourState]) -> bool:
    """Add the neighbours of one netlink datagram to `found`; return whether more datagrams follow."""
    offset = 0
    while offset + _HEAD.size <= len(answer):
        length, kind, _, _, _ = _HEAD.unpack_from(answer, offset)
        if length < _HEAD.size or offset + length > len(answer):
            raise OSError("the kernel's answer is cut off")
        if kind == _ERROR:
            raise OSError("the kernel does not tell its neighbours")
        if kind == _DONE:
            return False
        if kind == _NEW_NEIGHBOUR and length >= _HEAD.size + _ENTRY.size:
            state = NeighbourState(_ENTRY.unpack_from(answer, offset + _HEAD.size)[4])
            address = _address_in(answer[offset + _HEAD.size + _ENTRY.size : offset + length])
            if address is not None:
                found[address] = found.get(address, NeighbourState(0)) | state
        offset += -(-length // 4) * 4
    return True


def _address_in(attributes: bytes) -> str | None:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if length < _ATTRIBUTE.size:
            return None
        value = attributes[_ATTRIBUTE.size : length]
        if kind == _ADDRESS:
            return str(ipaddress.ip_address(value)) if len(value) in (4, 16) else None
        attributes = attributes[-(-length // 4) * 4 :]
    return None
