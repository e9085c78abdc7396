"""Which of the classroom's workstations are on: they answer a ping, or at least ARP.

One bit a workstation in `which`, the first listed is bit 0: 21 of them cost a byte or two a row, and nothing while
nobody comes or goes. `each` gives every one a channel of its own in its place. Deliberately absent: names, traffic and
hours of use; it is a classroom, not a watch over children.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec

from edge.collectors.base import ChannelSpec, Clock, Collector, CollectorSettings, Row, SourceError, each_period
from edge.collectors.blocking import BlockingCalls
from edge.collectors.extras import import_extra
from edge.collectors.neighbours import NeighbourState, read_neighbours

WORKSTATIONS_MAX: Final = 52  # a bit each, and whoever reads them in JSON has a double
_PING_S: Final = 1.0
_PERIOD_S_MIN: Final = 15.0
# The kernel takes 5 s until it doubts an old neighbour, then asks three times, a second apart.
_SETTLE_S: Final = 9
_PENDING: Final = NeighbourState.INCOMPLETE | NeighbourState.DELAY | NeighbourState.PROBE


class WorkstationsSettings(CollectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`hosts` are addresses or ranges (`10.0.0.11-31`), in the order of their bits."""

    hosts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=WORKSTATIONS_MAX)]
    each: bool = False

    def check(self) -> None:
        """Refuse addresses that are none, twice the same, and a period shorter than the answer takes."""
        try:
            addresses = expand(self.hosts)
        except ValueError as error:
            raise ValueError(f"hosts: {error}") from error
        if len(addresses) > WORKSTATIONS_MAX:
            raise ValueError(f"hosts: at most {WORKSTATIONS_MAX}, not {len(addresses)}")
        if len(set(addresses)) != len(addresses):
            raise ValueError("hosts: has one twice")
        if self.period_s < _PERIOD_S_MIN:
            raise ValueError(f"period_s: at least {_PERIOD_S_MIN:g}, as a neighbour takes that long to be sure of")


class WorkstationsCollector(Collector[WorkstationsSettings]):
    """Asks all workstations at once, each period."""

    settings_type: ClassVar[type[CollectorSettings]] = WorkstationsSettings

    def __init__(self, settings: WorkstationsSettings) -> None:
        super().__init__(settings)
        self._addresses = expand(settings.hosts)
        self._blocking = BlockingCalls(settings.name)
        self._privileged = True

    @property
    def channels(self) -> tuple[ChannelSpec, ...]:
        """Return `on`, how many are, and which: one channel of bits, or one for each."""
        locals_ = [f"ws{number}" for number in range(1, len(self._addresses) + 1)] if self.settings.each else ["which"]
        specs = [ChannelSpec(self.channel_name(name), typical_change=0) for name in locals_]
        return (ChannelSpec(self.channel_name("on"), "count", typical_change=0), *specs)

    async def rows(self, clock: Clock) -> AsyncGenerator[Row, None]:
        """Yield a row each period; `SourceError` where this process may not ping at all."""
        icmplib = await import_extra("icmplib", "workstations")
        async for _ in each_period(clock, self.period_s):
            on = await self._on(icmplib, clock)
            bits = [int(address in on) for address in self._addresses]
            which = bits if self.settings.each else [sum(bit << place for place, bit in enumerate(bits))]
            yield Row((sum(bits), *which))

    async def _on(self, icmplib: Any, clock: Clock) -> set[str]:
        on = await self._answering(icmplib)
        for _ in range(_SETTLE_S):
            silent = [address for address in self._addresses if address not in on]
            if not silent:
                break
            try:
                states = await self._blocking.call(read_neighbours)
            except OSError as error:
                raise SourceError(f"the neighbours cannot be read: {error}") from error
            on |= {address for address in silent if states.get(address, 0) & NeighbourState.REACHABLE}
            if not any(states.get(address, 0) & _PENDING for address in silent if address not in on):
                break
            await clock.sleep(1.0)
        return on

    async def _answering(self, icmplib: Any) -> set[str]:
        # Raw sockets need CAP_NET_RAW; where the system lets its users ping, the others do as well.
        while True:
            try:
                hosts = await icmplib.async_multiping(
                    self._addresses,
                    count=1,
                    timeout=_PING_S,
                    concurrent_tasks=WORKSTATIONS_MAX,
                    privileged=self._privileged,
                )
                return {host.address for host in hosts if host.is_alive}
            except icmplib.SocketPermissionError as error:
                if not self._privileged:
                    raise SourceError(
                        "may not ping: give the daemon CAP_NET_RAW, or set net.ipv4.ping_group_range"
                    ) from error
                self._privileged = False
            except (icmplib.ICMPLibError, OSError) as error:
                raise SourceError(f"cannot ping: {error}") from error


def expand(hosts: Sequence[str]) -> tuple[str, ...]:
    """Return every address of a list of addresses and ranges; ValueError for what is neither."""
    found: list[str] = []
    for host in hosts:
        first, dash, last = host.partition("-")
        address = ipaddress.ip_address(first)
        found.append(str(address))
        if dash:
            low = int(first.rpartition(".")[2]) if address.version == 4 else 256
            if not (last.isdecimal() and last.isascii() and low < int(last[:4]) <= 255):
                raise ValueError(f"{host!r} is no range such as 10.0.0.11-31")
            found += [str(address + step) for step in range(1, int(last) - low + 1)]
    return tuple(found)
