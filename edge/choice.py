"""Which link carries what now: links that are up, budgets, habits, battery and timetable, put to one table.

`protocol.scheduler.decide` decides; this gathers what it asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from edge.clock import Clock
from edge.config import LinkSettings
from edge.habits import Habits
from edge.linkbudget import EXCHANGE_BYTES_MIN, LinkBudget
from edge.purses import Purses
from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal
from protocol.scheduler import LinkView, Work, decide


class Carrier(Protocol):
    """A link, as far as the choice is concerned."""

    name: str
    settings: LinkSettings
    usable: bool
    down_since: float
    rests_until: float

    @property
    def resting(self) -> bool:
        """Whether the link failed so lately that it is not worth trying."""

    def affordable(self, precedence: Precedence) -> bool:
        """Return whether the budget holds at least one more exchange of this precedence."""


class Choice:
    """Asks the table for every link and piece of work."""

    def __init__(
        self,
        links: Iterable[Carrier],
        budgets: Mapping[str, LinkBudget],
        clock: Clock,
        habits: Habits,
        *,
        patience_s: float,
    ) -> None:
        """`patience_s` is how long normal waits for a cheaper link."""
        self.patience_s = patience_s
        self.purses = Purses(clock.monotonic)
        self._links = tuple(links)
        self._budgets = budgets
        self._clock = clock
        self._habits = habits

    def why(self, link: Carrier, work: Work, *, deadline_s: int | None = None) -> Refusal | None:
        """Return None when this link should carry this work now, else why not; instants in Unix seconds."""
        wall_s = self._clock.wall_s()
        if deadline_s is not None and wall_s is not None:
            work = replace(work, deadline_s=max(0.0, deadline_s - wall_s))
        precedence = work.precedence
        if link.resting:
            return self._down(link, precedence)
        urgent = precedence <= Precedence.PRIORITY
        views = [self._view(each, precedence, trying=each is link or not urgent) for each in self._links]
        mine = next(view for view in views if view.name == link.name)
        if urgent and not link.usable and any(view.usable for view in views if view is not mine):
            return self._down(link, precedence)
        refusal = decide(mine, views, work, patience_s=self.patience_s, conditions=self._habits.conditions())
        if refusal is None or refusal is mine.refusal:
            return refusal
        until_s = None if refusal.until_s is None or wall_s is None else int(wall_s) + refusal.until_s
        return replace(refusal, until_s=until_s)

    def _view(self, link: Carrier, precedence: Precedence, *, trying: bool) -> LinkView:
        """Return a link as the table sees it. `trying`: one that is worth a try counts as usable.

        What can wait goes to a link that may be up again first; what cannot, only to one that is up.
        """
        now = self._clock.monotonic()
        since, refusal = None, None
        if link.resting or not (link.usable or trying):
            since, refusal = link.down_since, self._down(link, precedence)
        spent_since = self.purses.spent_since(link, precedence)
        if spent_since is not None:
            since = spent_since if since is None else min(since, spent_since)
            # If the budget holds a small exchange after all, what refused the last one still says why.
            spent = self._budgets[link.name].refusal(precedence, EXCHANGE_BYTES_MIN)
            refusal = refusal or spent or self.purses.why(link, precedence)
        view = LinkView(
            link.name,
            0.0,
            since is None,
            0.0 if since is None else now - since,
            link.settings.bulk,
            refusal,
            self._habits.contact_s(link.name) if since is not None else None,
        )
        return self._budgets[link.name].view(view, precedence)

    def _down(self, link: Carrier, precedence: Precedence) -> Refusal:
        now, rests_s = self._clock.wall_s(), link.rests_until - self._clock.monotonic()
        until_s = None if now is None or rests_s <= 0 else int(now + rests_s)
        return Refusal(Reason.DOWN, link.name, precedence, until_s=until_s)
