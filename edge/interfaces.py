"""What the kernel says of network interfaces: carrier, addresses, routes, MTU, by rtnetlink (RFC 3549), no process run.

`read_interfaces` asks for all of it at once; `Changes` is a socket on which the kernel tells that something changed.
Only what is needed of the messages is read, and whatever does not fit is skipped: they come from the kernel, but of a
version that nobody here has seen. What kind of link an interface is comes from /sys/class/net.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")
_DONE, _ERROR = 3, 2
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 22, 24, 26
_REQUEST_DUMP = 0x301
_IFLA_IFNAME, _IFLA_MTU, _IFLA_OPERSTATE = 3, 4, 16
_IFA_ADDRESS, _IFA_LOCAL, _RTA_OIF = 1, 2, 4
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_OPER_DOWN = frozenset({1, 2, 3, 5})  # not present, down, lower layer down, dormant (RFC 2863)
_SCOPE_LINK, _UNICAST, _LOCAL_TABLE = 253, 1, 255
_GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400  # links, addresses and routes of both families
_READ_BYTES, _READS_MAX = 1 << 17, 256
_SYS = Path("/sys/class/net")
_CELLULAR_DRIVERS = frozenset({"qmi_wwan", "cdc_mbim", "cdc_ncm", "huawei_cdc_ncm", "sierra_net", "option"})


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface as it is now; `kind` is ethernet, wifi, cellular, tethered, tunnel or other."""

    name: str
    index: int
    is_up: bool
    has_carrier: bool
    mtu_bytes: int
    kind: str = "other"
    addresses: tuple[str, ...] = ()
    has_default_route: bool = False
    routes: int = 0  # beyond its own network

    @property
    def can_carry(self) -> bool:
        """Whether anything could leave by it: it is up, has a carrier and an address."""
        return self.is_up and self.has_carrier and bool(self.addresses)

    @property
    def why_not(self) -> str:
        """What it lacks, empty if nothing."""
        if not self.is_up:
            return "is switched off"
        if not self.has_carrier:
            return "has no carrier"
        return "" if self.addresses else "has no address"

    @property
    def looks_metered(self) -> bool:
        """Whether links of its kind are paid for by the byte as a rule."""
        return self.kind in ("cellular", "tethered")


class Changes:
    """A socket that becomes readable when a link, an address or a route changes; `drain` before reading anew."""

    def __init__(self) -> None:
        """Open it; raise OSError where there is no netlink."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Throw away what was told: the state is read as a whole, also when the kernel had to drop messages."""
        for _ in range(_READS_MAX):
            try:
                self._socket.recv(_READ_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def read_interfaces(sys_folder: Path = _SYS) -> dict[str, Interface]:
    """Return the interfaces of this network namespace by name; raise OSError where there is no netlink."""
    found: dict[int, Interface] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(1.0)
        asking.bind((0, 0))
        for body in _dump(asking, _GETLINK, _NEWLINK):
            if (link := parse_link(body)) is not None:
                found[link.index] = replace(link, kind=kind_of(link.name, sys_folder))
        for body in _dump(asking, _GETADDR, _NEWADDR):
            index, address = parse_address(body)
            if index in found and address:
                found[index] = replace(found[index], addresses=(*found[index].addresses, address))
        for body in _dump(asking, _GETROUTE, _NEWROUTE):
            index, is_default = parse_route(body)
            if index in found:
                known = found[index]
                found[index] = replace(
                    known, routes=known.routes + 1, has_default_route=known.has_default_route or is_default
                )
    return {each.name: each for each in found.values()}


def parse_link(body: bytes) -> Interface | None:
    """Return the interface of an RTM_NEWLINK, None if it is not whole."""
    if len(body) < _LINK.size:
        return None
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = dict(_attributes(body[_LINK.size :]))
    name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    state = attributes.get(_IFLA_OPERSTATE, b"\0")[:1]
    mtu = attributes.get(_IFLA_MTU, b"")
    if not name:
        return None
    return Interface(
        name,
        index,
        is_up=bool(flags & _IFF_UP),
        has_carrier=bool(flags & _IFF_LOWER_UP) and not (state and state[0] in _OPER_DOWN),
        mtu_bytes=int.from_bytes(mtu[:4], sys.byteorder),
    )


def parse_address(body: bytes) -> tuple[int, str]:
    """Return index and address of an RTM_NEWADDR; no address if it reaches no further than its own link."""
    if len(body) < _ADDRESS.size:
        return 0, ""
    family, _, _, scope, index = _ADDRESS.unpack_from(body)
    attributes = dict(_attributes(body[_ADDRESS.size :]))
    raw = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
    size = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family)
    if scope == _SCOPE_LINK or len(raw) != size:
        return index, ""
    return index, socket.inet_ntop(family, raw)


def parse_route(body: bytes) -> tuple[int, bool]:
    """Return the interface of an RTM_NEWROUTE that leads beyond its own network, and whether it is a default route."""
    if len(body) < _ROUTE.size:
        return 0, False
    _, prefix, _, _, table, _, scope, kind, _ = _ROUTE.unpack_from(body)
    attributes = dict(_attributes(body[_ROUTE.size :]))
    out = attributes.get(_RTA_OIF, b"")
    if kind != _UNICAST or table == _LOCAL_TABLE or len(out) != 4:
        return 0, False
    (index,) = struct.unpack("=I", out)
    return (0, False) if scope == _SCOPE_LINK and 0 < prefix < 32 else (index, prefix == 0)


def kind_of(name: str, sys_folder: Path = _SYS) -> str:
    """Return what kind of link an interface is, by what its driver says."""
    place = sys_folder / name
    try:
        event = (place / "uevent").read_text(encoding="ascii", errors="replace")
    except OSError:
        event = ""
    driver = ""
    with contextlib.suppress(OSError):
        driver = Path(os.readlink(place / "device" / "driver")).name
    if "DEVTYPE=wwan" in event or driver in _CELLULAR_DRIVERS or name.startswith(("wwan", "ppp")):
        return "cellular"
    if driver in ("rndis_host", "ipheth", "cdc_ether"):
        return "tethered"
    if "DEVTYPE=wlan" in event or (place / "wireless").exists():
        return "wifi"
    if (place / "tun_flags").exists() or "DEVTYPE=wireguard" in event:
        return "tunnel"
    return "ethernet" if (place / "device").exists() or "DEVTYPE=vlan" in event else "other"


def _dump(asking: socket.socket, kind: int, wanted: int) -> Iterator[bytes]:
    """Yield the bodies of the answers to one dump request."""
    asking.send(_HEADER.pack(_HEADER.size + 16, kind, _REQUEST_DUMP, kind, 0) + bytes(16))
    for _ in range(_READS_MAX):
        data = asking.recv(_READ_BYTES)
        while len(data) >= _HEADER.size:
            length, answered, _, sequence, _ = _HEADER.unpack_from(data)
            if length < _HEADER.size or answered in (_DONE, _ERROR):
                return
            if answered == wanted and sequence == kind:
                yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size or length > len(data):
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
