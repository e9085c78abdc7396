"""What a truck's configuration says of one link's money: its tariff, its budget, and its grant of a pool. Pure.

A link that has a tariff or a budget of its own goes by those alone; else its simple entry under `links` is read as
both. A tariff is what prices bytes: of a link without one nobody knows what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.billing import NANO_IN_MILLI, Period, Price, billing_period
from protocol.documents import Config, LinkConfig
from protocol.errors import UntrustedError
from protocol.tariffs import Budget, Tariff, Unit
from protocol.windows import Offset, utc
from store.zones import offset_of


@dataclass(frozen=True, slots=True)
class Terms:
    """One link of one truck. `is_priced` is False where the price is not known; caps are of one period.

    Caps are None where there is none: the budget's, and no more than the truck's grant where the link has a pool.
    """

    link: str
    tariff: Tariff
    is_priced: bool
    bytes_max: int | None
    money_max_milli: int | None
    reserve_bytes: int
    reserve_milli: int
    budget: Budget | None
    pooled: bool = False

    @property
    def offset(self) -> Offset:
        """The tariff's local time; UTC where this machine does not know its zone."""
        try:
            return offset_of(self.tariff.zone)
        except UntrustedError:
            return utc

    @property
    def price(self) -> Price:
        """What it costs at home: the gateway does not know where a truck is, the truck's own account does."""
        return Price(self.tariff.price_per_mb_milli, self.tariff.session_milli * NANO_IN_MILLI)

    def period(self, now_ms: int) -> Period:
        """Return the billing period that holds a time (Unix ms)."""
        return billing_period(self.tariff, now_ms // 1000, self.offset)


def terms_of(config: Config | None, truck: str, link: str) -> Terms:
    """Return what holds of a truck's link; of one that the configuration does not name, that it has no cap."""
    tariffs = {each.link: each for each in config.tariffs} if config else {}
    budgets = {each.link: each for each in config.budgets} if config else {}
    simple = None
    if link not in tariffs and link not in budgets and config is not None:
        simple = next((each for each in config.links if each.name == link), None)
    tariff, budget = tariffs.get(link), budgets.get(link)
    if simple is not None:
        tariff, budget = _tariff(simple), Budget(link, simple.month_bytes_max, reserve_bytes=simple.reserve_bytes)
    priced = link in tariffs or (simple is not None and simple.price_per_mb_milli > 0)
    bytes_max = None if budget is None else budget.bytes_max
    money_max = None if budget is None else budget.money_max_milli
    pool = next((each for each in config.pools if each.link == link), None) if config else None
    if pool is not None:
        grant = pool.grant(truck)
        if pool.unit is Unit.BYTES:
            bytes_max = grant if bytes_max is None else min(bytes_max, grant)
        else:
            money_max = grant if money_max is None else min(money_max, grant)
    return Terms(
        link=link,
        tariff=tariff or Tariff(link),
        is_priced=priced,
        bytes_max=bytes_max,
        money_max_milli=money_max,
        reserve_bytes=0 if budget is None else budget.reserve_bytes,
        reserve_milli=0 if budget is None else budget.reserve_milli,
        budget=budget,
        pooled=pool is not None,
    )


def links_of(config: Config | None) -> frozenset[str]:
    """Return the links that a configuration says something of."""
    if config is None:
        return frozenset()
    named = {each.name for each in config.links}
    return frozenset(
        named.union(*({each.link for each in part} for part in (config.tariffs, config.budgets, config.pools)))
    )


def _tariff(link: LinkConfig) -> Tariff:
    return Tariff(link.name, link.currency, link.price_per_mb_milli)
