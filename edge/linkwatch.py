"""What the system says of the links' interfaces, told to the links at once: no timeout finds out what a carrier tells.

A link whose interface has gone, or lost its carrier or its last address, is down from that moment: what is in flight on
it goes to another link. One whose interface is back, or has another address or route, is tried at once. The kernel
tells of changes by netlink; a few that come together are looked at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from edge.interfaces import Changes, Interface, read_interfaces
from edge.link import Link

log = structlog.get_logger("edge.linkwatch")

_SETTLE_S = 0.05


class LinkWatch:
    """Watches the interfaces of these links; `changed(link, usable)` hears of each that fell or may be tried."""

    def __init__(
        self,
        links: Sequence[Link],
        changed: Callable[[Link, bool], None],
        *,
        read: Callable[[], dict[str, Interface]] = read_interfaces,
    ) -> None:
        self._links = [link for link in links if link.settings.interface is not None]
        self._changed = changed
        self._read = read
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled; without netlink, or without bound links, there is nothing to watch."""
        if not self._links:
            return
        try:
            changes = Changes()
        except OSError as error:
            log.warning("interfaces.unwatched", reason=str(error))
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(changes.fileno(), self._woken.set)
        try:
            while True:
                changes.drain()
                self._woken.clear()
                self.look()
                await self._woken.wait()
                await asyncio.sleep(_SETTLE_S)
        finally:
            loop.remove_reader(changes.fileno())
            changes.close()

    def look(self) -> None:
        """Read the interfaces and tell of those that have changed."""
        try:
            found = self._read()
        except OSError as error:
            log.warning("interfaces.unread", reason=str(error))
            return
        for link in self._links:
            before, now = link.device, found.get(link.settings.interface or "")
            if now == before and link.is_watched:
                continue
            could = not link.is_away
            link.device_changed(now)
            if link.is_away and could:
                why = "is not there" if now is None else now.why_not
                log.warning("interface.down", link=link.name, interface=link.settings.interface, reason=why)
                self._changed(link, False)
            elif not link.is_away:
                log.info("interface.up", link=link.name, interface=link.settings.interface)
                self._changed(link, True)
