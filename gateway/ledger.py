"""The gateway's byte account: every datagram of the CoAP socket, by truck, link, precedence and cause.

The meter reports a datagram at once and, for requests, whose it was a little later. Sums are kept in memory and written
every few seconds: the gateway's link costs nobody money, the truck's own ledger is the one that is committed before
anything is sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable

from gateway.pricing import Priced, Pricing
from protocol.numbers import Precedence
from store.account import Account
from store.coapmeter import Attribution, Datagram
from store.coapmeter import Direction as Way
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, LedgerEntry

_FLUSH_S = 2.0
_STRANGER = Account(Precedence.NORMAL, "stranger", "", "")

_Key = tuple[Account, Direction]
_UNPRICED = Priced(0, None, "")


class GatewayLedger:
    """Adds up datagrams and writes the sums to the fleet database."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        self._pricing = Pricing(fleet, now_ms=now_ms)
        self._sums: defaultdict[_Key, list[int]] = defaultdict(lambda: [0, 0])
        # Of what trucks pay for also how many datagrams had which size: some providers round each of them up.
        self._sizes: defaultdict[_Key, Counter[int]] = defaultdict(Counter)

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
        sizes, self._sizes = self._sizes, defaultdict(Counter)
        try:
            entries = [
                await self._entry(*key, count[0], count[1], sizes.get(key))
                for key, count in sums.items()
                if count[0] or count[1]
            ]
            if entries:
                await self._fleet.ledger_add(entries)
        except BaseException:
            # Whether it was written is unknown only if the commit itself failed; to lose it all is worse.
            for (account, direction), count in sums.items():
                entry = self._sums[account, direction]
                entry[0] += count[0]
                entry[1] += count[1]
            for key, counted in sizes.items():
                self._sizes[key].update(counted)
            raise

    async def _entry(
        self, account: Account, direction: Direction, size: int, datagrams: int, sizes: Counter[int] | None
    ) -> LedgerEntry:
        priced = _UNPRICED
        if account.truck and account.link and sizes:
            priced = await self._pricing.cost(account.truck, account.link, sizes)
        return LedgerEntry(
            truck=account.truck or "",
            link=account.link or "",
            precedence=account.precedence,
            cause=account.cause,
            direction=direction,
            at_ms=self._now_ms(),
            bytes=size,
            datagrams=datagrams,
            billed_bytes=priced.billed if sizes else None,
            money_nano=priced.nano,
            currency=priced.currency,
        )

    def _add(self, account: Account, direction: Direction, size: int, datagrams: int) -> None:
        entry = self._sums[(account, direction)]
        entry[0] += size
        entry[1] += datagrams
        if account.truck and datagrams > 0:
            # Several that were attributed at once count as equally long.
            each, longer = divmod(size, datagrams)
            self._sizes[account, direction][each] += datagrams - longer
            if longer:
                self._sizes[account, direction][each + 1] += longer
