"""What is left of each link's budget, what the whole period will have used, and when the budget will be gone.

Pure arithmetic over what was configured and the ledger's days. The truck itself enforces its budget (it reserves before
it sends); this is the gateway's view of it, from its own meter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.forecast import DAY_MS, HISTORY_DAYS, forecast
from protocol.documents import LinkConfig
from store.fleet.records import DayUse

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What a link may spend from `start_ms` to `end_ms`; without a cap `bytes_max` is None."""

    link: str
    start_ms: int
    end_ms: int
    bytes_max: int | None = None
    reserve_bytes: int = 0
    price_per_mb_milli: int = 0
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class LinkBudget:
    """One link in its period. `days` are the bytes of each day of it so far; `expected_bytes` are at its end.

    `exhausted_ms` is when the cap will be reached, by the truck's own history, if that is within the period.
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
        """What is left of the cap, None without one."""
        return None if self.plan.bytes_max is None else max(0, self.plan.bytes_max - self.used_bytes)

    @property
    def used_share(self) -> float | None:
        """Which share of the cap is used: 1.0 is all of it; None without a cap."""
        if self.plan.bytes_max is None:
            return None
        return self.used_bytes / self.plan.bytes_max if self.plan.bytes_max else 1.0


def month_of(now_ms: int) -> tuple[int, int]:
    """Return the start and the end (Unix ms) of the calendar month (UTC) that holds `now_ms`."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return round(start.timestamp() * 1000), round(end.timestamp() * 1000)


def history_since_ms(now_ms: int) -> int:
    """Return from when on the days of a ledger are wanted, for the period and for what is expected of its rest."""
    return min(month_of(now_ms)[0], now_ms // DAY_MS * DAY_MS - HISTORY_DAYS * DAY_MS)


def plans(links: Sequence[LinkConfig], used: Sequence[str], now_ms: int) -> list[LinkPlan]:
    """Return the plan of each configured link, and of links that were used without one, in the order of their names."""
    start_ms, end_ms = month_of(now_ms)
    found = {name: LinkPlan(name, start_ms, end_ms) for name in used if name}
    for each in links:
        found[each.name] = LinkPlan(
            each.name,
            start_ms,
            end_ms,
            each.month_bytes_max,
            each.reserve_bytes,
            each.price_per_mb_milli,
            each.currency,
        )
    return [found[name] for name in sorted(found)]


def link_budget(plan: LinkPlan, history: Mapping[int, DayUse], *, now_ms: int, begun_ms: int) -> LinkBudget:
    """Return a link's budget; `history` is its use by day, `begun_ms` when the truck was enrolled."""
    first, today = plan.start_ms // DAY_MS, now_ms // DAY_MS
    days = tuple(history.get(day, DayUse()).bytes for day in range(first, today + 1))
    used = sum(days)
    seen = forecast(
        {day: use.bytes for day, use in history.items()},
        used=used,
        cap=plan.bytes_max,
        now_ms=now_ms,
        end_ms=plan.end_ms,
        begun_ms=begun_ms,
    )
    return LinkBudget(
        plan=plan,
        used_bytes=used,
        spent_milli=price_milli(used, plan.price_per_mb_milli),
        days=days,
        expected_bytes=seen.at_end,
        expected_milli=price_milli(seen.at_end, plan.price_per_mb_milli),
        exhausted_ms=seen.exhausted_ms,
        by_weekday=seen.by_weekday,
        history_days=seen.days,
    )


def price_milli(bytes_count: int, price_per_mb_milli: int) -> int:
    """Return what bytes cost, rounded up to a thousandth of the currency."""
    return -(-bytes_count * price_per_mb_milli // MB)
