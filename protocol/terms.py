"""What holds for one link of one truck: its tariff, its budget and its grant of a pool, put together from a config.

The caps here are the hard promise (`protocol.budget`, kept by the ledger). `share_left` divides what is below the cap
among the precedences and over the period; it is soft: who takes more than is meant breaks no promise to anybody's
purse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from protocol.billing import (
    NANO_IN_MILLI,
    Period,
    Place,
    Price,
    billing_period,
    charged,
    period_rule,
    price_at,
    worst_cost,
)
from protocol.budget import ASKING_BYTES, Cap
from protocol.documents import LinkConfig
from protocol.numbers import Precedence
from protocol.refusals import Reason
from protocol.tariffs import BillingPeriod, Budget, Pool, Tariff, Unit
from protocol.windows import Offset

# Datagrams and seconds that asking the gateway takes at most, a handshake and repetitions included.
_ASKING_DATAGRAMS, _ASKING_S = 16, 240.0
# In the last part of a period nothing is kept for anybody any more: what is left is lost with the period.
_LATE: Final = 0.95
_CALENDAR_MONTH: Final = (BillingPeriod.MONTH, 1, "UTC")
_SHARED: Final = (Precedence.PRIORITY, Precedence.NORMAL, Precedence.BULK)


@dataclass(frozen=True, slots=True)
class Terms:
    """A link's tariff and budget; a grant (None: the link is of no pool) bounds the budget."""

    tariff: Tariff
    budget: Budget
    grant_bytes: int | None = None
    grant_milli: int | None = None

    @property
    def rule(self) -> str:
        """What makes the periods what they are; empty for calendar months in UTC, which need no stating."""
        return "" if self._is_calendar_month else period_rule(self.tariff)

    @property
    def _is_calendar_month(self) -> bool:
        return (self.tariff.period, self.tariff.billing_day, self.tariff.zone) == _CALENDAR_MONTH

    def period(self, now_s: int, offset: Offset) -> Period:
        """Return the billing period of an instant; a calendar month in UTC has the number year * 100 + month."""
        found = billing_period(self.tariff, now_s, offset)
        return Period(found.number // 100, found.starts_s, found.ends_s) if self._is_calendar_month else found

    @property
    def bytes_cap(self) -> Cap:
        """The cap on billed bytes."""
        units_max = _least(self.budget.bytes_max, self.grant_bytes)
        asking = worst_cost(
            self.tariff, self.dearest, ASKING_BYTES, _ASKING_DATAGRAMS, _ASKING_S, billed_before=0
        ).billed
        return Cap(units_max, _within(self.budget.reserve_bytes, units_max), 1, asking)

    @property
    def money_cap(self) -> Cap | None:
        """The cap on money, in billionths of the currency; None where nothing costs anything."""
        dearest = self.dearest
        if not (dearest.byte_nano or dearest.session_nano):
            return None
        milli = _least(self.budget.money_max_milli, self.grant_milli)
        units_max = None if milli is None else milli * NANO_IN_MILLI
        asking = worst_cost(self.tariff, dearest, ASKING_BYTES, _ASKING_DATAGRAMS, _ASKING_S, billed_before=1 << 62)
        reserve = _within(self.budget.reserve_milli * NANO_IN_MILLI, units_max)
        return Cap(units_max, reserve, max(1, dearest.byte_nano), asking.nano)

    @property
    def dearest(self) -> Price:
        """The highest prices anywhere."""
        found = price_at(self.tariff, Place())
        return found if found is not None else Price(0, 0)

    def marginal_nano(self, price: Price, billed: int, precedence: Precedence, elapsed: float) -> int:
        """Return what one more byte costs now; nothing while it is included.

        For bulk what is included counts by an even pace: else it would be gone before those come who cannot wait.
        """
        included = self.tariff.allowance_bytes
        if precedence is Precedence.BULK:
            included = round(included * min(1.0, elapsed + self.budget.burst_percent / 100))
        return 0 if billed < included else charged(self.tariff, price, 1, max(billed, self.tariff.allowance_bytes))


def terms_of(
    link: LinkConfig, *, tariffs: Iterable[Tariff], budgets: Iterable[Budget], pools: Iterable[Pool], truck: str
) -> Terms:
    """Return what holds for a link: a tariff or budget of its name, in place of what its simple configuration says."""
    tariff = next((each for each in tariffs if each.link == link.name), None)
    budget = next((each for each in budgets if each.link == link.name), None)
    if tariff is None:
        tariff = Tariff(link.name, link.currency, link.price_per_mb_milli)
    if budget is None:
        budget = Budget(link.name, link.month_bytes_max, None, link.reserve_bytes)
    grants: dict[Unit, int] = {}
    for pool in pools:
        if pool.link == link.name:
            grants[pool.unit] = min(pool.grant(truck), grants.get(pool.unit, 1 << 62))
    return Terms(tariff, budget, grants.get(Unit.BYTES), grants.get(Unit.MONEY))


@dataclass(frozen=True, slots=True)
class Left:
    """What a precedence may use now, in units (None: no limit); when it is less than the cap, which rule says so."""

    units: int | None
    reason: Reason = Reason.SPENT
    until: float | None = None  # of the period, 0 to 1: when there will be more


def share_left(
    budget: Budget, cap: Cap, spent: Mapping[Precedence, int], precedence: Precedence, elapsed: float
) -> Left:
    """Return what a precedence may use of a capped account now; `elapsed` is the part of the period that is over.

    | who         | of what is below the reserve                                        | pace                       |
    |-------------|---------------------------------------------------------------------|----------------------------|
    | flash       | all, and the reserve                                                | none                       |
    | priority    | what is not kept for normal and bulk, and what it may borrow of it  | none                       |
    | normal      | what is not kept for priority and bulk, and what it may borrow      | with bulk, even plus burst |
    | bulk        | what is not kept for priority and normal                            | with normal, the same      |
    | late        | nothing is kept for anybody in the last twentieth of a period       | as ever                    |
    """
    if cap.units_max is None or precedence is Precedence.FLASH:
        return Left(None)
    usable = max(0, cap.units_max - cap.reserve_units)
    shares = _shares(budget, usable)
    used = {each: spent.get(each, 0) for each in _SHARED}
    flash_over = max(0, spent.get(Precedence.FLASH, 0) - cap.reserve_units)
    kept = (
        0
        if elapsed >= _LATE
        else sum(
            max(0, _protected(budget, shares[each], each, precedence) - used[each])
            for each in _SHARED
            if each is not precedence
        )
    )
    whole = usable - flash_over - sum(used.values())
    share = max(0, whole - kept)
    left = Left(share, Reason.SHARE if kept > 0 and whole > share else Reason.SPENT, _LATE if kept else None)
    if precedence is Precedence.PRIORITY or budget.burst_percent >= 100:
        return left
    paced = usable - shares[Precedence.PRIORITY]
    done = used[Precedence.NORMAL] + used[Precedence.BULK]
    ahead = int(paced * min(1.0, elapsed + budget.burst_percent / 100)) - done
    if ahead < share:
        until = (done / paced if paced else 1.0) - budget.burst_percent / 100
        return Left(max(0, ahead), Reason.PACE, min(1.0, max(elapsed, until)))
    return left


def _shares(budget: Budget, usable: int) -> dict[Precedence, int]:
    percents = (budget.shares.priority, budget.shares.normal, budget.shares.bulk)
    whole = max(100, sum(percents))
    return {each: usable * percent // whole for each, percent in zip(_SHARED, percents, strict=True)}


def _protected(budget: Budget, share: int, whose: Precedence, from_whom: Precedence) -> int:
    """Return what of a share another precedence must leave: the more urgent may borrow a part of it."""
    return share if whose < from_whom else share - share * budget.borrow_percent // 100


def _least(one: int | None, other: int | None) -> int | None:
    known = [each for each in (one, other) if each is not None]
    return min(known, default=None)


def _within(reserve: int, units_max: int | None) -> int:
    return reserve if units_max is None else min(reserve, units_max)
