"""Two states of one truck that both live: a clone, or a disk image that was put back. It is told as an alarm.

A truck that begins a new epoch still sends what waited under the older ones, so two epochs that take turns are nothing
bad. But nothing is recorded under an older epoch after a newer one began: if it was, somebody else is that truck too.
A number that comes with another content says the same. The alarm is an entry of the audit log, once a day and truck.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from store.fleet import audit
from store.fleet.alarms import AlarmNote
from store.fleet.evidence import BatchPart, EpochState, EventPart, IngestItem
from store.fleet.fleet import FleetStore

log = structlog.get_logger("gateway.forks")

CLONE_RULE = "clone.forked"
_TRUCKS_MAX = 50_000
# Clocks of two boards differ, and an epoch counts here from its first parcel.
_MARGIN_MS = 3_600_000
_AGAIN_MS = 86_400_000


@dataclass(slots=True)
class _Seen:
    newest: EpochState
    told_ms: int | None = None


class Forks:
    """Watches the epochs of all trucks as their parcels come in; what it has seen is in memory only."""

    def __init__(self, fleet: FleetStore, *, now_ms: Callable[[], int]) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    async def watch(self, state: EpochState, items: Iterable[IngestItem], taken: Iterable[IngestItem]) -> None:
        """Look at what was committed of one epoch, and at what was not because its numbers were taken."""
        seen = self._seen.get(state.truck)
        if seen is None:
            seen = self._seen[state.truck] = _Seen(state)
            if len(self._seen) > _TRUCKS_MAX:
                self._seen.popitem(last=False)
        if state.started_ms > seen.newest.started_ms:
            seen.newest = state
        is_other = state.epoch != seen.newest.epoch
        since_ms = seen.newest.started_ms + _MARGIN_MS
        if any(True for _ in taken):
            await self._tell(seen, state, "numbers of this epoch came with other contents")
        elif is_other and any(_recorded_ms(item) > since_ms for item in items):
            await self._tell(seen, state, "it goes on although a newer epoch began")

    async def _tell(self, seen: _Seen, state: EpochState, why: str) -> None:
        now_ms = self._now_ms()
        if seen.told_ms is not None and 0 <= now_ms - seen.told_ms < _AGAIN_MS:
            return
        seen.told_ms = now_ms
        log.error("truck.forked", truck=state.truck, epoch=f"{state.epoch:016x}", why=why)
        detail: dict[str, str | int | None] = {
            "epoch": f"{state.epoch:016x}",
            "newest": f"{seen.newest.epoch:016x}",
            "why": why,
            "advice": "an old disk image was put back, or two computers are this truck: revoke it if one is not yours",
        }
        await self._fleet.audit(audit.note(audit.GATEWAY_ACTOR, "truck.forked", state.truck, now_ms, detail))
        text = f"two states of this truck are alive: {why}"
        step = f"an old image was put back, or a clone: if one is not yours, digitruck revoke {state.truck}"
        note = AlarmNote(CLONE_RULE, state.truck, "", "critical", text, step)
        await self._fleet.settle_alarms(CLONE_RULE, [note], now_ms, truck=state.truck)
        await self._fleet.forget_report(state.truck)


def _recorded_ms(item: IngestItem) -> int:
    """Return when a parcel's content was recorded, 0 if its time is not wall time."""
    part = item.part
    if isinstance(part, EventPart):
        return part.time_ms if part.boot is None else 0
    return (part.last_ms or 0) if isinstance(part, BatchPart) and part.boot is None else 0
