"""Rollouts under way: stages that open, halts, and which rollout each truck should hear of now.

A rollout is signed by an operator, and nothing here could make one: all that a gateway does is to withhold it from a
truck, or not. What was decided is in the database before it takes effect, and each decision is made anew from what is
there, so that any process goes on where another one stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from gateway.staging import Step, is_settled, next_step, stages_of
from protocol.documents import Rollout, parse_document
from protocol.numbers import DocumentKind, Outcome
from store.fleet.alarms import AlarmNote
from store.fleet.audit import GATEWAY_ACTOR
from store.fleet.errors import UnknownRolloutError
from store.fleet.evidence import HOUR_MS
from store.fleet.fleet import FleetStore
from store.fleet.records import Change, DocumentRecord, HoldingRecord, TruckRecord
from store.fleet.rollouts import Candidate, RolloutMember, RolloutState, addressed, is_about

log = structlog.get_logger("gateway.rollouts")

# Whoever is dark becomes so while nothing happens; a stage lasts days.
_LOOK_AGAIN_S = 60.0
# What comes together is looked at together.
_REST_S = 1.0
_STEPS_MAX = 20
_WAKING = frozenset({"receipt", "truck", "document", "revoked", "rollout", "gap"})
_RULES = "rollout."
_LIVE = (RolloutState.RUNNING, RolloutState.PAUSED)

_BEFORE: dict[RolloutState, tuple[RolloutState, ...]] = {
    RolloutState.PAUSED: (RolloutState.RUNNING,),
    RolloutState.RUNNING: (RolloutState.PAUSED, RolloutState.HALTED),
    RolloutState.ABORTED: (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED),
    RolloutState.HALTED: (RolloutState.RUNNING,),
}


@dataclass(frozen=True, slots=True)
class Spent:
    """What content has cost a truck: bytes by link, and money (billionths) by currency where it is known."""

    bytes_by_link: dict[str, int]
    money_nano: dict[str, int]

    def milli(self, currency: str) -> int:
        """Return the money of a currency in thousandths, rounded up."""
        return -(-self.money_nano.get(currency, 0) // 1_000_000)


class Rollouts:
    """Brings every rollout on, as far as its own signed terms allow."""

    def __init__(
        self, fleet: FleetStore, *, now_ms: Callable[[], int], refresh: Callable[[Sequence[str]], Awaitable[None]]
    ) -> None:
        """`refresh(trucks)` has the desired states of these trucks follow."""
        self._fleet = fleet
        self._now_ms = now_ms
        self._refresh = refresh
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._read: dict[bytes, Rollout] = {}
        # Everybody has it and has said so: there is nothing to look at until somebody joins.
        self._finished: set[bytes] = set()

    async def run(self) -> None:
        """Look at every live rollout, again whenever something happened that may matter, until cancelled."""
        for digest, reason in await self._fleet.halted_rollouts():
            # A process that died between the halt and its alarm.
            await self._alarm(digest, await self._rollout(digest), reason)
        while True:
            self._wake.clear()
            for digest in await self._fleet.live_rollouts():
                if digest not in self._finished:
                    await self.advance(digest)
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._wake.wait()
                await asyncio.sleep(_REST_S)
            except TimeoutError:
                continue

    def changed(self, change: Change) -> None:
        """Hear of a change."""
        if change.kind in _WAKING:
            if change.kind != "receipt":
                self._finished.clear()
            self._wake.set()

    async def advance(self, digest: bytes) -> None:
        """Do what a rollout has to do now, and tell its trucks."""
        # Two looks at once could both open a stage; the database lets one of them, this spares the other its work.
        async with self._turn:
            for _ in range(_STEPS_MAX):
                if not await self._advance(digest):
                    return

    async def admit(self, truck: TruckRecord) -> None:
        """Let a truck that has just joined into the rollouts that have reached everybody."""
        candidates = await self._fleet.rollout_candidates(truck.name, truck.group)
        live = set(await self._fleet.live_rollouts()) if candidates else set()
        for each in candidates.values():
            for candidate in each:
                if not candidate.released and candidate.document.digest in live:
                    await self.advance(candidate.document.digest)

    async def set_state(self, digest: bytes, after: RolloutState, actor: str, reason: str) -> bool:
        """Pause, resume or abort a rollout; False if it is not in a state to be. Its trucks follow at once."""
        rollout = await self._rollout(digest)
        changed = await self._fleet.set_rollout_state(
            digest, before=_BEFORE[after], after=after, actor=actor, reason=reason, now_ms=self._now_ms()
        )
        if changed:
            await self._fleet.settle_alarms(
                _RULES, [], self._now_ms(), truck="", subject=digest.hex()[:12], actor=actor
            )
            members = await self._members(digest, rollout)
            await self._refresh([each.truck for each in members if each.stage is not None])
            if after is RolloutState.RUNNING:
                await self.advance(digest)
            self._wake.set()
        return changed

    async def counting(self, truck: TruckRecord) -> list[DocumentRecord]:
        """Return the rollouts that a truck should hear of now, at most one of each bundle, by bundle."""
        candidates = await self._fleet.rollout_candidates(truck.name, truck.group)
        if not candidates:
            return []
        held = await self._fleet.holdings(truck.name)
        chosen = [self.choose(each, held) for _, each in sorted(candidates.items())]
        return [each.document for each in chosen if each is not None]

    def choose(self, candidates: Sequence[Candidate], held: Sequence[HoldingRecord]) -> Candidate | None:
        """Return which of a bundle's rollouts counts for a truck.

        Where a newer one is on its way to it, the truck is not sent an older one that it has not finished: it would
        pay for both. What it has finished is named on, in whatever state it is. A truck that was told of a rollout
        never hears of an older one again: it would refuse that.
        """
        newer_comes = False
        for each in candidates:
            if not each.released:
                newer_comes = newer_comes or each.state in _LIVE
            elif (each.state is RolloutState.RUNNING and not newer_comes) or self._is_settled(each, held):
                return each
            else:
                return None
        return None

    def read(self, record: DocumentRecord) -> Rollout:
        """Return what a stored rollout says."""
        known = self._read.get(record.digest)
        if known is None:
            if len(self._read) > 4_096:
                self._read.clear()
            known = self._read[record.digest] = parse_document(record.signed, Rollout)[0]
        return known

    async def members(self, record: DocumentRecord) -> list[RolloutMember]:
        """Return the trucks that a rollout is for, as far as they are enrolled and not revoked."""
        return await self._members(record.digest, self.read(record))

    def _is_settled(self, candidate: Candidate, held: Sequence[HoldingRecord]) -> bool:
        record, rollout = candidate.document, self.read(candidate.document)
        of_bundle = [each for each in held if each.name in ("", rollout.bundle)]
        return any(
            each.outcome is not Outcome.HELD and is_about(each, record.digest, rollout.manifest, rollout.version)
            for each in of_bundle
            if each.document is not DocumentKind.DESIRED
        )

    async def _rollout(self, digest: bytes) -> Rollout:
        record = await self._fleet.document(digest)
        if record is None or record.kind is not DocumentKind.ROLLOUT:
            raise UnknownRolloutError(digest.hex())
        return self.read(record)

    async def _members(self, digest: bytes, rollout: Rollout) -> list[RolloutMember]:
        to = addressed(rollout.bundle, rollout.addressee.group, rollout.addressee.trucks)
        return await self._fleet.rollout_members(digest, rollout.bundle, rollout.manifest, rollout.version, to)

    async def _advance(self, digest: bytes) -> bool:
        """Do one step; return whether there may be another."""
        state = await self._fleet.rollout(digest)
        if state is None or state.state is not RolloutState.RUNNING:
            return False
        rollout = await self._rollout(digest)
        members = await self._members(digest, rollout)
        step = next_step(rollout, digest, state.stage, members, self._now_ms())
        halt = step.halt or await self._too_dear(rollout, members)
        if halt:
            await self._halt(digest, rollout, members, halt)
            return False
        if step.opens or step.names:
            return await self._release(digest, rollout, step)
        if step.reason != state.reason:
            await self._fleet.set_rollout_reason(digest, step.reason)
        if state.stage >= len(stages_of(rollout)) and all(is_settled(each, rollout) for each in members):
            self._finished.add(digest)
        return False

    async def _release(self, digest: bytes, rollout: Rollout, step: Step) -> bool:
        released = await self._fleet.release(
            digest, stage=step.stage, names=step.names, now_ms=self._now_ms(), reason=step.reason, opens=step.opens
        )
        if released:
            log.info("rollout.released", bundle=rollout.bundle, stage=step.stage, trucks=len(step.names))
            await self._refresh(step.names)
        return released

    async def _halt(self, digest: bytes, rollout: Rollout, members: Sequence[RolloutMember], reason: str) -> None:
        halted = await self._fleet.set_rollout_state(
            digest,
            before=_BEFORE[RolloutState.HALTED],
            after=RolloutState.HALTED,
            actor=GATEWAY_ACTOR,
            reason=reason,
            now_ms=self._now_ms(),
        )
        if halted:
            await self._alarm(digest, rollout, reason)
            log.error("rollout.halted", bundle=rollout.bundle, rollout=digest.hex(), reason=reason)
            await self._refresh([each.truck for each in members if each.stage is not None])

    async def _alarm(self, digest: bytes, rollout: Rollout, reason: str) -> None:
        note = AlarmNote(
            rule=f"{_RULES}halted",
            truck="",
            subject=digest.hex()[:12],
            severity="critical",
            text=f"the rollout of {rollout.bundle} halted: {reason}",
            next_step=f"digitruck rollout show {digest.hex()[:12]}, then rollout rollback or resume",
        )
        await self._fleet.settle_alarms(_RULES, [note], self._now_ms(), truck="", subject=note.subject)

    async def _too_dear(self, rollout: Rollout, members: Sequence[RolloutMember]) -> str:
        if rollout.cost_milli_max is None:
            return ""
        spent = 0
        for member in members:
            spent += (await self.spent(member)).milli(rollout.currency)
        if spent <= rollout.cost_milli_max:
            return ""
        of = f"{spent / 1000:.2f} {rollout.currency} were spent, {rollout.cost_milli_max / 1000:.2f}"
        return f"{of} were accepted"

    async def spent(self, member: RolloutMember) -> Spent:
        """Return what content has cost a truck from its release to its receipt, by the gateway's ledger.

        The ledger adds up by the hour, so another bundle in the same hours counts as well.
        """
        if member.released_ms is None:
            return Spent({}, {})
        until_ms = self._now_ms() if member.receipt_ms is None else member.receipt_ms
        sums = await self._fleet.ledger(member.truck, member.released_ms - member.released_ms % HOUR_MS, until_ms + 1)
        spent = Spent({}, {})
        for each in sums:
            if each.cause == "content":
                spent.bytes_by_link[each.link] = spent.bytes_by_link.get(each.link, 0) + each.bytes
                if each.money_nano is not None:
                    spent.money_nano[each.currency] = spent.money_nano.get(each.currency, 0) + each.money_nano
        return spent
