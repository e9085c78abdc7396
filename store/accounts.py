"""The rows of the ledger: what was booked, and for each link and period what counts against its cap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from protocol.budget import Spent
from protocol.numbers import Precedence
from store.database import Database, Sql

# The cause under which a crash books what was left of a slice, and damage what only the marks remember.
CAUSE_CRASH = "crash"
CAUSE_RECOVERED = "recovered"


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
    """One link in one period, in bytes: spent, the part of that which is undated, and held in slices."""

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

    def date(self, period: int) -> None:
        """Note that everything booked in a period is certainly of that period."""
        self._database.update(
            "ledger_accounts", "period = :period", {"period": period}, undated_flash=0, undated_other=0
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
        bookings = {
            Key(precedence, cause, "sent"): (byte_count, 0)
            for precedence, byte_count in ((Precedence.FLASH, lost.flash), (Precedence.NORMAL, lost.other))
            if byte_count
        }
        self.add(period, link, bookings)
