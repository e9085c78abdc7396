"""The truck's account of every byte: by link, precedence, cause, direction and period; amounts only ever grow.

Spending is reserve, then settle. `reserve` promises the worst case before a datagram leaves, out of a slice that was
committed to the database (an fsync for every datagram would wear the flash out); `settle` books what it really was and
gives the rest back to the slice. A crash loses at most what was left of the slices, and counts it as spent.
`protocol.budget` decides how much a slice may be; a committed slice is spent as far as the cap is concerned.

What arrives unasked cannot be refused: `charge` books it, over the cap if need be, and the next `reserve` then fails.
Bytes that were spent while the clock was unknown count in the period that was open and again in the next one that
opens: either may be the true one. Used by one thread, the event loop's; synchronous.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from protocol.budget import Cap, Spent, allowed_bytes, slice_bytes, turn
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from store import incidents
from store.accounts import Account, Accounts, Key, Total
from store.database import Database
from store.errors import StoreError
from store.marks import LinkMark, Marks
from store.settings import Settings

SLICE_BYTES: Final = 32 * 1024
# Wide links take larger slices, so that a large download is not a commit for every 30 datagrams: up to a thousandth
# of the cap, which is what a crash may count too much.
SLICE_BYTES_MAX: Final = 1 << 20
SLICES_IN_CAP: Final = 1_024
RESERVATIONS_MAX: Final = 4_096
# What may be spent on asking the gateway, after each start, when earlier spending is not known: else a truck without a
# reserve would be mute for ever.
ASKING_BYTES: Final = 4_096
SENT, RECEIVED = "sent", "received"
# The settings that outlive a restart: the open period; the period of which something was forgotten; who was told.
_PERIOD, _DOUBT, _TOLD = "ledger-period", "ledger-doubt", "ledger-told:"
_DOUBT_UNTIL_DATED: Final = 1


@dataclass(frozen=True, slots=True)
class Reservation:
    """Bytes that may leave on a link; `settle` it exactly once, whatever became of them."""

    number: int
    link: str
    precedence: Precedence
    cause: str
    bytes_max: int


@dataclass(slots=True)
class _Purse:
    """The committed slice of one class (flash, others) of a link: what is promised or booked of it, and the rest."""

    used: int = 0
    left: int = 0


@dataclass(slots=True)
class _Book:
    """What memory knows of one link and the database does not yet: purses, and bookings that are not written."""

    flash: _Purse = field(default_factory=_Purse)
    other: _Purse = field(default_factory=_Purse)
    bookings: dict[Key, tuple[int, int]] = field(default_factory=dict)  # -> bytes, datagrams
    booked: Spent = field(default_factory=Spent)
    undated: Spent = field(default_factory=Spent)

    def purse(self, precedence: Precedence) -> _Purse:
        return self.flash if precedence is Precedence.FLASH else self.other


class Ledger:
    """The ledger in an open LINKS database."""

    def __init__(
        self,
        database: Database,
        marks: Marks,
        caps: Mapping[str, Cap],
        *,
        slice_bytes: int = SLICE_BYTES,
        now_s: int = 0,
    ) -> None:
        """Take the account over. `caps` names every link that may be used. `now_s` is for incidents only."""
        self._database = database
        self._marks = marks
        self._accounts = Accounts(database)
        self._settings = Settings(database)
        self._slice_bytes = slice_bytes
        self._caps = dict(caps)
        self._books: dict[str, _Book] = defaultdict(_Book)
        self._reservations: dict[int, Reservation] = {}
        self._number = 0
        self._asking_from: dict[str, int] = {}
        self._undated = True  # what is booked now may belong to a later period
        self._dated = False  # the clock has been known since the last time that it was not
        with marks.durable():
            self._take_over(now_s)
        self.period = self._settings.get_int(_PERIOD)

    def _take_over(self, now_s: int) -> None:
        for period, link, lost in self._accounts.close_slices():
            incidents.record(
                self._database, "ledger.slice-lost", {"link": link, "period": period, "bytes": lost}, now_s
            )
        for link, mark in self._marks.links.items():
            # The marks were written after the database and before the datagram: they are never too low.
            missing = self._accounts.raise_to(mark.period, link, Spent(mark.flash, mark.other))
            if mark.period > self._settings.get_int(_PERIOD):
                self._settings.put_int(_PERIOD, mark.period)
            if missing:
                incidents.record(self._database, "ledger.recovered", {"link": link, "bytes": missing}, now_s)
        # An old copy of everything, marks included, or a loss of both: what was spent since is not known.
        if (self._database.restored and not self._marks.ahead) or (self._database.recreated and not self._marks.found):
            self._settings.put_int(_DOUBT, _DOUBT_UNTIL_DATED)
            incidents.record(self._database, "ledger.in-doubt", {}, now_s)

    def doubt(self, now_s: int = 0) -> None:
        """Know from elsewhere that this state is an old one: earlier spending of this period may be forgotten."""
        with self._marks.durable():
            self._settings.put_int(_DOUBT, _DOUBT_UNTIL_DATED if self._undated else self.period)
            for link in self._caps:
                self._settings.put_int(_TOLD + link, -1)
            incidents.record(self._database, "ledger.in-doubt", {}, now_s)
        for book in self._books.values():
            # What is left of slices was promised by an account that does not hold.
            book.flash.left = book.other.left = 0

    def set_caps(self, caps: Mapping[str, Cap]) -> None:
        """Take new caps (a signed configuration); slices already committed stay promised."""
        self._caps = dict(caps)

    # -- spending -----------------------------------------------------------------------------------------------------

    def reserve(
        self, link: str, precedence: Precedence, cause: str, bytes_max: int, *, period: int | None
    ) -> Reservation:
        """Promise up to `bytes_max` bytes (both directions, headers included); they may leave once this returns.

        `period` is that of the clock, None when it is not known. Raises `BudgetExceededError`, also for a link that
        has no cap stated; `StoreError` when thousands of reservations were never settled.
        """
        if bytes_max < 0:
            raise ValueError("a reservation is of 0 bytes or more")
        if link not in self._caps:
            raise BudgetExceededError(f"no budget is stated for the link {link}")
        if len(self._reservations) >= RESERVATIONS_MAX:
            raise StoreError(f"{RESERVATIONS_MAX} reservations are open: they are not being settled")
        self._turn(period)
        purse = self._books[link].purse(precedence)
        if purse.left < bytes_max:
            self._new_slice(link, precedence, bytes_max)
        purse.left -= bytes_max
        purse.used += bytes_max
        self._number += 1
        reservation = Reservation(self._number, link, precedence, cause, bytes_max)
        self._reservations[reservation.number] = reservation
        return reservation

    def settle(
        self,
        reservation: Reservation,
        *,
        sent_bytes: int,
        received_bytes: int,
        sent_datagrams: int = 1,
        received_datagrams: int = 1,
    ) -> None:
        """Book what a reservation really took (0 when nothing left) and give the rest back to its slice.

        More than was reserved is booked too. Raises `ValueError` when it was settled before.
        """
        if self._reservations.pop(reservation.number, None) is None:
            raise ValueError("this reservation was settled before")
        purse = self._books[reservation.link].purse(reservation.precedence)
        purse.used -= reservation.bytes_max
        purse.left += reservation.bytes_max
        link, precedence, cause = reservation.link, reservation.precedence, reservation.cause
        self._book(link, precedence, cause, SENT, sent_bytes, sent_datagrams)
        self._book(link, precedence, cause, RECEIVED, received_bytes, received_datagrams)
        self._cover(link, precedence)

    def charge(
        self,
        link: str,
        precedence: Precedence,
        cause: str,
        direction: str,
        byte_count: int,
        *,
        period: int | None,
        datagrams: int = 1,
    ) -> None:
        """Book bytes that nobody reserved (what arrives unasked), over the cap if need be."""
        self._turn(period)
        self._book(link, precedence, cause, direction, byte_count, datagrams)
        self._cover(link, precedence)

    def _book(
        self, link: str, precedence: Precedence, cause: str, direction: str, byte_count: int, datagrams: int
    ) -> None:
        if byte_count < 0 or datagrams < 0:
            raise ValueError("what was spent is never negative")
        if byte_count == 0:
            return
        book, key = self._books[link], Key(precedence, cause, direction)
        before = book.bookings.get(key, (0, 0))
        book.bookings[key] = (before[0] + byte_count, before[1] + datagrams)
        purse = book.purse(precedence)
        purse.used += byte_count
        purse.left -= byte_count
        more = Spent(byte_count, 0) if precedence is Precedence.FLASH else Spent(0, byte_count)
        book.booked = _sum(book.booked, more)
        if self._undated:
            book.undated = _sum(book.undated, more)

    def _cover(self, link: str, precedence: Precedence) -> None:
        """Commit at once what went beyond the slice: it left or came already, and must not be forgotten."""
        purse = self._books[link].purse(precedence)
        if purse.left < 0:
            purse.left = 0
            self._commit([link])

    def _new_slice(self, link: str, precedence: Precedence, need: int) -> None:
        book, cap = self._books[link], self._cap(link)
        purse = book.purse(precedence)
        rival = book.other if precedence is Precedence.FLASH else book.flash
        before = purse.left, rival.left
        try:
            try:
                purse.left = self._slice(link, cap, precedence, need)
            except BudgetExceededError:
                # What the other class holds unspent is given back before anybody is refused.
                rival.left = 0
                purse.left = self._slice(link, cap, precedence, need)
            self._commit([link])
        except BaseException:
            purse.left, rival.left = before
            raise

    def _slice(self, link: str, cap: Cap, precedence: Precedence, need: int) -> int:
        book, account = self._books[link], self._accounts.get(self.period, link)
        promised = Spent(account.flash + book.flash.used, account.other + book.other.used)
        if precedence is Precedence.FLASH:
            promised = Spent(promised.flash, promised.other + book.other.left)
        else:
            promised = Spent(promised.flash + book.flash.left, promised.other)
        wish = SLICE_BYTES_MAX if cap.bytes_max is None else min(SLICE_BYTES_MAX, cap.bytes_max // SLICES_IN_CAP)
        wish = max(self._slice_bytes, wish)
        return slice_bytes(cap, promised, precedence, need, wish, in_doubt=self.in_doubt(link))

    # -- writing down -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write every booking down (once a minute, so that totals are fresh)."""
        if any(book.bookings for book in self._books.values()):
            self._commit(list(self._books))

    def release(self) -> None:
        """Write down and give back what is left of all slices, at a clean end, so that it is not counted as spent."""
        for book in self._books.values():
            book.flash.left = book.other.left = 0
        self._commit(list(self._books))

    def _commit(self, links: list[str]) -> None:
        with self._marks.durable():
            for link in links:
                self._write(link)
        self._clear(links)

    def _write(self, link: str) -> Account:
        """Move a link's bookings to the database, in the caller's transaction; after it, `_clear` them from memory."""
        book, before = self._books[link], self._accounts.get(self.period, link)
        self._accounts.add(self.period, link, book.bookings)
        account = Account(
            flash=before.flash + book.booked.flash,
            other=before.other + book.booked.other,
            undated_flash=before.undated_flash + book.undated.flash,
            undated_other=before.undated_other + book.undated.other,
            held_flash=book.flash.used - book.booked.flash + book.flash.left,
            held_other=book.other.used - book.booked.other + book.other.left,
        )
        self._accounts.put(self.period, link, account)
        total = Spent(account.flash + account.held_flash, account.other + account.held_other)
        self._marks.links[link] = LinkMark(self.period, total.flash, total.other)
        return account

    def _clear(self, links: list[str]) -> None:
        # Only after COMMIT: a transaction that was undone leaves its bookings here, to be written by the next one.
        for link in links:
            book = self._books[link]
            book.flash.used -= book.booked.flash
            book.other.used -= book.booked.other
            book.bookings, book.booked, book.undated = {}, Spent(), Spent()

    # -- periods ------------------------------------------------------------------------------------------------------

    def _turn(self, asked: int | None) -> None:
        """Open the period of the clock if it is a new one; an unknown clock, or one that went back, opens none."""
        now = turn(self.period, asked)
        if now.opens:
            self._open(now.period)
        elif not now.undated and not self._dated:
            self._date()
        self._undated, self._dated = now.undated, not now.undated

    def _date(self) -> None:
        """The clock is known, and it is still the open period: what was undated belongs here and nowhere else."""
        with self._marks.durable():
            for link in self._books:
                self._write(link)
            self._accounts.date(self.period)
            if self._settings.get_int(_DOUBT) == _DOUBT_UNTIL_DATED:
                self._settings.put_int(_DOUBT, self.period)
        self._clear(list(self._books))

    def _open(self, period: int) -> None:
        links = sorted({*self._books, *self._caps})
        with self._marks.durable():
            self._marks.links.clear()
            for link in links:
                book = self._books[link]
                book.flash.left = book.other.left = 0
                old = self._write(link)
                # What is under way at the turn counts in both periods, and so does what is undated.
                self._accounts.settle_held(self.period, link)
                new = Account(old.undated_flash, old.undated_other, 0, 0, old.held_flash, old.held_other)
                self._accounts.put(period, link, new)
                self._marks.links[link] = LinkMark(period, new.flash + new.held_flash, new.other + new.held_other)
            self._settings.put_int(_PERIOD, period)
            doubt = self._settings.get_int(_DOUBT)
            if doubt:
                self._settings.put_int(_DOUBT, period if doubt == _DOUBT_UNTIL_DATED else 0)
        self._clear(links)
        self.period = period

    def _cap(self, link: str) -> Cap:
        """Return a link's cap; in doubt, with a reserve that is enough to ask the gateway."""
        cap = self._caps.get(link, Cap(0))
        if cap.bytes_max is None or not self.in_doubt(link):
            return cap
        asking_from = self._asking_from.setdefault(link, self._accounts.get(self.period, link).flash)
        return Cap(cap.bytes_max, min(cap.bytes_max, max(cap.reserve_bytes, asking_from + ASKING_BYTES)))

    def in_doubt(self, link: str) -> bool:
        """Return whether earlier spending of this period was forgotten, so that only the reserve may be used."""
        doubt = self._settings.get_int(_DOUBT)
        if not doubt or doubt not in (_DOUBT_UNTIL_DATED, self.period):
            return False
        return self._settings.get_int(_TOLD + link, -1) != self.period

    def reconcile(self, link: str, spent: Spent, *, period: int | None = None) -> None:
        """Take what the gateway's own account says was spent on a link in the open period; this ends a doubt."""
        if period is not None:
            self._turn(period)
        with self._marks.durable():
            self._accounts.raise_to(self.period, link, spent)
            self._settings.put_int(_TOLD + link, self.period)
            self._write(link)
        self._clear([link])

    # -- looking ------------------------------------------------------------------------------------------------------

    def spent(self, link: str, period: int | None = None) -> int:
        """Return the bytes of a period (None: the open one) that are spent or promised on a link."""
        account = self._accounts.get(self.period if period is None else period, link)
        return account.flash + account.other + account.held_flash + account.held_other

    def booked(self, link: str) -> int:
        """Return the bytes that were carried in the open period, without what is only promised."""
        book, account = self._books[link], self._accounts.get(self.period, link)
        return account.flash + account.other + book.booked.flash + book.booked.other

    def cap_bytes(self, link: str) -> int | None:
        """Return a link's cap for a period; None when it has none."""
        return self._caps.get(link, Cap(0)).bytes_max

    def left(self, link: str, precedence: Precedence, *, period: int | None) -> int | None:
        """Return how many bytes this precedence could reserve now; None when the link has no cap."""
        self._turn(period)
        book, account = self._books[link], self._accounts.get(self.period, link)
        promised = Spent(account.flash + book.flash.used, account.other + book.other.used)
        return allowed_bytes(self._cap(link), promised, precedence, in_doubt=self.in_doubt(link))

    def totals(self, period: int | None = None) -> tuple[Total, ...]:
        """Return what was booked in a period (None: in all), with what is not written down yet."""
        self.flush()
        return self._accounts.totals(period)


def _sum(one: Spent, other: Spent) -> Spent:
    return Spent(one.flash + other.flash, one.other + other.other)
