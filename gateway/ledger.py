"""The gateway's byte account: every datagram of the CoAP socket, by truck, link, precedence and cause.

The meter reports a datagram at once and, for requests, whose it was a little later. Sums are kept in memory and written
every few seconds: the gateway's link costs nobody money, the truck's own ledger is the one that is committed before
anything is sent.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from protocol.numbers import Precedence
from store.account import Account
from store.coapmeter import Attribution, Datagram
from store.coapmeter import Direction as Way
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, LedgerEntry

_FLUSH_S = 2.0
_STRANGER = Account(Precedence.NORMAL, "stranger", "", "")

_Key = tuple[Account, Direction]


class GatewayLedger:
    """Adds up datagrams and writes the sums to the fleet database."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        self._sums: defaultdict[_Key, list[int]] = defaultdict(lambda: [0, 0])

    def on_datagram(self, datagram: Datagram) -> None:
        """Count one datagram; without an account it is a stranger's until `on_attribution` says otherwise."""
        account = datagram.account if isinstance(datagram.account, Account) else _STRANGER
        # What this socket sends is what the truck receives.
        self._add(account, Direction.DOWN if datagram.direction is Way.SENT else Direction.UP, datagram.bytes_ip, 1)

    def on_attribution(self, attribution: Attribution) -> None:
        """Move bytes that found their account."""
        if not isinstance(attribution.account, Account):
            return
        for way, tally in ((Direction.DOWN, attribution.sent), (Direction.UP, attribution.received)):
            if tally.datagrams:
                self._add(attribution.account, way, tally.bytes_ip, tally.datagrams)
                self._add(_STRANGER, way, -tally.bytes_ip, -tally.datagrams)

    async def run(self) -> None:
        """Write the sums now and then, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what has been counted."""
        sums, self._sums = self._sums, defaultdict(lambda: [0, 0])
        at_ms = self._now_ms()
        entries = [
            LedgerEntry(
                truck=account.truck or "",
                link=account.link or "",
                precedence=account.precedence,
                cause=account.cause,
                direction=direction,
                at_ms=at_ms,
                bytes=count[0],
                datagrams=count[1],
            )
            for (account, direction), count in sums.items()
            if count[0] or count[1]
        ]
        if not entries:
            return
        try:
            await self._fleet.ledger_add(entries)
        except BaseException:
            # Whether it was written is unknown only if the commit itself failed; to lose it all is worse.
            for key, count in sums.items():
                self._add(*key, *count)
            raise

    def _add(self, account: Account, direction: Direction, size: int, datagrams: int) -> None:
        entry = self._sums[(account, direction)]
        entry[0] += size
        entry[1] += datagrams
