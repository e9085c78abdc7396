"""What the budget refuses now, by link and precedence: each may have a share of its own, and flash a reserve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from protocol.errors import BudgetExceededError
from protocol.numbers import Precedence
from protocol.refusals import Reason, Refusal, RefusedByBudgetError

# A request that was refused is not asked for over and over. What flies holds its worst case, and most of that comes
# back with its answer.
_PAUSE_S: Final = 60.0
_ANSWER_PAUSE_S: Final = 1.0


class Payer(Protocol):
    """A link, as far as its budget is concerned."""

    name: str

    def affordable(self, precedence: Precedence) -> bool:
        """Return whether the budget holds at least one more small exchange of this precedence."""


class Purses:
    """Remembers which purses are empty, and since when."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._empty_since: dict[tuple[str, Precedence], float] = {}
        self._pause_until: dict[tuple[str, Precedence], float] = {}
        self._why: dict[tuple[str, Precedence], Refusal] = {}

    def ask_again(self) -> None:
        """Ask the budget again for what it refused: it may hold more now."""
        self._pause_until.clear()

    def is_spent(self, link: Payer, precedence: Precedence) -> bool:
        """Return whether the budget keeps this precedence off a link now."""
        paused = self._monotonic() < self._pause_until.get(_purse(link, precedence), 0.0)
        return paused or not link.affordable(precedence)

    def spent_since(self, link: Payer, precedence: Precedence) -> float | None:
        """Return since when the budget keeps this precedence off a link, None when it does not."""
        if not self.is_spent(link, precedence):
            self._empty_since.pop(_purse(link, precedence), None)
            return None
        return self._empty_since.setdefault(_purse(link, precedence), self._monotonic())

    def why(self, link: Payer, precedence: Precedence) -> Refusal:
        """Return why the budget last refused a request of this precedence."""
        return self._why.get(_purse(link, precedence)) or Refusal(Reason.SPENT, link.name, precedence)

    def refused(self, link: Payer, precedence: Precedence, failure: BudgetExceededError, *, flying: bool) -> None:
        """Note that the budget refused a request; `flying`: others are on their way over this link."""
        if isinstance(failure, RefusedByBudgetError):
            self._why[_purse(link, precedence)] = failure.refusal
        pause_s = _ANSWER_PAUSE_S if flying else _PAUSE_S
        self._pause_until[_purse(link, precedence)] = self._monotonic() + pause_s


def _purse(link: Payer, precedence: Precedence) -> tuple[str, Precedence]:
    return link.name, precedence
