"""How far each truck of a rollout is, and why it is not further: from its receipts, the stages, and the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from gateway.api.operations import Call
from gateway.api.shapes import Bytes, Millis, MoneyMilli, Shape
from gateway.fleetbudgets import budgets_of
from gateway.rollouts import Spent
from gateway.staging import is_dark, is_settled, stages_of
from protocol.documents import Rollout
from protocol.numbers import Outcome, Precedence
from store.fleet.records import DocumentRecord, TruckRecord
from store.fleet.rollouts import Candidate, RolloutMember, RolloutRecord, RolloutState

State = Literal[
    "done",
    "waiting",
    "staged",
    "paused",
    "halted",
    "aborted",
    "held",
    "rejected",
    "rolled-back",
    "superseded",
    "revoked",
    "unknown",
]
_OF_OUTCOME: dict[Outcome, State] = {
    Outcome.APPLIED: "done",
    Outcome.HELD: "held",
    Outcome.REJECTED: "rejected",
    Outcome.ROLLED_BACK: "rolled-back",
}
_DAY_MS, _HOUR_MS, _MINUTE_MS = 86_400_000, 3_600_000, 60_000


class ProgressShape(Shape, frozen=True):
    """One truck. `staged`: its stage has not begun; `waiting`: no receipt yet; `superseded`: another rollout counts.

    `reason` says why it is not further. `content_bytes` and the money are what content has cost it from its release to
    its receipt, by this gateway's ledger (whole hours); null money: no price is known.
    """

    truck: str
    state: State
    reason: str
    stage: int | None
    released_ms: Millis | None
    last_heard_ms: Millis | None
    receipt_ms: Millis | None
    content_bytes: Bytes
    money_milli: MoneyMilli | None
    currency: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """One rollout with its trucks, read once for a page of them."""

    call: Call
    record: DocumentRecord
    rollout: Rollout
    state: RolloutRecord
    members: Mapping[str, RolloutMember]

    @classmethod
    async def of(cls, call: Call, record: DocumentRecord) -> Self:
        """Read a rollout's state and trucks."""
        state = await call.api.fleet.rollout(record.digest)
        assert state is not None, "it was put in one transaction with its document"
        rollouts = call.api.services.rollouts
        members = {each.truck: each for each in await rollouts.members(record)}
        return cls(call, record, rollouts.read(record), state, members)

    async def counts(self) -> dict[str, int]:
        """Return how many of the trucks that it still counts for are in each state."""
        return dict(Counter(self._plain_state(each) for each in self.members.values()))

    async def shape(self, name: str) -> ProgressShape:
        """Return how far one truck is."""
        truck = await self.call.api.fleet.truck(name)
        member = self.members.get(name)
        state, reason = await self._told(truck, member)
        spent = Spent({}, {}) if member is None else await self.call.api.services.rollouts.spent(member)
        currency = min(spent.money_nano, default=None)
        return ProgressShape(
            truck=name,
            state=state,
            reason=reason,
            stage=None if member is None else member.stage,
            released_ms=None if member is None else member.released_ms,
            last_heard_ms=None if truck is None else truck.last_heard_ms,
            receipt_ms=None if member is None else member.receipt_ms,
            content_bytes=sum(spent.bytes_by_link.values()),
            money_milli=None if currency is None else spent.milli(currency),
            currency=currency,
        )

    def _plain_state(self, member: RolloutMember) -> State:
        if member.outcome is not None:
            return _OF_OUTCOME[member.outcome]
        if member.stage is not None and is_settled(member, self.rollout):
            return "done"
        if self.state.state is not RolloutState.RUNNING:
            stopped: State = self.state.state.value  # type: ignore[assignment]
            return stopped
        return "staged" if member.stage is None else "waiting"

    async def _told(self, truck: TruckRecord | None, member: RolloutMember | None) -> tuple[State, str]:
        if truck is None:
            return "unknown", "it has not joined"
        if truck.revoked_ms is not None:
            return "revoked", "it was revoked"
        newer = await self._superseded_by(truck)
        if newer is not None or member is None:
            return "superseded", "" if newer is None else f"{newer.document.digest.hex()[:12]} is for it now"
        state = self._plain_state(member)
        if state in ("paused", "halted", "aborted"):
            return state, self.state.reason
        if state == "staged":
            return state, self._staged()
        if state == "waiting":
            return state, await self._waits(truck, member)
        return state, member.reason

    async def _superseded_by(self, truck: TruckRecord) -> Candidate | None:
        """Return the rollout of this bundle that counts for a truck instead of this one."""
        candidates = await self.call.api.fleet.rollout_candidates(truck.name, truck.group)
        for each in candidates.get(self.rollout.bundle, []):
            if each.document.digest == self.record.digest:
                return None
            if each.released or each.state in (RolloutState.RUNNING, RolloutState.PAUSED):
                return each
        return None

    def _staged(self) -> str:
        stages = stages_of(self.rollout)
        where = f"stage {self.state.stage} of {len(stages)} is open"
        return f"{where}; {self.state.reason}" if self.state.reason else where

    async def _waits(self, truck: TruckRecord, member: RolloutMember) -> str:
        now_ms = self.call.api.services.now_ms()
        if truck.last_heard_ms is None:
            return "never heard"
        silent_ms = now_ms - truck.last_heard_ms
        if is_dark(member, self.rollout, now_ms):
            return f"not heard for {_long(silent_ms)}: it follows when it is heard"
        if truck.desired_reported != truck.desired_digest:
            return f"learns of it at its next contact; last heard {_long(silent_ms)} ago"
        spent = await self.call.api.services.rollouts.spent(member)
        if spent.bytes_by_link:
            moved = ", ".join(f"{_size(count)} over {link}" for link, count in sorted(spent.bytes_by_link.items()))
            return f"is fetching it: {moved} so far"
        return await self._waits_for_link(truck, now_ms)

    async def _waits_for_link(self, truck: TruckRecord, now_ms: int) -> str:
        """Say which link it waits for, as far as budgets and prices here tell; the truck decides."""
        budgets = (await budgets_of(self.call.api.fleet, [truck], now_ms))[truck.name]
        over = next((each for each in budgets if each.plan.link == truck.last_link), None)
        if over is not None and over.left_bytes is not None and over.left_bytes <= over.plan.terms.reserve_bytes:
            return f"the budget of {over.plan.link} is used up"
        urgent = Precedence(self.rollout.precedence_at(now_ms // 1000)) is not Precedence.BULK
        cheaper = [
            each.plan.link
            for each in budgets
            if over is not None
            and each.plan.terms.tariff.price_per_mb_milli < over.plan.terms.tariff.price_per_mb_milli
        ]
        if cheaper and not urgent:
            return f"waits for {' or '.join(cheaper)}: {truck.last_link}, where it was heard, is not accepted for bulk"
        return "knows of it; nothing fetched yet"


def _long(span_ms: int) -> str:
    for unit, length in (("days", _DAY_MS), ("h", _HOUR_MS)):
        if span_ms >= 2 * length:
            return f"{span_ms // length} {unit}"
    return f"{max(0, span_ms) // _MINUTE_MS} min"


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB" if count >= 1_000_000 else f"{count / 1000:.1f} kB"
