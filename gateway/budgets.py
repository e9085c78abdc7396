"""What is left of each link's budget, what the whole period will have used, and when the budget will be gone.

Pure arithmetic over what was configured and the ledger's days. The truck itself enforces its budget (it reserves before
it sends); this is the gateway's view of it, from its own meter. Bytes are billed ones: rounded as the tariff says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from gateway.forecast import DAY_MS, HISTORY_DAYS, forecast
from gateway.terms import Terms
from protocol.billing import NANO_IN_MILLI
from store.fleet.records import DayUse

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What a link may spend from `start_ms` to `end_ms`; caps are None where there is none, each on its own."""

    terms: Terms
    start_ms: int
    end_ms: int

    @classmethod
    def of(cls, terms: Terms, now_ms: int) -> Self:
        """Return the plan of the period that holds `now_ms`."""
        period = terms.period(now_ms)
        return cls(terms, period.starts_s * 1000, period.ends_s * 1000)

    @property
    def link(self) -> str:
        """The link's name."""
        return self.terms.link


@dataclass(frozen=True, slots=True)
class LinkBudget:
    """One link in its period. `days` are the billed bytes of each day (UTC) of it so far; `expected_*` are at its end.

    `exhausted_ms` is when a cap will be reached, by the truck's own history, if that is within the period.
    """

    plan: LinkPlan
    used_bytes: int
    spent_milli: int
    days: tuple[int, ...]
    expected_bytes: int
    expected_milli: int
    exhausted_ms: int | None
    by_weekday: tuple[int, ...]
    history_days: int

    @property
    def left_bytes(self) -> int | None:
        """What is left of the cap in bytes, None without one."""
        cap = self.plan.terms.bytes_max
        return None if cap is None else max(0, cap - self.used_bytes)

    @property
    def left_milli(self) -> int | None:
        """What is left of the cap in money, None without one."""
        cap = self.plan.terms.money_max_milli
        return None if cap is None else max(0, cap - self.spent_milli)

    @property
    def used_share(self) -> float | None:
        """Which share of the cap is used, of the one that is nearer to its end: 1.0 is all of it; None without caps."""
        shares = []
        for used, cap in (
            (self.used_bytes, self.plan.terms.bytes_max),
            (self.spent_milli, self.plan.terms.money_max_milli),
        ):
            if cap is not None:
                shares.append(used / cap if cap else 1.0)
        return max(shares, default=None)


def month_of(now_ms: int) -> tuple[int, int]:
    """Return the start and the end (Unix ms) of the calendar month (UTC) that holds `now_ms`."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return round(start.timestamp() * 1000), round(end.timestamp() * 1000)


def history_since_ms(now_ms: int) -> int:
    """Return from when on the days of a ledger are wanted, for the period and for what is expected of its rest."""
    return now_ms // DAY_MS * DAY_MS - HISTORY_DAYS * DAY_MS


def link_budget(
    plan: LinkPlan, history: Mapping[int, DayUse], used: DayUse, *, now_ms: int, begun_ms: int
) -> LinkBudget:
    """Return a link's budget; `history` is its use by day, `used` that of the period so far.

    `begun_ms` is when the truck was enrolled: days before it are not days without use.
    """
    terms = plan.terms
    first, today = plan.start_ms // DAY_MS, now_ms // DAY_MS
    by_day = {day: use.billed for day, use in history.items()}
    spent_milli = money_milli(used, terms)
    rate = _nano_a_byte(history, terms)
    seen = forecast(
        by_day,
        used=used.billed,
        cap=_cap_bytes(terms, used, spent_milli, rate),
        now_ms=now_ms,
        end_ms=plan.end_ms,
        begun_ms=begun_ms,
    )
    to_pay = max(0, seen.at_end - max(used.billed, terms.tariff.allowance_bytes))
    return LinkBudget(
        plan=plan,
        used_bytes=used.billed,
        spent_milli=spent_milli,
        days=tuple(by_day.get(day, 0) for day in range(first, today + 1)),
        expected_bytes=seen.at_end,
        expected_milli=spent_milli + round(to_pay * rate / NANO_IN_MILLI),
        exhausted_ms=seen.exhausted_ms,
        by_weekday=seen.by_weekday,
        history_days=seen.days,
    )


def money_milli(used: DayUse, terms: Terms) -> int:
    """Return what was spent: as it was counted, or where nothing was, the bytes at the price of now."""
    if used.nano or not terms.is_priced:
        return -(-used.nano // NANO_IN_MILLI)
    return price_milli(max(0, used.billed - terms.tariff.allowance_bytes), terms.tariff.price_per_mb_milli)


def price_milli(bytes_count: int, price_per_mb_milli: int) -> int:
    """Return what bytes cost, rounded up to a thousandth of the currency."""
    return -(-bytes_count * price_per_mb_milli // MB)


def _nano_a_byte(history: Mapping[int, DayUse], terms: Terms) -> float:
    """Return what a billed byte beyond the allowance costs, with its share of what sessions have cost lately."""
    if not terms.is_priced:
        return 0.0
    nano, billed = sum(each.nano for each in history.values()), sum(each.billed for each in history.values())
    return max(float(terms.tariff.price_per_mb_milli), nano / billed if billed > 0 else 0.0)


def _cap_bytes(terms: Terms, used: DayUse, spent_milli: int, rate: float) -> int | None:
    """Return the billed bytes at which the first of the caps is reached, at `rate` billionths a byte."""
    caps = [] if terms.bytes_max is None else [terms.bytes_max]
    if terms.money_max_milli is not None:
        left_nano = max(0, terms.money_max_milli - spent_milli) * NANO_IN_MILLI
        if not left_nano:
            return 0
        if rate:
            included = max(0, terms.tariff.allowance_bytes - used.billed)
            caps.append(used.billed + included + int(left_nano / rate))
    return min(caps, default=None)
