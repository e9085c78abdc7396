"""One link's budget on the truck: what a datagram costs there and now, and why a precedence may not spend.

`protocol.terms` and `protocol.billing` decide, the ledger holds the figures; this brings in the clock, the place and
the provider's open session. Caps are the ledger's own promise; shares, pace, hours and roaming are asked here, before
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from edge.clock import Clock
from protocol.billing import (
    Cost,
    Period,
    Place,
    Price,
    Session,
    charged,
    cost_of,
    is_free,
    next_free,
    paid_room,
    price_at,
    worst_cost,
)
from protocol.budget import Cap, period_of
from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal
from protocol.scheduler import LinkView
from protocol.tariffs import BillingStep, Unit
from protocol.terms import Terms, share_left
from protocol.windows import Offset, is_open, next_opening
from store.accounts import accounts_of
from store.ledger import Ledger
from store.zones import offset_of

# A request, its repetition after a challenge, and their answers; late answers included.
DATAGRAMS_MAX: Final = 4
# A burst's datagrams are full but for the last ones: half of what they carry bounds their number.
_FULL_DATAGRAM_BYTES: Final = 512
# The least that an exchange is reserved for; a larger one finds out when it is reserved.
EXCHANGE_BYTES_MIN: Final = 1_000
LASTS_S_MAX: Final = 150.0
# A step that is worth waiting for before it is opened: less is lost in the noise of a datagram's own headers.
_STEP_WORTH_BYTES: Final = 512


class LinkBudget:
    """The tariff and budget of one link, applied to its ledger."""

    def __init__(
        self,
        terms: Terms,
        ledger: Ledger,
        *,
        wall_s: Callable[[], float | None],
        monotonic: Callable[[], float],
        place: Callable[[], Place] = Place,
    ) -> None:
        """`wall_s` is Unix time, None while it is not known; `place` is where the truck is, as far as it knows."""
        self.name = terms.tariff.link
        self.ledger = ledger
        self._wall_s = wall_s
        self._monotonic = monotonic
        self._place = place
        self._session = Session()
        self.set_terms(terms)

    def set_terms(self, terms: Terms) -> None:
        """Take another tariff or budget; raise `UnknownZoneError` for a zone that this computer does not know."""
        self._offset: Offset = offset_of(terms.tariff.zone)
        self._span: Period | None = None
        self.terms = terms

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def offset(self) -> Offset:
        """The local time of the bill."""
        return self._offset

    def span(self) -> Period | None:
        """Return the billing period of the clock, None while that is not known."""
        now = self._wall_s()
        if now is None:
            return None
        if self._span is None or not self._span.starts_s <= now < self._span.ends_s:
            self._span = self.terms.period(int(now), self._offset)
        return self._span

    def period(self) -> int | None:
        """Return the number of the billing period of the clock, None while that is not known."""
        span = self.span()
        return None if span is None else span.number

    def is_of_this_month(self, span: Period) -> bool:
        """Return whether a billing period began in the calendar month (UTC) of the clock."""
        now = self._wall_s()
        return now is not None and period_of(span.starts_s) == period_of(int(now))

    def _elapsed(self) -> float:
        now, span = self._wall_s(), self.span()
        return 0.0 if now is None or span is None else span.elapsed(now)

    def is_free(self) -> bool:
        """Return whether what is sent now is certainly in a free window."""
        now = self._wall_s()
        return is_free(self.terms.tariff, None if now is None else int(now), self._offset)

    def paid_bytes(self) -> int:
        """Return how many more bytes a step holds that is paid for already, if they are worth a thought."""
        room = paid_room(self.terms.tariff, self._session, self._monotonic())
        return room if room >= _STEP_WORTH_BYTES else 0

    # -- cost ---------------------------------------------------------------------------------------------------------

    def price(self) -> Price | None:
        """Return the price where the truck is; None where the link must not be used."""
        return price_at(self.terms.tariff, self._place())

    def worst(self, size: int) -> Cost:
        """Return the most that an exchange of `size` bytes may cost."""
        return worst_cost(
            self.terms.tariff,
            self.price() or self.terms.dearest,
            size,
            max(DATAGRAMS_MAX, 2 + size // _FULL_DATAGRAM_BYTES),
            LASTS_S_MAX,
            billed_before=self.ledger.purses.promised(self.name).total,
            free=self.is_free(),
        )

    def cost(self, size: int) -> Cost:
        """Return what a datagram that is carried now is billed, and its session; see `settled` for the rest.

        The provider's session goes on with it.
        """
        price = self.price() or self.terms.dearest
        cost, self._session = cost_of(
            self.terms.tariff,
            Price(0, price.session_nano),
            self._session,
            size,
            self._monotonic(),
            billed_before=0,
            free=self.is_free(),
        )
        return cost

    def settled(self, cost: Cost) -> Cost:
        """Return a cost with the money for its billed bytes, as it is booked: what is included comes first."""
        price = self.price() or self.terms.dearest
        return cost + Cost(0, charged(self.terms.tariff, price, cost.billed, self.ledger.booked(self.name)))

    def marginal_nano(self, precedence: Precedence) -> int:
        """Return what one more byte of this precedence costs now, in billionths of the currency."""
        if self.is_free():
            return 0
        price = self.price() or self.terms.dearest
        return self.terms.marginal_nano(price, self.ledger.booked(self.name), precedence, self._elapsed())

    # -- may it? ------------------------------------------------------------------------------------------------------

    def refusal(self, precedence: Precedence, size: int) -> Refusal | None:
        """Return why an exchange of `size` bytes may not be spent now, None when it may."""
        tariff, now = self.terms.tariff, self._wall_s()
        self.ledger.purses.turn(self.name, self.period())
        if self.price() is None:
            return Refusal(Reason.ROAMING, self.name, precedence)
        if precedence is not Precedence.FLASH and tariff.hours and now is not None:
            opens = next_opening(tariff.hours, int(now), self._offset)
            if not is_open(tariff.hours, int(now), self._offset):
                return Refusal(Reason.HOURS, self.name, precedence, until_s=opens)
        return self._unpaid(precedence, self.worst(size))

    def _unpaid(self, precedence: Precedence, worst: Cost) -> Refusal | None:
        """Return which account lacks what an exchange may cost, and why."""
        span, period = self.span(), self.period()
        by = self.ledger.by_precedence(self.name)
        for unit, account in zip(Unit, accounts_of(self.name), strict=True):
            is_bytes = unit is Unit.BYTES
            need = worst.billed if is_bytes else worst.nano
            cap = self.terms.bytes_cap if is_bytes else self.terms.money_cap
            if cap is None or cap.units_max is None or not need:
                continue
            left = (self.ledger.left if is_bytes else self.ledger.left_nano)(self.name, precedence, period=period)
            if left is not None and left < need:
                until_s = None if span is None else span.ends_s
                return replace(self.ledger.purses.refuse(account, precedence), until_s=until_s)
            spent = {each: cost.billed if is_bytes else cost.nano for each, cost in by.items()}
            share = share_left(self.terms.budget, cap, spent, precedence, self._elapsed())
            if share.units is not None and share.units < need:
                until_s = None
                if span is not None:
                    part = 1.0 if share.until is None else share.until
                    until_s = span.starts_s + int(part * (span.ends_s - span.starts_s))
                return Refusal(share.reason, self.name, precedence, unit, share.units, cap.units_max, until_s)
        return None

    def left_bytes(self, precedence: Precedence) -> int | None:
        """Return how many billed bytes a precedence may still use now, by cap, share and pace; None: no cap."""
        left = self.ledger.left(self.name, precedence, period=self.period())
        by = {each: cost.billed for each, cost in self.ledger.by_precedence(self.name).items()}
        share = share_left(self.terms.budget, self.terms.bytes_cap, by, precedence, self._elapsed()).units
        return left if share is None or left is None else min(left, share)

    def view(self, link: LinkView, precedence: Precedence) -> LinkView:
        """Return a link's view with what its tariff says: price, steps, and when it is free."""
        tariff, now = self.terms.tariff, self._wall_s()
        free_s = None
        if tariff.free and now is not None and not self.is_free():
            free_at = next_free(tariff, int(now), self._offset)
            free_s = None if free_at is None else free_at - now
        price = self.price() or self.terms.dearest
        is_stepped = tariff.step is BillingStep.SESSION and tariff.step_bytes >= _STEP_WORTH_BYTES
        is_cold = not self._session.carried or self._monotonic() - self._session.last_s > tariff.session_idle_s
        return replace(
            link,
            price=float(self.marginal_nano(precedence)),
            cheaper_s=free_s,
            opens_session=not self.is_free() and is_cold and (is_stepped or price.session_nano > 0),
            # A session is worth what its own price would carry, too.
            step_bytes=max(tariff.step_bytes, tariff.least_bytes, price.session_nano // max(1, price.byte_nano)),
            paid_bytes=self.paid_bytes(),
        )


def open_budgets(
    terms: Iterable[Terms], ledger: Ledger, clock: Clock, place: Callable[[], Place]
) -> dict[str, LinkBudget]:
    """Return the budget of each link, by its name."""
    return {
        each.tariff.link: LinkBudget(each, ledger, wall_s=clock.wall_s, monotonic=clock.monotonic, place=place)
        for each in terms
    }


def caps_of(terms: Iterable[Terms]) -> dict[str, Cap]:
    """Return the caps of the links' accounts, as the ledger takes them."""
    caps: dict[str, Cap] = {}
    for each in terms:
        bytes_account, money_account = accounts_of(each.tariff.link)
        caps[bytes_account] = each.bytes_cap
        if each.money_cap is not None:
            caps[money_account] = each.money_cap
    return caps


def apply_terms(budgets: Mapping[str, LinkBudget], ledger: Ledger, terms: Iterable[Terms]) -> None:
    """Put other terms in force for all links, or raise `UnknownZoneError` and change none."""
    wanted = list(terms)
    for each in wanted:
        offset_of(each.tariff.zone)
    for each in wanted:
        budgets[each.tariff.link].set_terms(each)
    ledger.set_caps(caps_of(wanted), {each.tariff.link: each.rule for each in wanted})
