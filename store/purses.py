"""The ledger's accounts and their purses: what may be spent is committed before it is, whatever the unit.

Each link has an account of billed bytes and one of money. A purse is a committed slice of one class (flash, others)
of an account: `Purses.take` promises out of it, `book` spends; a new slice is committed when it runs short, an fsync
for many datagrams. A crash loses at most what was left of the slices, and counts it as spent.

Every link has billing periods of its own, named by a number that only the caller understands. An unknown clock opens
none: what is booked then counts in the open period and again in the next one that opens, since either may be the true
one. When the rule of a link's periods changes, everything that was spent in the open one is carried over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol.billing import Cost
from protocol.budget import Cap, Spent, allowed_units, slice_units, turn
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal, RefusedByBudgetError
from protocol.tariffs import Unit
from store import incidents
from store.accounts import CAUSE_CARRIED, Account, Accounts, CostKey, Key, accounts_of, is_money, link_of
from store.database import Database
from store.marks import LinkMark, Marks
from store.settings import Settings

SLICE_BYTES: Final = 32 * 1024
# Wide links take larger slices, so that a large download is not a commit for every 30 datagrams: up to a thousandth
# of the cap, which is what a crash may count too much.
SLICE_BYTES_MAX: Final = 1 << 20
SLICES_IN_CAP: Final = 1_024
# The settings that outlive a restart, by link: the open period, the rule that it was opened under, and the period of
# which something was forgotten (`_UNTIL_DATED`: whichever it is). The names without a link are those of older releases.
_PERIOD, _RULE, _DOUBT, _TOLD = "ledger-period", "ledger-rule:", "ledger-doubt", "ledger-told:"
_UNTIL_DATED: Final = 1


@dataclass(slots=True)
class Purse:
    """What is promised or booked of a slice, and the rest of it."""

    used: int = 0
    left: int = 0


@dataclass(slots=True)
class Book:
    """What memory knows of one account and the database does not yet: purses, and bookings that are not written."""

    flash: Purse = field(default_factory=Purse)
    other: Purse = field(default_factory=Purse)
    booked: Spent = field(default_factory=Spent)
    undated: Spent = field(default_factory=Spent)
    bookings: dict[Key, tuple[int, int]] = field(default_factory=dict)  # -> carried bytes, datagrams
    costs: dict[CostKey, Cost] = field(default_factory=dict)

    def purse(self, precedence: Precedence) -> Purse:
        """Return the purse of a precedence."""
        return self.flash if precedence is Precedence.FLASH else self.other


class Purses:
    """All accounts in an open LINKS database; used by one thread, the event loop's."""

    def __init__(
        self, database: Database, marks: Marks, caps: Mapping[str, Cap], *, slice_bytes: int, now_s: int
    ) -> None:
        """Take the accounts over. `caps` names every link that may be used, and its money account if that has one."""
        self._database = database
        self._marks = marks
        self._slice_bytes = slice_bytes
        self._settings = Settings(database)
        self._asking_from: dict[str, int] = {}
        self._periods: dict[str, int] = {}
        self._opened_under: dict[str, str] = {}
        self._doubts: dict[str, int] = {}
        self._undated: dict[str, bool] = defaultdict(lambda: True)  # what is booked may belong to a later period
        self._dated: dict[str, bool] = defaultdict(bool)  # the clock has been known since the last time it was not
        self.accounts = Accounts(database)
        self.caps = dict(caps)
        self.rules: dict[str, str] = {}
        self.books: dict[str, Book] = defaultdict(Book)
        with marks.durable():
            self._take_over(now_s)

    def _take_over(self, now_s: int) -> None:
        for period, account, lost in self.accounts.close_slices():
            details: dict[str, int | bool | str] = {"link": account, "period": period}
            details["units" if is_money(account) else "bytes"] = lost
            incidents.record(self._database, "ledger.slice-lost", details, now_s)
        for account, mark in self._marks.links.items():
            # The marks were written after the database and before the datagram: they are never too low.
            missing = self.accounts.raise_to(mark.period, account, Spent(mark.flash, mark.other))
            link = link_of(account)
            if self._marks.ahead and mark.period != self.period(link):
                self._set_period(link, mark.period)
            if missing:
                incidents.record(self._database, "ledger.recovered", {"link": account, "bytes": missing}, now_s)
        # An old copy of everything, marks included, or a loss of both: what was spent since is not known.
        if (self._database.restored and not self._marks.ahead) or (self._database.recreated and not self._marks.found):
            for link in self.links:
                self._set_doubt(link, _UNTIL_DATED)
            incidents.record(self._database, "ledger.in-doubt", {}, now_s)

    @property
    def links(self) -> list[str]:
        """The links that have an account or a cap."""
        return sorted({link_of(account) for account in (*self.books, *self.caps)})

    # -- spending -----------------------------------------------------------------------------------------------------

    def take(self, needs: Sequence[tuple[str, int]], precedence: Precedence) -> None:
        """Promise units out of the purses of several accounts, all of them or none; raise `RefusedByBudgetError`."""
        short = [(account, need) for account, need in needs if self.books[account].purse(precedence).left < need]
        if short:
            self._new_slices(short, precedence)
        for account, need in needs:
            purse = self.books[account].purse(precedence)
            purse.left -= need
            purse.used += need

    def give_back(self, account: str, precedence: Precedence, units: int) -> None:
        """Return what was promised to its purse."""
        purse = self.books[account].purse(precedence)
        purse.used -= units
        purse.left += units

    def book(self, account: str, precedence: Precedence, units: int) -> None:
        """Spend units out of a purse, more than it holds if need be; then `cover` it."""
        book = self.books[account]
        purse, more = book.purse(precedence), Spent.by(precedence, units)
        purse.used += units
        purse.left -= units
        book.booked += more
        if self._undated[link_of(account)]:
            book.undated += more

    def cover(self, link: str, precedence: Precedence) -> None:
        """Commit at once what went beyond a slice: it left or came already, and must not be forgotten."""
        purses = [self.books[account].purse(precedence) for account in accounts_of(link)]
        if any(purse.left < 0 for purse in purses):
            for purse in purses:
                purse.left = max(0, purse.left)
            self._commit([link])

    def _new_slices(self, short: Sequence[tuple[str, int]], precedence: Precedence) -> None:
        before = [(book, book.flash.left, book.other.left) for book in (self.books[account] for account, _ in short)]
        try:
            for account, need in short:
                book = self.books[account]
                rival = book.other if precedence is Precedence.FLASH else book.flash
                try:
                    left = self._slice(account, precedence, need)
                except BudgetExceededError:
                    # What the other class holds unspent is given back before anybody is refused.
                    rival.left = 0
                    left = self._slice(account, precedence, need)
                book.purse(precedence).left = left
            self._commit(sorted({link_of(account) for account, _ in short}))
        except BaseException:
            for book, flash, other in before:
                book.flash.left, book.other.left = flash, other
            raise

    def _slice(self, account: str, precedence: Precedence, need: int) -> int:
        cap, book, link = self.cap(account), self.books[account], link_of(account)
        promised = self.promised(account)
        if precedence is Precedence.FLASH:
            promised += Spent(0, book.other.left)
        else:
            promised += Spent(book.flash.left, 0)
        largest = SLICE_BYTES_MAX * cap.unit
        wish = largest if cap.units_max is None else min(largest, cap.units_max // SLICES_IN_CAP)
        wish = max(self._slice_bytes * cap.unit, wish)
        in_doubt = self.in_doubt(link)
        try:
            return slice_units(cap, promised, precedence, need, wish, in_doubt=in_doubt)
        except BudgetExceededError:
            raise RefusedByBudgetError(self.refuse(account, precedence)) from None

    def refuse(self, account: str, precedence: Precedence) -> Refusal:
        """Return why an account refuses more to a precedence: what is left is flash's, or nothing is, or is known."""
        cap, in_doubt = self.cap(account), self.in_doubt(link_of(account))
        left = allowed_units(cap, self.promised(account), Precedence.FLASH, in_doubt=in_doubt)
        reason = Reason.RESERVE if precedence is not Precedence.FLASH and left else Reason.SPENT
        return Refusal(
            Reason.DOUBT if in_doubt else reason,
            link_of(account),
            precedence,
            Unit.MONEY if is_money(account) else Unit.BYTES,
            left,
            cap.units_max,
        )

    # -- writing down -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write every booking down."""
        if any(book.bookings or book.costs for book in self.books.values()):
            self._commit(self.links)

    def release(self) -> None:
        """Write down and give back what is left of all slices, at a clean end, so that it is not counted as spent."""
        for book in self.books.values():
            book.flash.left = book.other.left = 0
        self._commit(self.links)

    def _commit(self, links: Iterable[str]) -> None:
        accounts = [account for link in links for account in accounts_of(link)]
        with self._marks.durable():
            for account in accounts:
                self._write(account)
        self._clear(accounts)

    def _write(self, account: str) -> Account:
        """Move an account's bookings to the database, in the caller's transaction; after it, `_clear` them."""
        period = self.period(link_of(account))
        book, before = self.books[account], self.accounts.get(period, account)
        self.accounts.add(period, account, book.bookings)
        self.accounts.add_costs(period, account, book.costs)
        now = Account(
            flash=before.flash + book.booked.flash,
            other=before.other + book.booked.other,
            undated_flash=before.undated_flash + book.undated.flash,
            undated_other=before.undated_other + book.undated.other,
            held_flash=book.flash.used - book.booked.flash + book.flash.left,
            held_other=book.other.used - book.booked.other + book.other.left,
        )
        if now != before or not is_money(account):
            self.accounts.put(period, account, now)
        self._mark(account, period, now)
        return now

    def _mark(self, account: str, period: int, now: Account) -> None:
        if not is_money(account) or now != Account():
            total = Spent(now.flash + now.held_flash, now.other + now.held_other)
            self._marks.links[account] = LinkMark(period, total.flash, total.other)

    def _clear(self, accounts: Iterable[str]) -> None:
        # Only after COMMIT: a transaction that was undone leaves its bookings here, to be written by the next one.
        for account in accounts:
            book = self.books[account]
            book.flash.used -= book.booked.flash
            book.other.used -= book.booked.other
            book.bookings, book.costs, book.booked, book.undated = {}, {}, Spent(), Spent()

    # -- periods ------------------------------------------------------------------------------------------------------

    def period(self, link: str) -> int:
        """Return the open period of a link, 0 while none was opened."""
        known = self._periods.get(link)
        if known is None:
            known = self._settings.get_int(f"{_PERIOD}:{link}", self._settings.get_int(_PERIOD))
            self._periods[link] = known
        return known

    def turn(self, link: str, asked: int | None) -> None:
        """Open the period of the clock if it is a new one; an unknown clock, or one that went back, opens none."""
        last = self.period(link)
        if asked is not None and last and self.rules.get(link, self._rule(link)) != self._rule(link):
            self._open(link, asked, carries=True)
            self._undated[link], self._dated[link] = False, True
            return
        now = turn(last, asked)
        if now.opens:
            self._open(link, now.period, carries=False)
        elif not now.undated and not self._dated[link]:
            self._date(link)
        self._undated[link], self._dated[link] = now.undated, not now.undated

    def _rule(self, link: str) -> str:
        known = self._opened_under.get(link)
        if known is None:
            known = self._opened_under[link] = (self._settings.get(_RULE + link) or b"").decode()
        return known

    def _set_period(self, link: str, period: int) -> None:
        self._settings.put_int(f"{_PERIOD}:{link}", period)
        self._periods[link] = period

    def _date(self, link: str) -> None:
        """The clock is known, and it is still the open period: what was undated belongs here and nowhere else."""
        accounts, period = accounts_of(link), self.period(link)
        with self._marks.durable():
            for account in accounts:
                self._write(account)
                self.accounts.date(period, account)
            if self._doubt(link) == _UNTIL_DATED:
                self._set_doubt(link, period)
        self._clear(accounts)

    def _open(self, link: str, period: int, *, carries: bool) -> None:
        accounts, last, doubt = accounts_of(link), self.period(link), self._doubt(link)
        try:
            with self._marks.durable():
                for account in accounts:
                    book = self.books[account]
                    book.flash.left = book.other.left = 0
                    old = self._write(account)
                    # What is under way at the turn counts in both periods, and so does what is undated.
                    self.accounts.settle_held(last, account)
                    new = Account(old.undated_flash, old.undated_other, 0, 0, old.held_flash, old.held_other)
                    if carries:
                        new = Account(old.flash, old.other, 0, 0, old.held_flash, old.held_other)
                        self.accounts.carry_costs(last, period, account, CAUSE_CARRIED)
                    self.accounts.put(period, account, new)
                    self._mark(account, period, new)
                self._set_period(link, period)
                self._settings.put(_RULE + link, self.rules.get(link, self._rule(link)).encode())
                self._opened_under.pop(link, None)
                if doubt:
                    still = doubt == _UNTIL_DATED or (carries and doubt == last)
                    self._set_doubt(link, period if still else 0)
        except BaseException:
            self._periods.pop(link, None)
            raise
        self._clear(accounts)

    # -- doubt --------------------------------------------------------------------------------------------------------

    def doubt(self, now_s: int) -> None:
        """Know from elsewhere that this state is an old one: earlier spending of this period may be forgotten."""
        with self._marks.durable():
            for link in self.links:
                self._set_doubt(link, _UNTIL_DATED if self._undated[link] else self.period(link))
            incidents.record(self._database, "ledger.in-doubt", {}, now_s)
        for book in self.books.values():
            # What is left of slices was promised by an account that does not hold.
            book.flash.left = book.other.left = 0

    def in_doubt(self, link: str) -> bool:
        """Return whether earlier spending of this period was forgotten, so that only the reserve may be used."""
        doubt = self._doubt(link)
        return bool(doubt) and doubt in (_UNTIL_DATED, self.period(link))

    def _doubt(self, link: str) -> int:
        known = self._doubts.get(link)
        if known is None:
            known = self._doubts[link] = self._stored_doubt(link)
        return known

    def _stored_doubt(self, link: str) -> int:
        own = self._settings.get(f"{_DOUBT}:{link}")
        if own is not None:
            return int.from_bytes(own, "big", signed=True)
        told = self._settings.get_int(_TOLD + link, -1)
        return 0 if told == self.period(link) else self._settings.get_int(_DOUBT)

    def _set_doubt(self, link: str, doubt: int) -> None:
        self._settings.put_int(f"{_DOUBT}:{link}", doubt)
        self._doubts.pop(link, None)

    def reconcile(self, link: str, spent: Spent) -> None:
        """Take what is known from elsewhere to be spent on a link in the open period; this ends a doubt."""
        period = self.period(link)
        with self._marks.durable():
            for account in accounts_of(link):
                unit = self.caps.get(account, Cap(0)).unit if is_money(account) else 1
                if not is_money(account) or account in self.caps:
                    self.accounts.raise_to(period, account, Spent(spent.flash * unit, spent.other * unit))
                self._write(account)
            self._set_doubt(link, 0)
        self._clear(accounts_of(link))

    # -- looking ------------------------------------------------------------------------------------------------------

    def cap(self, account: str) -> Cap:
        """Return an account's cap (money: none unless one is stated); in doubt, with a reserve to ask the gateway."""
        cap = self.caps.get(account, Cap(None) if is_money(account) else Cap(0))
        if cap.units_max is None or not self.in_doubt(link_of(account)):
            return cap
        flash = self.accounts.get(self.period(link_of(account)), account).flash
        asking_from = self._asking_from.setdefault(account, flash)
        reserve = min(cap.units_max, max(cap.reserve_units, asking_from + cap.asking))
        return Cap(cap.units_max, reserve, cap.unit, cap.asking)

    def promised(self, account: str) -> Spent:
        """Return what is spent or promised in the open period, without the unused rest of slices."""
        book, now = self.books[account], self.accounts.get(self.period(link_of(account)), account)
        return Spent(now.flash + book.flash.used, now.other + book.other.used)
