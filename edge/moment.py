"""What one more row costs now or later, as far as it says when an open batch should close.

A batch costs some 180 bytes besides its rows, so it waits to fill a datagram, until it is old. Over a link that costs
nothing it does not wait; nor where a step of a bill is paid for already and has room for it, which would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edge.choice import Carrier
from edge.linkbudget import LinkBudget

# Closing costs so much besides the rows: signature, parcel, packet and acknowledgement.
BATCH_BYTES: Final = 180
FREE_AGE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Moment:
    """`is_free`: a usable link costs nothing now. `paid_bytes` are left of a step that is paid for already."""

    is_free: bool = False
    paid_bytes: int = 0

    def closes(self, size_bytes: int, open_s: float, age_s: float) -> bool:
        """Return whether a batch should close: it has so many bytes, and is open for `open_s` of `age_s` at most."""
        costs_nothing = self.is_free or BATCH_BYTES + size_bytes <= self.paid_bytes
        return open_s >= (min(age_s, FREE_AGE_S) if costs_nothing else age_s)


def look(links: Iterable[Carrier], budgets: Mapping[str, LinkBudget]) -> Moment:
    """Return the moment."""
    usable = [link for link in links if link.usable]
    return Moment(
        is_free=any(not link.settings.metered or budgets[link.name].is_free() for link in usable),
        paid_bytes=max((budgets[link.name].paid_bytes() for link in usable), default=0),
    )
