"""What may still be spent in a period: caps, with a part that only flash may touch. Pure arithmetic.

An account counts in units: billed bytes, or billionths of a currency. What is spent counts in two sums, flash and all
other precedences: the others together never reach into the reserve, and all together never pass the cap. Here is the
promise that nothing breaks; `protocol.allowance` says what of it each precedence should use now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from protocol.billing import civil
from protocol.documents import LinkConfig
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from protocol.windows import DAY_S

# What may be spent on asking the gateway, after each start, when earlier spending is not known: else a truck without a
# reserve would be mute for ever.
ASKING_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Cap:
    """The most units in a period (None: no cap), of which `reserve_units` are for flash alone.

    `unit` is about what a byte takes (1 in an account of bytes), `asking` what it takes to ask the gateway.
    """

    units_max: int | None
    reserve_units: int = 0
    unit: int = 1
    asking: int = ASKING_BYTES

    @classmethod
    def of(cls, link: LinkConfig) -> Self:
        """Return the cap that a link's configuration states."""
        return cls(link.month_bytes_max, link.reserve_bytes)


UNCAPPED = Cap(None)


@dataclass(frozen=True, slots=True)
class Spent:
    """Units spent, or promised to somebody, in a period: by flash, and by all other precedences."""

    flash: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """Both sums together."""
        return self.flash + self.other

    @classmethod
    def by(cls, precedence: Precedence, units: int) -> Self:
        """Return what one precedence spent."""
        return cls(units, 0) if precedence is Precedence.FLASH else cls(0, units)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.flash + other.flash, self.other + other.other)


def allowed_units(cap: Cap, spent: Spent, precedence: Precedence, *, in_doubt: bool = False) -> int | None:
    """Return how many more units this precedence may spend in the period; None when there is no cap.

    `in_doubt`: earlier spending in this period was forgotten (the ledger was lost or is an old copy). Then only flash
    goes on, within the reserve: the rest of the cap may be used up already.
    """
    if cap.units_max is None:
        return None
    if precedence is Precedence.FLASH:
        within = cap.units_max - spent.total
        return max(0, min(within, cap.reserve_units - spent.flash) if in_doubt else within)
    if in_doubt:
        return 0
    return max(0, min(cap.units_max - spent.total, cap.units_max - cap.reserve_units - spent.other))


def slice_units(cap: Cap, spent: Spent, precedence: Precedence, need: int, wish: int, *, in_doubt: bool = False) -> int:
    """Return how many units to reserve at once: the wish where the cap allows, never less than the need.

    Raises `BudgetExceededError` when even the need is more than may be spent.
    """
    allowed = allowed_units(cap, spent, precedence, in_doubt=in_doubt)
    if allowed is None:
        return max(need, wish)
    if need > allowed:
        raise BudgetExceededError(f"{need} of {precedence.name.lower()}: the budget holds {allowed} more")
    return min(allowed, max(need, wish))


def period_of(now_s: int) -> int:
    """Return the calendar month (UTC) of a Unix time in seconds (0 or later), as year * 100 + month."""
    year, month, _ = civil(now_s // DAY_S)
    return year * 100 + month


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
