"""What a download costs on a link, how long it takes and when the budget holds it: the arithmetic of a quote. Pure.

Sizes are those of SPEC.md's table of resources, for IPv4; a link where datagrams are longer (IPv6) adds to each. What a
truck pays for is what leaves it and what reaches it: a piece that is lost on the way down costs it another request, and
now and then a second copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.budgets import LinkBudget
from protocol.billing import NANO_IN_MILLI, Price, charged
from protocol.budget import Cap
from protocol.numbers import DOCUMENT_INLINE_BYTES_MAX, PIECE_BYTES, Precedence
from protocol.tariffs import BillingStep, Tariff
from protocol.terms import share_left

UP_BYTES: Final = 53
DOWN_BYTES: Final = 45
# The ordinal of a piece in its burst, and the gateway's own partial IV.
_PIECE_EXTRA: Final = 3
_BURST_BYTES, _PACK_REQUEST_BYTES, _OFFER_BYTES = 46, 80, 44
# A window begins with this many pieces and doubles; five bursts, of at most this many pieces, share it. The first
# requests leave twice while it is not known that none get lost (`protocol.transfer`).
_WINDOW_PIECES, _BURSTS_IN_WINDOW, _BURST_PIECES, _DOUBLED_REQUESTS = 8, 5, 16, 6
_NAMED_DOCUMENT_UP, _DESIRED_UP, _DESIRED_BYTES = 97, 60, 420
# Two receipts, each a signed parcel in an upload of its own, and their acknowledgements.
_RECEIPTS, _RECEIPT_BYTES, _ACK_BYTES = 2, 150, 8
# The last lost pieces are asked for twice, and some that were late come twice (`protocol.transfer`).
_TAIL_PIECES: Final = 32
# Of a link whose losses nobody measured.
_USUAL_LOSS: Final = 0.03
_PERIODS_MAX: Final = 36
_STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class Bearer:
    """What is known of a link: its losses (None: not known), bytes of longer headers, and how it is usually there.

    `best_hour_bytes` is the most content that it brought in an hour, None if it never brought any.
    """

    loss_up: float | None = None
    loss_down: float | None = None
    longer_bytes: int = 0
    best_hour_bytes: int | None = None
    contact_hours_a_day: float | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """Datagrams of a download as the truck pays for them: size -> how many, up and down."""

    up: Mapping[int, float]
    down: Mapping[int, float]

    @property
    def up_bytes(self) -> int:
        """Bytes that leave the truck."""
        return round(sum(size * count for size, count in self.up.items()))

    @property
    def down_bytes(self) -> int:
        """Bytes that reach it."""
        return round(sum(size * count for size, count in self.down.items()))

    @property
    def bytes(self) -> int:
        """Both ways together."""
        return self.up_bytes + self.down_bytes

    @property
    def datagrams(self) -> int:
        """Datagrams both ways."""
        return round(sum(self.up.values()) + sum(self.down.values()))


def wire_of(pack_bytes: int, manifest_bytes: int, rollout_bytes: int, bearer: Bearer) -> Wire:
    """Return what a rollout takes on a link: documents, the offer, the pack's pieces, and receipts."""
    up: dict[int, float] = {}
    down: dict[int, float] = {}
    loss_up = _USUAL_LOSS if bearer.loss_up is None else bearer.loss_up
    loss_down = _USUAL_LOSS if bearer.loss_down is None else bearer.loss_down

    def count(where: dict[int, float], size: int, times: float) -> None:
        where[size + bearer.longer_bytes] = where.get(size + bearer.longer_bytes, 0.0) + times

    def exchange(request: int, answer: int, times: float = 1.0) -> None:
        # Asked again until both ways were free of loss; what reaches the truck, it pays for once.
        count(up, request, times / ((1 - loss_up) * (1 - loss_down)))
        count(down, DOWN_BYTES + answer, times)

    def pieces(size: int) -> None:
        whole, last = divmod(size, PIECE_BYTES)
        number = whole + bool(last)
        if not number:
            return
        bursts = _bursts(number)
        if loss_up:
            bursts += min(bursts, _DOUBLED_REQUESTS)
        # What is lost is asked for again, some pieces at a time.
        again = number * loss_down / (1 - loss_down) / 2
        count(up, UP_BYTES + _BURST_BYTES, (bursts + again) / (1 - loss_up))
        count(down, DOWN_BYTES + _PIECE_EXTRA + PIECE_BYTES, whole + min(_TAIL_PIECES, number * loss_down))
        if last:
            count(down, DOWN_BYTES + _PIECE_EXTRA + last, 1)

    exchange(_DESIRED_UP, _DESIRED_BYTES)
    exchange(_NAMED_DOCUMENT_UP, rollout_bytes)
    if manifest_bytes > DOCUMENT_INLINE_BYTES_MAX:
        pieces(manifest_bytes)
    else:
        exchange(_NAMED_DOCUMENT_UP, manifest_bytes)
    if pack_bytes:
        exchange(UP_BYTES + _PACK_REQUEST_BYTES, _OFFER_BYTES)
        pieces(pack_bytes)
    exchange(UP_BYTES + _RECEIPT_BYTES, _ACK_BYTES, times=_RECEIPTS)
    return Wire(up, down)


def receipts_bytes() -> int:
    """Return what is left for the links when all of it comes on a stick: the receipts."""
    return _RECEIPTS * (UP_BYTES + _RECEIPT_BYTES + DOWN_BYTES + _ACK_BYTES)


def billed_of(tariff: Tariff, wire: Wire, sessions: int) -> int:
    """Return the billed bytes of a download that takes so many sessions."""
    match tariff.step:
        case BillingStep.BYTE:
            return wire.bytes
        case BillingStep.DATAGRAM:
            both = [*wire.up.items(), *wire.down.items()]
            return round(sum(_rounded(tariff, size) * times for size, times in both))
        case BillingStep.SESSION:
            return sessions * _rounded(tariff, -(-wire.bytes // sessions))


def money_milli(tariff: Tariff, billed: int, sessions: int, *, billed_before: int) -> int:
    """Return what billed bytes and sessions cost, less what the allowance still holds; thousandths, rounded up."""
    price = Price(tariff.price_per_mb_milli, tariff.session_milli * NANO_IN_MILLI)
    nano = charged(tariff, price, billed, billed_before) + sessions * price.session_nano
    return -(-nano // NANO_IN_MILLI)


def transfer_s(wire: Wire, bearer: Bearer) -> int | None:
    """Return how long the link takes while it is there, by the best hour it ever had; None if it had none."""
    if not bearer.best_hour_bytes:
        return None
    return -(-wire.down_bytes * 3_600 // bearer.best_hour_bytes)


def days_of_contact(wire: Wire, bearer: Bearer) -> float | None:
    """Return over how many days the link takes that long; None where nothing is known of it."""
    seconds = transfer_s(wire, bearer)
    if seconds is None or not bearer.contact_hours_a_day:
        return None
    return seconds / 3_600 / bearer.contact_hours_a_day


def days_of_budget(
    budget: LinkBudget, spent: Mapping[Precedence, int], billed: int, precedence: Precedence, now_ms: int
) -> float | None:
    """Return in how many days the budget lets so many billed bytes through, beside what the truck uses anyway.

    `spent` is the period so far by precedence; what is expected of its rest counts as normal. 0.0: at once. None: not
    within three years of periods.
    """
    plan = budget.plan
    cap = _cap_in_bytes(budget)
    if cap.units_max is None:
        return 0.0
    start_ms, length_ms = plan.start_ms, plan.end_ms - plan.start_ms
    usual = max(0, budget.expected_bytes - budget.used_bytes) / max(1, plan.end_ms - now_ms)
    left, done = billed, dict(spent)
    for _ in range(_PERIODS_MAX):
        room: int | None = 0
        first = max(0.0, (now_ms - start_ms) / length_ms)
        for step in range(_STEPS + 1):
            elapsed = first + (0.999 - first) * step / _STEPS
            others = int(usual * length_ms * max(0.0, elapsed - first))
            now_spent = done | {Precedence.NORMAL: done.get(Precedence.NORMAL, 0) + others}
            room = share_left(plan.terms.budget, cap, now_spent, precedence, elapsed).units
            if room is None or room >= left:
                return max(0.0, start_ms + elapsed * length_ms - now_ms) / 86_400_000
        left -= room or 0
        start_ms, done = start_ms + length_ms, {}
    return None


def _bursts(pieces: int) -> int:
    """Return how many requests bring so many pieces."""
    bursts, window = 0, _WINDOW_PIECES
    while pieces > 0:
        size = max(1, min(_BURST_PIECES, window // _BURSTS_IN_WINDOW))
        if size == _BURST_PIECES:
            return bursts + -(-pieces // size)
        bursts += -(-min(pieces, window) // size)
        pieces -= window
        window *= 2
    return bursts


def _cap_in_bytes(budget: LinkBudget) -> Cap:
    """Return the cap on billed bytes, or what the cap on money buys where that is less."""
    terms = budget.plan.terms
    cap = terms.rules.bytes_cap
    if terms.money_max_milli is None or not terms.tariff.price_per_mb_milli:
        return cap
    price, included = terms.tariff.price_per_mb_milli, terms.tariff.allowance_bytes
    bought = included + terms.money_max_milli * 1_000_000 // price
    kept = terms.reserve_milli * 1_000_000 // price
    if cap.units_max is not None and cap.units_max <= bought:
        return cap
    return Cap(bought, max(kept, cap.reserve_units))


def _rounded(tariff: Tariff, size: int) -> int:
    return max(tariff.least_bytes, -(-size // tariff.step_bytes) * tariff.step_bytes)
