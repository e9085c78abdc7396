"""The truck's account of every byte: by link, precedence, cause, direction and period; amounts only ever grow.

Spending is reserve, then settle. `reserve` promises the worst case before a datagram leaves, in billed bytes and in
money, out of slices that were committed to the database (`store.purses`); `settle` books what it really was and gives
the rest back. Two accounts of the same thing are kept apart: carried bytes, which are the socket's own count, and
their cost, which is what the provider counts (`protocol.billing`).

What arrives unasked cannot be refused: `charge` books it, over the cap if need be, and the next `reserve` then fails.
Bytes that were spent while the clock was unknown count in the period that was open and again in the next one that
opens: either may be the true one. Used by one thread, the event loop's; synchronous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from protocol.billing import Cost
from protocol.budget import Cap, Spent, allowed_units
from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal, RefusedByBudgetError
from store.accounts import CostKey, CostTotal, Key, Total, accounts_of
from store.database import Database
from store.errors import StoreError
from store.marks import Marks
from store.purses import SLICE_BYTES, Purses

RESERVATIONS_MAX: Final = 4_096
SENT, RECEIVED = "sent", "received"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Bytes that may leave on a link, and their worst cost; `settle` it exactly once, whatever became of them."""

    number: int
    link: str
    precedence: Precedence
    cause: str
    bytes_max: int
    cost: Cost


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
        """Take the account over. `caps` names every account that may be used. `now_s` is for incidents only."""
        self.purses = Purses(database, marks, caps, slice_bytes=slice_bytes, now_s=now_s)
        self._reservations: dict[int, Reservation] = {}
        self._number = 0
        # By link: the open period, and what each precedence was billed in it.
        self._billed: dict[str, tuple[int, dict[Precedence, Cost]]] = {}

    @property
    def period(self) -> int:
        """The newest period that any link has open."""
        return max((self.purses.period(link) for link in self.purses.links), default=0)

    def set_caps(self, caps: Mapping[str, Cap], rules: Mapping[str, str] | None = None) -> None:
        """Take new caps, and what rules the links' periods (a signed configuration); what is promised stays so."""
        self.purses.caps = dict(caps)
        self.purses.rules = dict(rules or {})

    def doubt(self, now_s: int = 0) -> None:
        """Know from elsewhere that this state is an old one: earlier spending of this period may be forgotten."""
        self.purses.doubt(now_s)

    # -- spending -----------------------------------------------------------------------------------------------------

    def reserve(
        self,
        link: str,
        precedence: Precedence,
        cause: str,
        bytes_max: int,
        *,
        period: int | None,
        cost: Cost | None = None,
    ) -> Reservation:
        """Promise up to `bytes_max` bytes (both directions, headers included); they may leave once this returns.

        `period` is that of the clock for this link, None when it is not known; `cost` is what they cost at worst (None:
        they are billed as they are). Raises `RefusedByBudgetError`, also for a link that has no cap stated;
        `StoreError` when thousands of reservations were never settled.
        """
        if bytes_max < 0:
            raise ValueError("a reservation is of 0 bytes or more")
        if link not in self.purses.caps:
            raise RefusedByBudgetError(Refusal(Reason.NO_BUDGET, link, precedence))
        if len(self._reservations) >= RESERVATIONS_MAX:
            raise StoreError(f"{RESERVATIONS_MAX} reservations are open: they are not being settled")
        self.purses.turn(link, period)
        cost = Cost(bytes_max) if cost is None else cost
        self.purses.take(_needs(link, cost), precedence)
        self._number += 1
        reservation = Reservation(self._number, link, precedence, cause, bytes_max, cost)
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
        cost: Cost | None = None,
    ) -> None:
        """Book what a reservation really took (0 when nothing left) and give the rest back to its slice.

        More than was reserved is booked too. `cost` as in `reserve`. Raises `ValueError` when it was settled before.
        """
        if self._reservations.pop(reservation.number, None) is None:
            raise ValueError("this reservation was settled before")
        link, precedence, cause = reservation.link, reservation.precedence, reservation.cause
        for account, units in _needs(link, reservation.cost):
            self.purses.give_back(account, precedence, units)
        self._carry(link, Key(precedence, cause, SENT), sent_bytes, sent_datagrams)
        self._carry(link, Key(precedence, cause, RECEIVED), received_bytes, received_datagrams)
        self._bill(link, precedence, cause, Cost(sent_bytes + received_bytes) if cost is None else cost)

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
        cost: Cost | None = None,
    ) -> None:
        """Book bytes that nobody reserved (what arrives unasked), over the cap if need be."""
        self.purses.turn(link, period)
        self._carry(link, Key(precedence, cause, direction), byte_count, datagrams)
        self._bill(link, precedence, cause, Cost(byte_count) if cost is None else cost)

    def _carry(self, link: str, key: Key, byte_count: int, datagrams: int) -> None:
        if byte_count < 0 or datagrams < 0:
            raise ValueError("what was spent is never negative")
        if byte_count:
            bookings = self.purses.books[link].bookings
            before = bookings.get(key, (0, 0))
            bookings[key] = (before[0] + byte_count, before[1] + datagrams)

    def _bill(self, link: str, precedence: Precedence, cause: str, cost: Cost) -> None:
        if cost.billed < 0 or cost.nano < 0:
            raise ValueError("what was spent is never negative")
        if cost != Cost():
            by = self._by_precedence(link)
            by[precedence] = by.get(precedence, Cost()) + cost
            costs, key = self.purses.books[link].costs, CostKey(precedence, cause)
            costs[key] = costs.get(key, Cost()) + cost
            for account, units in _needs(link, cost):
                self.purses.book(account, precedence, units)
        self.purses.cover(link, precedence)

    def flush(self) -> None:
        """Write every booking down (once a minute, so that totals are fresh)."""
        self.purses.flush()

    def release(self) -> None:
        """Write down and give back what is left of all slices, at a clean end, so that it is not counted as spent."""
        self.purses.release()

    def in_doubt(self, link: str) -> bool:
        """Return whether earlier spending of this period was forgotten, so that only the reserve may be used."""
        return self.purses.in_doubt(link)

    def reconcile(self, link: str, spent: Spent, *, period: int | None = None) -> None:
        """Take what the gateway's own account says was spent on a link in the open period; this ends a doubt."""
        if period is not None:
            self.purses.turn(link, period)
        self.purses.reconcile(link, spent)
        self._billed.pop(link, None)

    # -- looking ------------------------------------------------------------------------------------------------------

    def spent(self, link: str, period: int | None = None) -> int:
        """Return the billed bytes of a period (None: the open one) that are spent or promised on a link."""
        account = self.purses.accounts.get(self.purses.period(link) if period is None else period, link)
        return account.flash + account.other + account.held_flash + account.held_other

    def booked(self, link: str) -> int:
        """Return the bytes that were billed in the open period, without what is only promised."""
        return self._booked(link)

    def booked_nano(self, link: str) -> int:
        """Return the money that was spent in the open period, in billionths of the link's currency."""
        return self._booked(accounts_of(link)[1], link)

    def _booked(self, account: str, link: str | None = None) -> int:
        now = self.purses.accounts.get(self.purses.period(link or account), account)
        return now.flash + now.other + self.purses.books[account].booked.total

    def cap_bytes(self, link: str) -> int | None:
        """Return a link's cap for a period in billed bytes; None when it has none."""
        return self.purses.caps.get(link, Cap(0)).units_max

    def left(self, link: str, precedence: Precedence, *, period: int | None) -> int | None:
        """Return how many billed bytes this precedence could reserve now; None when the link has no cap."""
        return self._left(link, link, precedence, period)

    def left_nano(self, link: str, precedence: Precedence, *, period: int | None) -> int | None:
        """Return how much money this precedence could reserve now; None when there is no cap on it."""
        return self._left(link, accounts_of(link)[1], precedence, period)

    def _left(self, link: str, account: str, precedence: Precedence, period: int | None) -> int | None:
        self.purses.turn(link, period)
        cap, promised = self.purses.cap(account), self.purses.promised(account)
        return allowed_units(cap, promised, precedence, in_doubt=self.purses.in_doubt(link))

    def by_precedence(self, link: str) -> dict[Precedence, Cost]:
        """Return what each precedence was billed in the open period, or is promised."""
        found = dict(self._by_precedence(link))
        for each in self._reservations.values():
            if each.link == link:
                found[each.precedence] = found.get(each.precedence, Cost()) + each.cost
        return found

    def _by_precedence(self, link: str) -> dict[Precedence, Cost]:
        period, found = self._billed.get(link, (-1, {}))
        if period != self.purses.period(link):
            period, found = self.purses.period(link), {}
            written = [(each.precedence, each.cost) for each in self.purses.accounts.costs(period) if each.link == link]
            fresh = [(key.precedence, cost) for key, cost in self.purses.books[link].costs.items()]
            for precedence, cost in written + fresh:
                found[precedence] = found.get(precedence, Cost()) + cost
            self._billed[link] = period, found
        return found

    def totals(self, period: int | None = None) -> tuple[Total, ...]:
        """Return the carried bytes of a period (None: of all), with what is not written down yet."""
        self.flush()
        return self.purses.accounts.totals(period)

    def costs(self, period: int | None = None) -> tuple[CostTotal, ...]:
        """Return what was billed in a period (None: in all), with what is not written down yet."""
        self.flush()
        return self.purses.accounts.costs(period)


def _needs(link: str, cost: Cost) -> list[tuple[str, int]]:
    """Return what a cost takes from each account of a link; money only where it costs any."""
    bytes_account, money_account = accounts_of(link)
    return [(bytes_account, cost.billed), *([(money_account, cost.nano)] if cost.nano else [])]
