"""Refusals, tariffs and budgets in a person's words: `digitruck-edge status` and `linkcheck`.

One line a reason, with the figures that make it believable and when it will be otherwise, in the bill's local time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from edge.status import format_age, format_bytes
from protocol.billing import NANO_IN_MILLI
from protocol.refusals import Reason, Refusal
from protocol.tariffs import BillingPeriod, BillingStep, Tariff, Unit
from protocol.windows import write_windows
from store.zones import offset_of

_NANO: Final = 1_000_000_000
_SOON_S: Final = 7_200


def explain(refusal: Refusal, tariff: Tariff, now_s: float | None) -> str:
    """Return why a precedence waits, and for what; a link that is fine says nothing."""
    left = "" if refusal.left is None else format_amount(refusal.left, refusal.unit, tariff)
    most = "" if refusal.most is None else format_amount(refusal.most, refusal.unit, tariff)
    when = "" if refusal.until_s is None else format_when(refusal.until_s, tariff.zone, now_s)
    new_period = f"; new period {when}" if when else ""
    match refusal.reason:
        case Reason.DOWN:
            return "the link does not answer" + (f"; next try {when}" if when else "")
        case Reason.NO_BUDGET:
            return "no budget is stated for this link"
        case Reason.SPENT:
            spent = f"the budget of {most} is used up" if most else "the budget does not hold another exchange now"
            return spent + new_period
        case Reason.RESERVE:
            return f"{left} of {most} left are flash's reserve" + new_period
        case Reason.DOUBT:
            return (
                "what was spent in this period is not known until the gateway tells it; only flash may use the reserve"
            )
        case Reason.SHARE:
            return f"its share is used up, {left} of {most} are left for it; more {when or 'late in the period'}"
        case Reason.PACE:
            return f"it would be ahead of the budget's pace, {left} may go now; more {when or 'later'}"
        case Reason.HOURS:
            return f"the link is used {write_windows(tariff.hours)}; opens {when or 'later'}"
        case Reason.ROAMING:
            return "the link must not be used in this country"
        case Reason.NOT_BULK:
            return "this link carries no content: it waits for a cheaper link"
        case Reason.CHEAPER:
            waits = f"cheaper over {refusal.other}" if refusal.other else "it waits for more that shares a session"
            return waits + (f"; goes here {when}" if when else "")
        case Reason.CONTACT:
            return f"{refusal.other} is usually up {when or 'soon'} and costs less"
        case Reason.FREE_WINDOW:
            return f"the link is free {when or 'later'}"
        case Reason.POWER:
            return f"the battery is low, or will be ({refusal.other})"
        case Reason.LESSONS:
            return "lessons are on" + (f"; goes on {when}" if when else "")


def describe(tariff: Tariff) -> str:
    """Return a tariff in a few words: `5.50 USD/MB, 10 MB included, month from 15 (Africa/Nairobi)`."""
    parts = [f"{tariff.price_per_mb_milli / 1000:.2f} {tariff.currency}/MB" if tariff.price_per_mb_milli else "free"]
    if tariff.session_milli:
        parts.append(f"{tariff.session_milli / 1000:.2f} {tariff.currency} a session")
    if tariff.allowance_bytes:
        parts.append(f"{format_bytes(tariff.allowance_bytes)} included")
    if tariff.step is not BillingStep.BYTE:
        parts.append(f"by {format_bytes(tariff.step_bytes)} a {tariff.step.name.lower()}")
    if tariff.free:
        parts.append(f"free {write_windows(tariff.free)}")
    if tariff.roaming:
        parts.append("other prices abroad")
    if (tariff.period, tariff.billing_day) != (BillingPeriod.MONTH, 1):
        day = "" if tariff.period is BillingPeriod.DAY else f" from {tariff.billing_day}"
        parts.append(f"{tariff.period.name.lower()}{day} ({tariff.zone})")
    return ", ".join(parts)


def format_amount(units: int, unit: Unit, tariff: Tariff) -> str:
    """Return bytes, or money in the tariff's currency."""
    return format_bytes(units) if unit is Unit.BYTES else format_money(units, tariff.currency)


def format_money(nano: int, currency: str) -> str:
    """Return billionths of a currency to a thousandth, or to two digits where that says more."""
    value = nano / _NANO
    return f"{value:.2f} {currency}" if nano % (10 * NANO_IN_MILLI) == 0 or value >= 10 else f"{value:.4f} {currency}"


def format_when(at_s: int, zone: str, now_s: float | None) -> str:
    """Return an instant as people near the truck would say it: in 5 min, or on 15 Dec 00:00 Africa/Nairobi."""
    if now_s is not None and at_s - now_s < _SOON_S:
        return f"in {format_age(max(0.0, at_s - now_s))}"
    local = datetime.fromtimestamp(at_s + offset_of(zone)(at_s), UTC)
    return f"on {local.day} {local:%b %H:%M} {zone}"
