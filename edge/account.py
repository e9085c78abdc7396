"""The truck's own account, told to the gateway now and then: what it has counted on each link since its ledger began.

One signed event of some 200 bytes, every four weeks as a rule (8 bytes a day): totals that only ever grow, so that a
report that is lost costs nothing but its date. The gateway holds it against what it saw: the difference of two reports
says what was lost on the way up and down, and what a bill should be.

The keys are LINK.N with a precedence's number and `u` or `d` (bytes that left and that came, headers included), LINK.b
(billed bytes) and LINK.m (thousandths of the link's currency). What is 0 is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from edge.clock import Clock
from edge.config import EdgeConfig
from edge.spending import write_ledger
from protocol.billing import NANO_IN_MILLI
from protocol.numbers import ACCOUNT_EVENT, ACCOUNT_VALUES_MAX, Precedence
from store.accounts import CAUSE_CARRIED, CAUSE_CRASH, CAUSE_RECOVERED, CostTotal, Total
from store.ledger import SENT, Ledger
from store.links import Links

# When the account was last told (Unix s), big-endian.
_TOLD: Final = "account.told"
_DAY_S: Final = 86_400
# What was counted to be on the safe side was never carried.
_NEVER_CARRIED: Final = frozenset({CAUSE_CRASH, CAUSE_RECOVERED, CAUSE_CARRIED})

_LOOK_S: Final = 600.0


class Tells(Protocol):
    """What `edge.recorder.Recorder` does: events, and small things that are kept with them."""

    async def event(
        self,
        name: str,
        precedence: Precedence,
        values: tuple[tuple[str, int | bool | str], ...] = (),
        time_s: float | None = None,
        *,
        mark: tuple[str, bytes] | None = None,
    ) -> int:
        """Take one event, and `mark` with it."""

    async def remember(self, name: str, value: bytes) -> None:
        """Keep a value."""

    async def remembered(self, name: str) -> bytes | None:
        """Return a value that was kept."""


class AccountReport:
    """Tells the account when it is time."""

    def __init__(self, ledger: Ledger, recorder: Tells, *, every_days: int, wall_s: Callable[[], float | None]) -> None:
        """`every_days` 0: never. `wall_s` is None while the clock is not known; then nothing is told."""
        self._ledger = ledger
        self._recorder = recorder
        self._every_s = every_days * _DAY_S
        self._wall_s = wall_s
        self._told_s: int | None = None

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.tell_if_due()

    async def tell_if_due(self) -> bool:
        """Tell the account if it was not told for long; return whether it was told now."""
        now_s = self._wall_s()
        if now_s is None or not self._every_s:
            return False
        if self._told_s is None:
            told = await self._recorder.remembered(_TOLD)
            if told is None:
                # A truck that just joined has nothing to tell yet.
                await self._recorder.remember(_TOLD, int(now_s).to_bytes(8, "big"))
                self._told_s = int(now_s)
                return False
            self._told_s = int.from_bytes(told, "big")
        # A clock that went back a long way does not silence it for ever.
        if abs(now_s - self._told_s) < self._every_s:
            return False
        values = account_values(self._ledger.totals(), self._ledger.costs())
        if not values:
            return False
        # That it was told is stored with the event: a power cut neither loses nor doubles it.
        mark = (_TOLD, int(now_s).to_bytes(8, "big"))
        await self._recorder.event(ACCOUNT_EVENT, Precedence.NORMAL, values, mark=mark)
        self._told_s = int(now_s)
        return True


async def keep_account(store: Links, recorder: Tells, clock: Clock, config: EdgeConfig) -> None:
    """Make what was booked durable, and tell it when it is time, until cancelled; raise what ends either."""
    report = AccountReport(store.ledger, recorder, every_days=config.account_days, wall_s=clock.wall_s)
    async with asyncio.TaskGroup() as group:
        group.create_task(write_ledger(store), name="ledger-written")
        group.create_task(report.run(), name="ledger-told")


def account_values(totals: Iterable[Total], costs: Iterable[CostTotal]) -> tuple[tuple[str, int], ...]:
    """Return the values of the event: of more than fit the largest."""
    sums: dict[str, int] = {}
    for total in totals:
        if total.cause not in _NEVER_CARRIED:
            key = f"{total.link}.{int(total.precedence)}{'u' if total.direction == SENT else 'd'}"
            sums[key] = sums.get(key, 0) + total.bytes_ip
    nano: dict[str, int] = {}
    for each in costs:
        if each.cause not in _NEVER_CARRIED:
            sums[f"{each.link}.b"] = sums.get(f"{each.link}.b", 0) + each.cost.billed
            nano[each.link] = nano.get(each.link, 0) + each.cost.nano
    sums.update({f"{link}.m": -(-count // NANO_IN_MILLI) for link, count in nano.items()})
    kept = sorted((each for each in sums.items() if each[1] > 0), key=lambda item: -item[1])[:ACCOUNT_VALUES_MAX]
    return tuple(sorted(kept))
