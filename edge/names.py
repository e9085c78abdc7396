"""The addresses behind gateways' names, asked for seldom: questions to name servers are bytes that no meter sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

_RESOLVED_S = 600.0


class Names:
    """What one link knows of names; `forget` when the link was down, since each network may answer otherwise."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._resolved: dict[str, tuple[str, float]] = {}

    def forget(self) -> None:
        """Ask anew for every name."""
        self._resolved.clear()

    async def resolve(self, host: str) -> str:
        """Return the IP literal of a host, which may be one; raise `OSError` when there is none."""
        try:
            return str(ip_address(host))
        except ValueError:
            pass
        known, until = self._resolved.get(host, ("", 0.0))
        if known and self._monotonic() < until:
            return known
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
        self._resolved[host] = str(found[0][4][0]), self._monotonic() + _RESOLVED_S
        return self._resolved[host][0]
