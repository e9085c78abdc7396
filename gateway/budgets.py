"""What is left of each link's monthly bytes, and when they will be gone at this month's pace.

Pure arithmetic over a configuration and the ledger's sums. The truck itself enforces its budget (it reserves before it
sends); this is the gateway's view of it, from its own meter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from protocol.documents import LinkConfig
from store.fleet.records import LedgerSum

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class LinkBudget:
    """One link in this calendar month (UTC). Without a cap `bytes_max` and `left_bytes` are None."""

    link: str
    bytes_max: int | None
    reserve_bytes: int
    used_bytes: int
    left_bytes: int | None
    price_per_mb_milli: int
    currency: str
    spent_milli: int
    exhausted_ms: int | None  # when the cap will be reached at this month's pace, if that is within the month


def month_of(now_ms: int) -> tuple[int, int]:
    """Return the start and the end (Unix ms) of the calendar month (UTC) that holds `now_ms`."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return round(start.timestamp() * 1000), round(end.timestamp() * 1000)


def link_budgets(links: Sequence[LinkConfig], sums: Iterable[LedgerSum], now_ms: int) -> list[LinkBudget]:
    """Return each configured link's budget, and the use of links that have none, in the order of their names."""
    used: dict[str, int] = {}
    for each in sums:
        used[each.link] = used.get(each.link, 0) + each.bytes
    configured = {each.name: each for each in links}
    unlimited = {name: LinkConfig(name, None) for name in used if name and name not in configured}
    return [_budget(link, used.get(name, 0), now_ms) for name, link in sorted((configured | unlimited).items())]


def price_milli(bytes_count: int, price_per_mb_milli: int) -> int:
    """Return what bytes cost, rounded up to a thousandth of the currency."""
    return -(-bytes_count * price_per_mb_milli // MB)


def _budget(link: LinkConfig, used: int, now_ms: int) -> LinkBudget:
    cap = link.month_bytes_max
    return LinkBudget(
        link=link.name,
        bytes_max=cap,
        reserve_bytes=link.reserve_bytes,
        used_bytes=used,
        left_bytes=None if cap is None else max(0, cap - used),
        price_per_mb_milli=link.price_per_mb_milli,
        currency=link.currency,
        spent_milli=price_milli(used, link.price_per_mb_milli),
        exhausted_ms=None if cap is None else _exhausted_ms(cap, used, now_ms),
    )


def _exhausted_ms(cap: int, used: int, now_ms: int) -> int | None:
    start_ms, end_ms = month_of(now_ms)
    if used >= cap:
        return now_ms
    if used == 0:
        return None
    at_ms = now_ms + (cap - used) * (now_ms - start_ms) // used
    return at_ms if at_ms < end_ms else None
