"""What each datagram that the gateway counted costs its truck, by the tariff that is in force for the link.

The same arithmetic as the truck's own (`protocol.billing`), on what the gateway saw: what was lost on its way up cost
the truck money that is not here. Where a truck roams only its own account knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.fleetbudgets import config_of
from gateway.terms import Terms, terms_of
from protocol.billing import Cost, Session, cost_of, is_free
from protocol.documents import Config
from store.fleet.fleet import FleetStore

_LOOK_AGAIN_MS: Final = 30_000
_TRUCKS_MAX: Final = 50_000


@dataclass(frozen=True, slots=True)
class Priced:
    """What some datagrams cost; `currency` "" and `nano` None where no price is known."""

    billed: int
    nano: int | None
    currency: str


@dataclass(slots=True)
class _Account:
    """One link's open session, and what its open period was billed so far."""

    period: int
    billed: int
    session: Session


class Pricing:
    """The tariffs of the trucks that are heard, and where each of their links stands in its period."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        self._configs: dict[str, tuple[int, Config | None]] = {}
        self._accounts: dict[tuple[str, str], _Account] = {}

    async def cost(self, truck: str, link: str, sizes: Mapping[int, int]) -> Priced:
        """Return what datagrams (size -> how many) that were carried just now cost."""
        now_ms = self._now_ms()
        terms = terms_of(await self._config(truck, now_ms), truck, link)
        account = await self._account(truck, terms, now_ms)
        free = is_free(terms.tariff, now_ms // 1000, terms.offset)
        total = Cost()
        for size, count in sorted(sizes.items()):
            for _ in range(count):
                cost, account.session = cost_of(
                    terms.tariff,
                    terms.price,
                    account.session,
                    size,
                    now_ms / 1000,
                    billed_before=account.billed,
                    free=free,
                )
                account.billed += cost.billed
                total += cost
        if not terms.is_priced:
            return Priced(total.billed, None, "")
        return Priced(total.billed, total.nano, terms.tariff.currency)

    async def _config(self, truck: str, now_ms: int) -> Config | None:
        known = self._configs.get(truck)
        if known is not None and 0 <= now_ms - known[0] < _LOOK_AGAIN_MS:
            return known[1]
        record = await self._fleet.truck(truck)
        config = None if record is None else await config_of(self._fleet, record)
        if len(self._configs) >= _TRUCKS_MAX:
            self._configs.clear()
            self._accounts.clear()
        self._configs[truck] = now_ms, config
        return config

    async def _account(self, truck: str, terms: Terms, now_ms: int) -> _Account:
        period = terms.period(now_ms)
        known = self._accounts.get((truck, terms.link))
        if known is None or known.period != period.number:
            used = await self._fleet.ledger_use([truck], period.starts_s * 1000, now_ms + 1)
            billed = used[truck, terms.link].billed if (truck, terms.link) in used else 0
            session = Session() if known is None else known.session
            known = self._accounts[truck, terms.link] = _Account(period.number, billed, session)
        return known
