"""The rows of the ledger: what was booked, and for each link and period what counts against its cap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from protocol.billing import Cost
from protocol.budget import Spent
from protocol.numbers import Precedence
from store.database import Database, Sql

# The cause under which a crash books what was left of a slice, and damage what only the marks remember.
CAUSE_CRASH = "crash"
CAUSE_RECOVERED = "recovered"
# The cause under which a period whose rule changed brings along what was spent before.
CAUSE_CARRIED = "carried"
# The account of a link's money; no link has such a name.
_MONEY = "/money"


def accounts_of(link: str) -> tuple[str, str]:
    """Return a link's account of billed bytes, and that of money in billionths of its currency."""
    return link, link + _MONEY


def is_money(account: str) -> bool:
    """Return whether an account is one of money."""
    return account.endswith(_MONEY)


def link_of(account: str) -> str:
    """Return whose account it is."""
    return account.removesuffix(_MONEY)


class CostKey(NamedTuple):
    """What a cost is sorted under, besides its period and link."""

    precedence: Precedence
    cause: str


@dataclass(frozen=True, slots=True)
class CostTotal:
    """Billed bytes and money (billionths of the link's currency) of one kind."""

    period: int
    link: str
    precedence: Precedence
    cause: str
    cost: Cost


class Key(NamedTuple):
    """What a booking is sorted under, besides its period and link. `direction` is "sent" or "received"."""

    precedence: Precedence
    cause: str
    direction: str


@dataclass(frozen=True, slots=True)
class Total:
    """Bytes (IP and UDP headers included) and datagrams of one kind."""

    period: int
    link: str
    precedence: Precedence
    cause: str
    direction: str
    bytes_ip: int
    datagrams: int


@dataclass(frozen=True, slots=True)
class Account:
    """One account in one period, in its units: spent, the part of that which is undated, and held in slices."""

    flash: int = 0
    other: int = 0
    undated_flash: int = 0
    undated_other: int = 0
    held_flash: int = 0
    held_other: int = 0

    def plus_held(self, flash: int, other: int) -> Account:
        """Return this account with other slices held."""
        return replace(self, held_flash=flash, held_other=other)


_FIELDS = ("flash", "other", "undated_flash", "undated_other", "held_flash", "held_other")


class Accounts:
    """The ledger's tables in an open LINKS database; everything runs in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, period: int, link: str) -> Account:
        """Return an account, all 0 when there is none yet."""
        sql = f"SELECT {', '.join(_FIELDS)} FROM ledger_accounts WHERE period = :period AND link = :link"  # noqa: S608
        return Account(*(self._database.row(sql, {"period": period, "link": link}) or ()))

    def put(self, period: int, link: str, account: Account) -> None:
        """Set an account."""
        values: dict[str, Any] = {name: getattr(account, name) for name in _FIELDS}
        self._database.insert("ledger_accounts", {"period": period, "link": link, **values}, conflict="REPLACE")

    def add(self, period: int, link: str, bookings: Mapping[Key, tuple[int, int]]) -> None:
        """Add bookings (bytes, datagrams) to what was booked under the same key."""
        where = " AND ".join(f"{name} = :{name}" for name in ("period", "link", "precedence", "cause", "direction"))
        for key, (byte_count, datagrams) in bookings.items():
            row: dict[str, Any] = {"period": period, "link": link, **key._asdict(), "precedence": int(key.precedence)}
            more = {"bytes": Sql(f"bytes + {byte_count:d}"), "datagrams": Sql(f"datagrams + {datagrams:d}")}
            if not self._database.update("ledger_entries", where, row, **more):
                self._database.insert("ledger_entries", {**row, "bytes": byte_count, "datagrams": datagrams})

    def add_costs(self, period: int, link: str, costs: Mapping[CostKey, Cost]) -> None:
        """Add costs to what was billed under the same key."""
        where = "period = :period AND link = :link AND precedence = :precedence AND cause = :cause"
        for key, cost in costs.items():
            row: dict[str, Any] = {
                "period": period,
                "link": link,
                "precedence": int(key.precedence),
                "cause": key.cause,
            }
            more = {"billed": Sql(f"billed + {cost.billed:d}"), "nano": Sql(f"nano + {cost.nano:d}")}
            if not self._database.update("ledger_costs", where, row, **more):
                self._database.insert("ledger_costs", {**row, "billed": cost.billed, "nano": cost.nano})

    def carry_costs(self, last: int, period: int, link: str, cause: str) -> None:
        """Note in another period what was billed in the last one, by precedence."""
        if last == period:
            return
        sums: dict[CostKey, Cost] = {}
        for each in self.costs(last):
            if each.link == link:
                key = CostKey(each.precedence, cause)
                sums[key] = sums.get(key, Cost()) + each.cost
        self.add_costs(period, link, sums)

    def costs(self, period: int | None) -> tuple[CostTotal, ...]:
        """Return what was billed in a period (None: in all)."""
        sql = (
            "SELECT period, link, precedence, cause, billed, nano FROM ledger_costs "
            "WHERE :period IS NULL OR period = :period ORDER BY period, link, precedence, cause"
        )
        return tuple(
            CostTotal(when, link, Precedence(precedence), cause, Cost(billed, nano))
            for when, link, precedence, cause, billed, nano in self._database.rows(sql, {"period": period})
        )

    def settle_held(self, period: int, link: str) -> Account:
        """Count what an account holds in slices as spent; return the account as it was."""
        old = self.get(period, link)
        spent = replace(old, flash=old.flash + old.held_flash, other=old.other + old.held_other)
        self.put(period, link, spent.plus_held(0, 0))
        return old

    def close_slices(self) -> list[tuple[int, str, int]]:
        """Book what a crash left in slices as spent; return (period, link, bytes) of each account concerned."""
        sql = "SELECT period, link FROM ledger_accounts WHERE held_flash + held_other > 0"
        closed = []
        for period, link in self._database.rows(sql):
            old = self.settle_held(period, link)
            # When it was spent is as unknown as how: it may count in the next period too.
            undated = replace(
                self.get(period, link),
                undated_flash=old.undated_flash + old.held_flash,
                undated_other=old.undated_other + old.held_other,
            )
            self.put(period, link, undated)
            self._book_lost(period, link, CAUSE_CRASH, Spent(old.held_flash, old.held_other))
            closed.append((period, link, old.held_flash + old.held_other))
        return closed

    def raise_to(self, period: int, link: str, least: Spent) -> int:
        """Let an account say at least this was spent; return the bytes that it lacked."""
        old = self.get(period, link)
        lacking = Spent(max(0, least.flash - old.flash), max(0, least.other - old.other))
        if lacking.total:
            self.put(period, link, replace(old, flash=old.flash + lacking.flash, other=old.other + lacking.other))
            self._book_lost(period, link, CAUSE_RECOVERED, lacking)
        return lacking.total

    def date(self, period: int, link: str) -> None:
        """Note that everything booked in a period of an account is certainly of that period."""
        where = "period = :period AND link = :link"
        self._database.update(
            "ledger_accounts", where, {"period": period, "link": link}, undated_flash=0, undated_other=0
        )

    def totals(self, period: int | None) -> tuple[Total, ...]:
        """Return what was booked in a period (None: in all)."""
        sql = (
            "SELECT period, link, precedence, cause, direction, bytes, datagrams FROM ledger_entries "
            "WHERE :period IS NULL OR period = :period ORDER BY period, link, precedence, cause, direction"
        )
        return tuple(
            Total(when, link, Precedence(precedence), cause, direction, byte_count, datagrams)
            for when, link, precedence, cause, direction, byte_count, datagrams in self._database.rows(
                sql, {"period": period}
            )
        )

    def _book_lost(self, period: int, link: str, cause: str, lost: Spent) -> None:
        by = [(Precedence.FLASH, lost.flash), (Precedence.NORMAL, lost.other)]
        by = [(precedence, units) for precedence, units in by if units]
        costs = {
            CostKey(precedence, cause): Cost(0, units) if is_money(link) else Cost(units) for precedence, units in by
        }
        self.add_costs(period, link_of(link), costs)
        if not is_money(link):
            self.add(period, link, {Key(precedence, cause, "sent"): (units, 0) for precedence, units in by})
