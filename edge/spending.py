"""What the links spend: every request is paid for before it leaves, and settled by what its sockets really carried.

A `Charge` is the account of one request. It reserves the worst case in the ledger (the request twice, since a gateway
that restarted answers the first with a challenge, and the largest answer it may get), collects every datagram that the
meter attributes to it, and settles. The charge of a request that nobody waits for any more stays open a while, since
its answer may still be on its way and would be paid for; what comes later than that, or unasked, is charged as it
comes. A datagram that no charge covers does not leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from edge.linkbudget import EXCHANGE_BYTES_MIN, LinkBudget
from protocol.billing import Cost
from protocol.budget import Spent
from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from protocol.refusals import RefusedByBudgetError
from store.coapmeter import Datagram, Direction
from store.ledger import RECEIVED, SENT, Reservation
from store.links import Links

# IP and UDP (IPv6: 48 B), CoAP header and token, OSCORE option, code, tag and payload marker, options, EDHOC message_3.
HEADERS_BYTES_MAX: Final = 170
_STRANGER = "stranger"
# Longer than any link holds a datagram back; the meter forgets whose it was at about the same time.
_LATE_S = 60.0
_LEDGER_S = 60.0


class Charge:
    """The account of one request on one link."""

    __slots__ = (
        "cause",
        "cost",
        "precedence",
        "received",
        "received_datagrams",
        "reservation",
        "sent",
        "sent_datagrams",
    )

    def __init__(self, precedence: Precedence, cause: str, reservation: Reservation | None) -> None:
        self.precedence = precedence
        self.cause = cause
        self.reservation = reservation
        self.sent = self.sent_datagrams = self.received = self.received_datagrams = 0
        self.cost = Cost()

    def covers(self, size: int) -> bool:
        """Return whether a datagram of `size` bytes may still leave under this charge."""
        return self.reservation is not None and self.sent + self.received + size <= self.reservation.bytes_max


class Spending:
    """One link's way to the ledger; its methods are what the link's meter calls."""

    def __init__(self, budget: LinkBudget) -> None:
        self.budget = budget
        self._link = budget.name
        self._ledger = budget.ledger
        self._late: dict[Charge, asyncio.TimerHandle] = {}

    def open(self, precedence: Precedence, cause: str, *, request_bytes: int, answer_bytes: int) -> Charge:
        """Reserve the worst case of a request with payloads of these sizes; raise `RefusedByBudgetError`."""
        worst = 2 * (request_bytes + HEADERS_BYTES_MAX) + answer_bytes + 2 * HEADERS_BYTES_MAX
        refusal = self.budget.refusal(precedence, worst)
        if refusal is not None:
            raise RefusedByBudgetError(refusal)
        return Charge(precedence, cause, self._reserve(precedence, cause, worst))

    def _reserve(self, precedence: Precedence, cause: str, worst: int) -> Reservation:
        cost = self.budget.worst(worst)
        return self._ledger.reserve(self._link, precedence, cause, worst, period=self.budget.period(), cost=cost)

    def settle(self, charge: Charge) -> None:
        """Book what a request took; its datagrams that come from now on are charged one by one."""
        reservation, charge.reservation = charge.reservation, None
        if reservation is not None:
            self._ledger.settle(
                reservation,
                sent_bytes=charge.sent,
                received_bytes=charge.received,
                sent_datagrams=charge.sent_datagrams,
                received_datagrams=charge.received_datagrams,
                cost=self.budget.settled(charge.cost),
            )

    def narrow(self, charge: Charge, bytes_max: int) -> None:
        """Book what a request took so far and keep no more than `bytes_max` for what may still come for it."""
        if charge.reservation is None:
            return
        self.settle(charge)
        charge.sent = charge.received = charge.sent_datagrams = charge.received_datagrams = 0
        charge.cost = Cost()
        with suppress(BudgetExceededError):  # what comes is charged as it comes then
            charge.reservation = self._reserve(charge.precedence, charge.cause, bytes_max)

    def abandon(self, charge: Charge) -> None:
        """Settle a request that got no answer in time, but only when none can come any more."""
        if charge.reservation is not None:
            self._late[charge] = asyncio.get_running_loop().call_later(_LATE_S, self._too_late, charge)

    def close(self) -> None:
        """Settle what still waits for late answers."""
        for charge, timer in self._late.items():
            timer.cancel()
            self.settle(charge)
        self._late.clear()

    def _too_late(self, charge: Charge) -> None:
        del self._late[charge]
        self.settle(charge)

    def affordable(self, precedence: Precedence, size: int = EXCHANGE_BYTES_MIN) -> bool:
        """Return whether the budget holds at least one more small exchange of this precedence."""
        return self.budget.refusal(precedence, size) is None

    def before_send(self, datagram: Datagram) -> None:
        """Refuse a datagram that nobody has paid for: it does not leave."""
        charge = datagram.account
        if not isinstance(charge, Charge) or not charge.covers(datagram.bytes_ip):
            raise BudgetExceededError(f"{datagram.bytes_ip} bytes over {self._link} are not reserved")

    def on_datagram(self, datagram: Datagram) -> None:
        """Count a datagram that left or came."""
        sent = datagram.direction is Direction.SENT
        charge, cost = datagram.account, self.budget.cost(datagram.bytes_ip)
        if isinstance(charge, Charge) and charge.reservation is not None:
            charge.cost += cost
            if sent:
                charge.sent += datagram.bytes_ip
                charge.sent_datagrams += 1
            else:
                charge.received += datagram.bytes_ip
                charge.received_datagrams += 1
            return
        self._ledger.charge(
            self._link,
            charge.precedence if isinstance(charge, Charge) else Precedence.NORMAL,
            charge.cause if isinstance(charge, Charge) else _STRANGER,
            SENT if sent else RECEIVED,
            datagram.bytes_ip,
            period=self.budget.period(),
            cost=self.budget.settled(cost),
        )


def doubted(budgets: Iterable[LinkBudget]) -> tuple[bool, int | None]:
    """Return whether what was spent is not known of some link, and since when it must be asked (Unix s).

    None: since the beginning of the calendar month (UTC), or the clock is not known yet.
    """
    some = [budget for budget in budgets if budget.ledger.in_doubt(budget.name)]
    spans = [(budget, span) for budget in some if (span := budget.span()) is not None]
    earlier = [span.starts_s for budget, span in spans if not budget.is_of_this_month(span)]
    return bool(some), min(earlier, default=None)


def take_account(
    budgets: Iterable[LinkBudget], told: Sequence[tuple[str, int, int]] | None, since_s: int | None = None
) -> bool:
    """Take the gateway's account for the links whose own is in doubt; return whether any was.

    `told` are link, bytes of flash, bytes of the others, counted from `since_s` (Unix; None: from the beginning of the
    calendar month, UTC); None: it was not asked. An eighth is added for what left here and was lost on the way, since
    the gateway never saw that. A billing period that began before is not covered: its link stays in doubt.
    """
    if told is None:
        return False
    spent = {link: Spent(flash + flash // 8, other + other // 8) for link, flash, other in told}
    taken = False
    for budget in budgets:
        span = budget.span()
        if span is None or not budget.ledger.in_doubt(budget.name):
            continue
        if budget.is_of_this_month(span) or (since_s is not None and since_s <= span.starts_s):
            budget.ledger.reconcile(budget.name, spent.get(budget.name, Spent()), period=span.number)
            taken = True
    return taken


class Unmetered:
    """For joining: it happens once, by a person, before there is a budget."""

    def open(self, precedence: Precedence, cause: str, *, request_bytes: int, answer_bytes: int) -> Charge:
        """Return a charge that nothing is booked on."""
        return Charge(precedence, cause, None)

    def settle(self, charge: Charge) -> None:
        """Book nothing."""

    def abandon(self, charge: Charge) -> None:
        """Book nothing."""

    def narrow(self, charge: Charge, bytes_max: int) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Have nothing to settle."""

    def affordable(self, precedence: Precedence, size: int = EXCHANGE_BYTES_MIN) -> bool:
        """Return True: there is no budget yet."""
        return True

    def before_send(self, datagram: Datagram) -> None:
        """Let everything through."""

    def on_datagram(self, datagram: Datagram) -> None:
        """Count nothing."""


async def write_ledger(store: Links) -> None:
    """Make what was booked durable now and then, until cancelled; raise when the database is not in its place."""
    while True:
        await asyncio.sleep(_LEDGER_S)
        store.ledger.flush()
        store.database.require_in_place()
