"""What a truck's configuration says of one link's money, as the gateway goes by it: `protocol.terms` for a fleet.

A tariff is what prices bytes: of a link without one nobody here knows what it costs, since the truck's own settings are
not told. Where a truck roams only its own account knows: here it is always at home.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol import terms
from protocol.billing import NANO_IN_MILLI, Period, Price, billing_period
from protocol.documents import Config, LinkConfig
from protocol.errors import UntrustedError
from protocol.tariffs import Budget, Tariff
from protocol.windows import Offset, utc
from store.zones import offset_of


@dataclass(frozen=True, slots=True)
class Terms:
    """One link of one truck. `is_priced` is False where the price is not known."""

    link: str
    rules: terms.Terms
    is_priced: bool

    @property
    def tariff(self) -> Tariff:
        """What the link costs."""
        return self.rules.tariff

    @property
    def budget(self) -> Budget:
        """How much of it may be spent, before its grant of a pool bounds that."""
        return self.rules.budget

    @property
    def reserve_bytes(self) -> int:
        """What of the cap is for flash alone."""
        return self.budget.reserve_bytes

    @property
    def reserve_milli(self) -> int:
        """What of the cap on money is for flash alone."""
        return self.budget.reserve_milli

    @property
    def pooled(self) -> bool:
        """Whether it has a grant of a pool."""
        return self.rules.grant_bytes is not None or self.rules.grant_milli is not None

    @property
    def bytes_max(self) -> int | None:
        """The cap on billed bytes of a period, None without one."""
        return self.rules.bytes_cap.units_max

    @property
    def money_max_milli(self) -> int | None:
        """The cap on money of a period, None without one."""
        known = [each for each in (self.budget.money_max_milli, self.rules.grant_milli) if each is not None]
        return min(known, default=None)

    @property
    def offset(self) -> Offset:
        """The tariff's local time; UTC where this machine does not know its zone."""
        try:
            return offset_of(self.tariff.zone)
        except UntrustedError:
            return utc

    @property
    def price(self) -> Price:
        """What it costs at home."""
        return Price(self.tariff.price_per_mb_milli, self.tariff.session_milli * NANO_IN_MILLI)

    def period(self, now_ms: int) -> Period:
        """Return the billing period that holds a time (Unix ms)."""
        return billing_period(self.tariff, now_ms // 1000, self.offset)


def terms_of(config: Config | None, truck: str, link: str) -> Terms:
    """Return what holds of a truck's link; of one that the configuration does not name, that it has no cap."""
    if config is None:
        return Terms(link, terms.Terms(Tariff(link), Budget(link)), is_priced=False)
    simple = next((each for each in config.links if each.name == link), LinkConfig(link, None))
    stated = {each.link for each in config.tariffs} | {each.link for each in config.budgets}
    # A link that has either goes by those alone.
    base = LinkConfig(link, None) if link in stated else simple
    rules = terms.terms_of(base, tariffs=config.tariffs, budgets=config.budgets, pools=config.pools, truck=truck)
    priced = base.price_per_mb_milli > 0 or any(each.link == link for each in config.tariffs)
    return Terms(link, rules, is_priced=priced)


def links_of(config: Config | None) -> frozenset[str]:
    """Return the links that a configuration says something of."""
    if config is None:
        return frozenset()
    named = {each.name for each in config.links}
    named.update(each.link for each in config.tariffs)
    named.update(each.link for each in config.budgets)
    named.update(each.link for each in config.pools)
    return frozenset(named)
