"""Trucks and a gateway in network namespaces, joined by links that are slow, lossy and out, counted by the kernel.

    main namespace (the test)  --veth-->  gateway:  10.77.0.1 on lo, a tun device a link
                               --veth-->  a truck:  a tun device a link, named as the link, 10.77.L.2

Each tun pair is one link: what one end sends, the forwarding thread offers to the link model and hands to the other end
when and if it comes out. The veth pairs carry nothing but the test's own questions to the HTTP services.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Self

from gateway.demo.linkmodel import Link, LinkProfile
from tests.netlab.namespaces import Counted, Namespace, run
from tests.netlab.wire import Wires

GATEWAY_ADDRESS = "10.77.0.1"
_LABS = count()


@dataclass(frozen=True, slots=True)
class Ends:
    """One link: its model, its device at the gateway, and its subnet's number."""

    model: Link
    gateway_device: str
    subnet: int


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace with its address for the test's own questions."""

    namespace: Namespace
    address: str
    ends: dict[str, Ends] = field(default_factory=dict)


class Lab:
    """Use as a context manager: everything it made goes with it."""

    def __init__(self, *, seed: int = 1) -> None:
        self._seed = seed
        self._name = f"dt{os.getpid() % 100_000}x{next(_LABS)}"
        self._numbers = count(1)
        self._subnets = count(1)
        self._places: list[Place] = []
        self._wires = Wires()
        self.gateway: Place

    def __enter__(self) -> Self:
        try:
            self.gateway = self._place("gw")
            self.gateway.namespace.ip("addr", "add", f"{GATEWAY_ADDRESS}/32", "dev", "lo")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wires.close()
        for place in self._places:
            place.namespace.delete()

    def truck(self, name: str, links: Mapping[str, LinkProfile]) -> Place:
        """Make a truck's namespace with its links."""
        place = self._place(name)
        for link, profile in links.items():
            self._join(place, link, profile)
        return place

    def counted(self, place: Place, link: str) -> tuple[Counted, Counted]:
        """Return what the kernel counted on a link: at the truck's device, and at the gateway's."""
        ends = place.ends[link]
        return place.namespace.counted(link), self.gateway.namespace.counted(ends.gateway_device)

    def follow(self, place: Place, link: str, profile: LinkProfile) -> None:
        """Have a link be as this profile says, whose instants count from now on; its counts begin anew."""
        place.ends[link].model.become(profile, seed=self._seed, start=time.monotonic())

    def change_address(self, place: Place, link: str, host: int) -> None:
        """Give a link another address, as a provider does."""
        subnet = place.ends[link].subnet
        (device,) = json.loads(place.namespace.ip("-j", "addr", "show", "dev", link))
        for each in device["addr_info"]:
            if each["local"] != f"10.77.{subnet}.{host}":
                self._wires.forget(each["local"])
        place.namespace.ip("addr", "flush", "dev", link)
        place.namespace.ip("addr", "add", f"10.77.{subnet}.{host}/24", "dev", link)
        self._route(place, link, subnet)

    def _place(self, name: str) -> Place:
        number = next(self._numbers)
        namespace = Namespace(f"{self._name}-{name}"[:60])
        # 198.18.0.0/15 is for test networks (RFC 2544); a /30 for each namespace of each process.
        base = (os.getpid() % 500) * 256 + number * 4
        ours, theirs = (f"198.{18 + (base >> 16)}.{(base >> 8) & 255}.{(base & 255) + end}" for end in (1, 2))
        place = Place(namespace, theirs)
        self._places.append(place)
        device = f"m{os.getpid() % 100_000}.{number}.{self._name.rpartition('x')[2]}"[:15]
        run("ip", "link", "add", device, "type", "veth", "peer", "name", "mgmt", "netns", namespace.name)
        run("ip", "addr", "add", f"{ours}/30", "dev", device)
        run("ip", "link", "set", device, "up")
        namespace.ip("addr", "add", f"{theirs}/30", "dev", "mgmt")
        namespace.ip("link", "set", "mgmt", "up")
        namespace.count_icmp()
        return place

    def _join(self, place: Place, link: str, profile: LinkProfile) -> None:
        subnet = next(self._subnets)
        device = f"tun{subnet}"
        truck_end = place.namespace.open_tun(link, profile.up.mtu_bytes)
        gateway_end = self.gateway.namespace.open_tun(device, profile.down.mtu_bytes)
        self.gateway.namespace.ip("addr", "add", f"10.77.{subnet}.1/24", "dev", device)
        place.namespace.ip("addr", "add", f"10.77.{subnet}.2/24", "dev", link)
        self._route(place, link, subnet)
        model = self._wires.join(truck_end, gateway_end, profile, seed=self._seed * 100 + subnet)
        place.ends[link] = Ends(model, device, subnet)

    @staticmethod
    def _route(place: Place, link: str, subnet: int) -> None:
        # One route a link: the socket is bound to its device, which picks the route.
        place.namespace.ip("route", "replace", GATEWAY_ADDRESS, "dev", link, "metric", str(subnet))
