"""Why something does not go over a link now: one small enum, with the figures that a person needs to believe it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from protocol.tariffs import Unit


class Reason(StrEnum):
    """What keeps a precedence off a link; the value is what scripts see in `--json`."""

    DOWN = "down"  # it does not answer; it is tried again later
    NO_BUDGET = "no-budget"  # nothing says that the link may be used
    SPENT = "spent"  # the cap is used up
    RESERVE = "reserve"  # what is left is flash's
    DOUBT = "doubt"  # what was spent before is not known
    SHARE = "share"  # its share, and what it may take of others', is used up
    PACE = "pace"  # it would spend ahead of an even pace
    HOURS = "hours"  # the link is not used at this time of the week
    ROAMING = "roaming"  # the link must not be used in this country
    NOT_BULK = "not-bulk"  # this link carries no content at all
    CHEAPER = "cheaper"  # a cheaper link works, or is worth waiting for
    CONTACT = "contact"  # a cheaper link is expected before the deadline
    FREE_WINDOW = "free-window"  # a free window opens before the deadline
    POWER = "power"  # the battery is low, or will be
    LESSONS = "lessons"  # lessons are on


@dataclass(frozen=True, slots=True)
class Refusal:
    """One precedence that does not go over one link now.

    `left` and `most` are in the unit (bytes, or billionths of the currency); `until_s` (Unix) is when that may change
    by itself, None when it is not known; `other` names a link that is waited for, or a channel.
    """

    reason: Reason
    link: str
    precedence: Precedence
    unit: Unit = Unit.BYTES
    left: int | None = None
    most: int | None = None
    until_s: int | None = None
    other: str = ""


class RefusedByBudgetError(BudgetExceededError):
    """A budget that refuses, with its reason."""

    def __init__(self, refusal: Refusal) -> None:
        left = "" if refusal.left is None else f", {refusal.left} {refusal.unit.name.lower()} left"
        super().__init__(f"{refusal.precedence.name.lower()} over {refusal.link}: {refusal.reason}{left}")
        self.refusal = refusal
