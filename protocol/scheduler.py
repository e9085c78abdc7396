"""Which link may carry what now: the cheapest that is usable, a dearer one only for what cannot wait.

One table of decisions, no state. Budgets say how much may be spent (`protocol.budget`); this says on which link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.numbers import Precedence


@dataclass(frozen=True, slots=True)
class LinkView:
    """A link as the decision sees it.

    `price` is money per byte in any one unit; `usable` is False while the link is down or its budget is used up;
    `unusable_s` is for how long that has been so; `bulk` says whether content may use it at all.
    """

    name: str
    price: float
    usable: bool
    unusable_s: float = 0.0
    bulk: bool = True


def may_carry(link: LinkView, links: Sequence[LinkView], precedence: Precedence, *, patience_s: float) -> bool:
    """Return whether `link`, one of `links`, should carry traffic of this precedence now.

    | the links that are cheaper than this one | flash, priority | normal               | bulk             |
    |------------------------------------------|-----------------|----------------------|------------------|
    | there are none                           | yes             | yes                  | if it may        |
    | at least one is usable                   | no              | no                   | no               |
    | all have been unusable for a while       | yes             | from `patience_s` on | then, if it may  |
    """
    if not link.usable or (precedence is Precedence.BULK and not link.bulk):
        return False
    cheaper = [each for each in links if each.price < link.price]
    if not cheaper or precedence <= Precedence.PRIORITY:
        return not any(each.usable for each in cheaper)
    if any(each.usable for each in cheaper):
        return False
    waited_s = min(each.unusable_s for each in cheaper)
    return waited_s >= patience_s
