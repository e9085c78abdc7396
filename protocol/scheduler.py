"""Which link may carry what now: the cheapest that meets the deadline, a dearer one only for what cannot wait.

One table of decisions, no state and no clock. Caps, shares and pace say how much may be spent (`protocol.budget`,
`protocol.terms`) and have been asked before: a link that they keep this work off is not usable here. Every "no" is a
`Refusal`, which says why and what is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal

# Bulk without a deadline waits so long for a contact that usually comes: a depot visit is weekly.
BULK_HORIZON_S: Final = 7 * 86_400.0
# The same work over a link that is about to be up takes some time: a deadline is not met in its last minute.
_SLACK_S: Final = 1_800.0
# Less than this part of a step is not worth opening a session for, as long as it can wait.
_FULL_STEP: Final = 0.75
# The floor of those that are less urgent: one in so many uploads, once they waited so many times the patience.
_FLOOR_EVERY: Final = 8
_FLOOR_PATIENCES: Final = 8


@dataclass(frozen=True, slots=True)
class LinkView:
    """A link as the decision about one piece of work sees it.

    `price` is what one more byte costs now, in any one unit; `usable` is False while the link is down or a budget keeps
    the work off it, and `refusal` says which of both; `unusable_s` is for how long that has been so; `bulk` says
    whether content may use it at all.

    `contact_s` is in how many seconds a link that is down is usually up again, `cheaper_s` in how many one that is up
    costs nothing (a free window); None: not within a week. `opens_session`: the next datagram opens a session or step
    of `step_bytes` that is paid for as a whole; `paid_bytes` are left of one that is paid for already.
    """

    name: str
    price: float
    usable: bool
    unusable_s: float = 0.0
    bulk: bool = True
    refusal: Refusal | None = None
    contact_s: float | None = None
    cheaper_s: float | None = None
    opens_session: bool = False
    step_bytes: int = 0
    paid_bytes: int = 0

    @property
    def cost(self) -> float:
        """What one more byte really costs now: nothing in a step that is paid for."""
        return 0.0 if self.paid_bytes else self.price


@dataclass(frozen=True, slots=True)
class Work:
    """What wants to be carried: `deadline_s` seconds are left for it (None: no deadline), it waited `waited_s` so far.

    `waiting_bytes` is how much of it there is, and `needs_s` how long that takes, as far as is known.
    """

    precedence: Precedence
    deadline_s: float | None = None
    waited_s: float = 0.0
    waiting_bytes: int = 0
    needs_s: float = 0.0

    @property
    def slack_s(self) -> float | None:
        """How long it can wait and still be done in time; None without a deadline."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - 2 * self.needs_s - _SLACK_S)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the truck itself can afford: `lessons` are on; the battery is too low for bulk, or for normal as well.

    `lessons_left_s` is when they end.
    """

    lessons: bool = False
    lessons_left_s: float | None = None
    low_for_bulk: bool = False
    low_for_normal: bool = False
    channel: str = ""


FINE: Final = Conditions()


def decide(
    link: LinkView, links: Sequence[LinkView], work: Work, *, patience_s: float, conditions: Conditions = FINE
) -> Refusal | None:
    """Return None when `link`, one of `links`, should carry this work now, else why it should not.

    The first line that fits decides. Bulk whose deadline leaves no time to wait is pressing.

    | what holds                                   | flash, priority | normal     | bulk       | pressing  |
    |----------------------------------------------|-----------------|------------|------------|-----------|
    | the link is down, or its budget refuses      | no              | no         | no         | no        |
    | the link carries no content                  | -               | -          | no         | no        |
    | the battery is low for it                    | -               | no         | no         | as normal |
    | lessons are on                               | -               | -          | no         | -         |
    | a cheaper link is usable                     | no              | no         | no         | no        |
    | a step of this one is paid for already       | yes             | yes        | yes        | yes       |
    | this link is free soon enough                | -               | no         | no         | -         |
    | a cheaper one is usually up soon enough      | -               | no         | no         | -         |
    | it has waited, or they were away, for less   | -               | no         | no         | -         |
    |   than `patience_s`                          |                 |            |            |           |
    | it would open a session that it is not worth | -               | no         | no         | -         |
    | else                                         | yes             | yes        | yes        | yes       |

    "Soon enough" is before the deadline; without one, within its patience (normal) or a week (bulk). A session is
    worth it for three quarters of the step that it opens, or when patience ran out.
    """
    precedence, urgent = work.precedence, work.precedence <= Precedence.PRIORITY
    if not link.usable:
        return link.refusal or _refuse(Reason.DOWN, link, precedence)
    bulk = precedence is Precedence.BULK
    pressing = bulk and work.slack_s == 0
    if bulk and not link.bulk:
        return _refuse(Reason.NOT_BULK, link, precedence)
    if (bulk and not pressing and conditions.low_for_bulk) or (not urgent and conditions.low_for_normal):
        return _refuse(Reason.POWER, link, precedence, other=conditions.channel)
    if bulk and not pressing and conditions.lessons:
        return _refuse(Reason.LESSONS, link, precedence, in_s=conditions.lessons_left_s)
    cheaper = [each for each in links if each.cost < link.cost and (each.bulk or not bulk)]
    better = next((each for each in cheaper if each.usable), None)
    if better is not None:
        return _refuse(Reason.CHEAPER, link, precedence, other=better.name)
    if urgent or pressing or link.paid_bytes:
        return None
    horizon_s = _horizon_s(work, patience_s)
    if link.cost and link.cheaper_s is not None and 0 < link.cheaper_s <= horizon_s:
        return _refuse(Reason.FREE_WINDOW, link, precedence, in_s=link.cheaper_s)
    if cheaper:
        expected = min((each.contact_s for each in cheaper if each.contact_s is not None), default=None)
        if expected is not None and expected <= horizon_s:
            name = next(each.name for each in cheaper if each.contact_s == expected)
            return _refuse(Reason.CONTACT, link, precedence, other=name, in_s=expected)
        outage_s = min(each.unusable_s for each in cheaper)
        # A link that has been away for long is not waited for by everything that comes up meanwhile; one that flaps
        # is not waited for by what has waited long enough.
        waited_s = max(outage_s, work.waited_s)
        if waited_s < patience_s:
            return _refuse(Reason.CHEAPER, link, precedence, other=cheaper[0].name, in_s=patience_s - waited_s)
    if link.opens_session and work.waiting_bytes < _FULL_STEP * link.step_bytes and work.waited_s < patience_s:
        return _refuse(Reason.CHEAPER, link, precedence, in_s=patience_s - work.waited_s)
    return None


def may_carry(link: LinkView, links: Sequence[LinkView], precedence: Precedence, *, patience_s: float) -> bool:
    """Return whether `link`, one of `links`, should carry traffic of this precedence now, whatever it is."""
    return decide(link, links, Work(precedence), patience_s=patience_s) is None


def _horizon_s(work: Work, patience_s: float) -> float:
    if work.slack_s is not None:
        return work.slack_s
    return BULK_HORIZON_S if work.precedence is Precedence.BULK else max(0.0, patience_s - work.waited_s)


def _refuse(
    reason: Reason, link: LinkView, precedence: Precedence, *, other: str = "", in_s: float | None = None
) -> Refusal:
    # Seconds from now: the caller, who has a clock, makes an instant of it.
    return Refusal(reason, link.name, precedence, until_s=None if in_s is None else int(in_s), other=other)


def next_precedence(
    waiting: Sequence[tuple[Precedence, float]], *, uploads: int, patience_s: float
) -> Precedence | None:
    """Return which precedence a link should carry next, of those that it may: each with how long it waited (s).

    The most urgent, but every eighth upload is of a less urgent one that waited for more than eight patiences: else a
    flood of what is urgent would keep the rest waiting for ever. Flash gives way to nobody.
    """
    ordered = sorted(waiting)
    if not ordered:
        return None
    first = ordered[0][0]
    if first is not Precedence.FLASH and uploads % _FLOOR_EVERY == _FLOOR_EVERY - 1:
        starved = [precedence for precedence, waited_s in ordered if waited_s > _FLOOR_PATIENCES * patience_s]
        return starved[-1] if starved else first
    return first
