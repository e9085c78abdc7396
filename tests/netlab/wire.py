"""The forwarding process between two tun devices: every IP packet through the link model, in a thread of its own."""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from itertools import count

from gateway.demo.linkmodel import Link, LinkProfile

_PACKET_BYTES_MAX = 65_536
_IDLE_S = 0.5


class Wires:
    """All wires of one lab. Packets wait in one heap until the model says that they come out."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._routes: dict[int, tuple[Callable[[int, float], tuple[float, ...]], int]] = {}
        self._due: list[tuple[float, int, int, bytes]] = []
        self._gone: set[bytes] = set()
        self._number = count()
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe()
        self._poll.register(self._wake, select.EPOLLIN)
        self._ended = False
        self._thread = threading.Thread(target=self._forward, name="wires", daemon=True)
        self._thread.start()

    def join(self, truck_end: int, gateway_end: int, profile: LinkProfile, *, seed: int) -> Link:
        """Forward between two tun descriptors (owned from here on) as `profile` says; return the model."""
        link = Link(profile, seed=seed, start=time.monotonic())
        with self._lock:
            # Looked up anew for each packet: a link may become another one.
            self._routes[truck_end] = (lambda size, now: link.up.offer(size, now), gateway_end)
            self._routes[gateway_end] = (lambda size, now: link.down.offer(size, now), truck_end)
        for descriptor in (truck_end, gateway_end):
            self._poll.register(descriptor, select.EPOLLIN)
        return link

    def forget(self, address: str) -> None:
        """Carry nothing to an IPv4 address any more: the provider has taken it away."""
        self._gone.add(socket.inet_aton(address))

    def close(self) -> None:
        """Stop forwarding and close the devices."""
        self._ended = True
        os.write(self._woken, b"x")
        self._thread.join()
        self._poll.close()
        for descriptor in (*self._routes, self._wake, self._woken):
            os.close(descriptor)

    def _forward(self) -> None:
        while not self._ended:
            wait_s = _IDLE_S if not self._due else max(0.0, self._due[0][0] - time.monotonic())
            for descriptor, _ in self._poll.poll(min(_IDLE_S, wait_s)):
                if descriptor != self._wake:
                    self._read(descriptor)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, descriptor, packet = heapq.heappop(self._due)
                if packet[16:20] in self._gone:
                    continue  # its address was taken away while it was on the way
                with contextlib.suppress(OSError):  # the device is down: the packet is lost, as on a real link
                    os.write(descriptor, packet)

    def _read(self, descriptor: int) -> None:
        with self._lock:
            offer, other = self._routes[descriptor]
        while True:
            try:
                packet = os.read(descriptor, _PACKET_BYTES_MAX)
            except (BlockingIOError, OSError):
                return
            if packet[16:20] in self._gone:
                continue
            for at in offer(len(packet), time.monotonic()):
                heapq.heappush(self._due, (at, next(self._number), other, packet))
