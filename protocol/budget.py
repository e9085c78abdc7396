"""What may still be spent on a link: monthly caps in bytes, with a part that only flash may touch. Pure arithmetic.

A period is a calendar month in UTC, written year * 100 + month. What is spent counts in two sums, flash and all other
precedences: the others together never reach into the reserve, and all together never pass the cap.
Deliberately absent: money, tariffs, pacing within the month, carry-over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from protocol.documents import LinkConfig
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence

_DAY_S = 86_400
_DAYS_IN_400_YEARS = 146_097


@dataclass(frozen=True, slots=True)
class Cap:
    """The most bytes in a period (None: no cap), of which `reserve_bytes` are for flash alone."""

    bytes_max: int | None
    reserve_bytes: int = 0

    @classmethod
    def of(cls, link: LinkConfig) -> Self:
        """Return the cap that a link's configuration states."""
        return cls(link.month_bytes_max, link.reserve_bytes)


UNCAPPED = Cap(None)


@dataclass(frozen=True, slots=True)
class Spent:
    """Bytes spent, or promised to somebody, in a period: by flash, and by all other precedences."""

    flash: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """Both sums together."""
        return self.flash + self.other


def allowed_bytes(cap: Cap, spent: Spent, precedence: Precedence, *, in_doubt: bool = False) -> int | None:
    """Return how many more bytes this precedence may spend in the period; None when there is no cap.

    `in_doubt`: earlier spending in this period was forgotten (the ledger was lost or is an old copy). Then only flash
    goes on, within the reserve: the rest of the cap may be used up already.
    """
    if cap.bytes_max is None:
        return None
    if precedence is Precedence.FLASH:
        within = cap.bytes_max - spent.total
        return max(0, min(within, cap.reserve_bytes - spent.flash) if in_doubt else within)
    if in_doubt:
        return 0
    return max(0, min(cap.bytes_max - spent.total, cap.bytes_max - cap.reserve_bytes - spent.other))


def slice_bytes(
    cap: Cap, spent: Spent, precedence: Precedence, need_bytes: int, wish_bytes: int, *, in_doubt: bool = False
) -> int:
    """Return how many bytes to reserve at once: `wish_bytes` where the cap allows, never less than `need_bytes`.

    Raises `BudgetExceededError` when even the need is more than may be spent.
    """
    allowed = allowed_bytes(cap, spent, precedence, in_doubt=in_doubt)
    if allowed is None:
        return max(need_bytes, wish_bytes)
    if need_bytes > allowed:
        raise BudgetExceededError(f"{need_bytes} bytes of {precedence.name.lower()}: the budget holds {allowed} more")
    return min(allowed, max(need_bytes, wish_bytes))


def period_of(now_s: int) -> int:
    """Return the period of a Unix time in seconds (0 or later)."""
    # Count days from 1 March of year 0, so that the leap day ends a year (proleptic Gregorian calendar).
    days = now_s // _DAY_S + 719_468
    era, day_of_era = divmod(days, _DAYS_IN_400_YEARS)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    return (era * 400 + year_of_era + (month <= 2)) * 100 + month


@dataclass(frozen=True, slots=True)
class Turn:
    """Which period spending counts in now. `opens`: it is new. `undated`: it is not certain that it is this one."""

    period: int
    opens: bool
    undated: bool


def turn(last: int, asked: int | None) -> Turn:
    """Return the period to use after `last` (0: none yet) when the clock says `asked` (None: the clock is not known).

    An unknown clock opens no period, and one that went back reopens none.
    """
    if asked is None or asked < last:
        return Turn(last, opens=False, undated=True)
    return Turn(asked, opens=asked > last, undated=False)
