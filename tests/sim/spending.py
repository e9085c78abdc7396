"""What each link has carried in each billing period of its truck, beside the highest cap that was stated for it.

A period is the one that the truck's ledger has open: its clock is the gateway's, which may be wrong.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.world import World

Key = tuple[str, str, int]  # machine, link, period
_UNLIMITED = 1 << 62


class Spending:
    """Fed by `tests.sim.observe`, read by the checks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[tuple[str, str], int] = {}
        self._period: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.carried: defaultdict[Key, int] = defaultdict(int)
        self.unasked: defaultdict[Key, int] = defaultdict(int)
        self.caps: dict[Key, int] = {}

    def count(self, machine: str) -> None:
        """Count what the links of a machine carried since the last time, in the periods that it has open."""
        for link in self._world.trucks[machine].config.link:
            key = machine, link.name
            total = self._world.network.links[key].count.total_bytes
            before = self._seen.get(key, self._world.joined_bytes.get(key, 0))
            self._seen[key] = total
            self.carried[(*key, self._period[key])] += total - before

    def opened(self, machine: str, link: str, period: int, *, carries: bool) -> None:
        """Note that a ledger has opened a period; what came before is of the last one, or (`carries`) of both."""
        self.count(machine)
        key = machine, link
        last, self._period[key] = self._period[key], period
        if carries and last != period:
            for sums in (self.carried, self.unasked):
                sums[(*key, period)] += sums[(*key, last)]
            # What was spent was spent under the caps of then.
            self.caps[(*key, period)] = max(self.caps.get((*key, each), 0) for each in (last, period))

    def capped(self, machine: str, link: str, cap_bytes: int | None) -> None:
        """Note the cap under which something was about to be spent."""
        key = machine, link, self._period[(machine, link)]
        self.caps[key] = max(self.caps.get(key, 0), _UNLIMITED if cap_bytes is None else cap_bytes)

    def came_unasked(self, machine: str, link: str, byte_count: int) -> None:
        """Note bytes that nobody could refuse."""
        self.unasked[(machine, link, self._period[(machine, link)])] += byte_count

    def overrun(self) -> list[str]:
        """Return which links carried more in a period than they might, but for what came unasked."""
        found = []
        for key, carried in sorted(self.carried.items()):
            machine, link, period = key
            unasked, cap = self.unasked[key], self.caps.get(key)
            if cap is None:
                continue  # nothing was reserved since it began: what came was under way before
            if carried - unasked > cap and not self._world.trucks[machine].excused:
                found.append(f"{machine} {link} carried {carried} bytes in {period} ({unasked} unasked), of {cap}")
        return found
