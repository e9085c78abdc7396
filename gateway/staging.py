"""What a rollout does next: open a stage, release to late joiners, halt, or wait. Pure.

A stage goes on when every truck that it was released to has reported or is dark, and at least one of the stage has
reported: dark trucks hold nobody up, and get it when they are heard. Which trucks come first follows from the digest
of the rollout, so that nobody chooses them; those that are heard come before dark ones, or a stage would tell nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.documents import Rollout
from protocol.numbers import Outcome
from store.fleet.rollouts import RolloutMember

_FAILED = (Outcome.REJECTED, Outcome.ROLLED_BACK)
_SETTLED = (Outcome.APPLIED, *_FAILED)


@dataclass(frozen=True, slots=True)
class Step:
    """The next step.

    `halt` is why it must stop; else the trucks in `names` are released to, in `stage`, which `opens` with them or is
    open already. `reason` says what it waits for then.
    """

    stage: int
    names: tuple[str, ...] = ()
    opens: bool = False
    reason: str = ""
    halt: str = ""


def stages_of(rollout: Rollout) -> tuple[int, ...]:
    """Return the share (percent) of the trucks that each stage reaches, ascending; the last is 100."""
    shares: list[int] = []
    for each in rollout.stages:
        if each > max(shares, default=0):
            shares.append(each)
    return (*shares, 100)


def is_dark(member: RolloutMember, rollout: Rollout, now_ms: int) -> bool:
    """Return whether a truck was not heard for so long that nobody waits for it."""
    return member.last_heard_ms is None or now_ms - member.last_heard_ms > rollout.dark_after_s * 1000


def is_settled(member: RolloutMember, rollout: Rollout) -> bool:
    """Return whether the truck has said what became of it; where a bundle is taken away, having none is enough."""
    return member.outcome in _SETTLED or (rollout.manifest is None and not member.holds)


def next_step(rollout: Rollout, digest: bytes, stage: int, members: Sequence[RolloutMember], now_ms: int) -> Step:
    """Return what a running rollout with `stage` open does next."""
    shares = stages_of(rollout)
    released = [each for each in members if each.stage is not None]
    pending = [each for each in members if each.stage is None]
    halt = _halt(rollout, released, now_ms)
    if halt:
        return Step(stage, halt=halt)
    if stage >= len(shares):
        # Whoever joins after the last stage began is late and gets the newest at once.
        return Step(stage, tuple(each.truck for each in pending))
    if stage > 0:
        waits = _waits(rollout, stage, len(shares), released, now_ms)
        if waits:
            return Step(stage, reason=waits)
    if not members and len(shares) > 1:
        return Step(stage, reason="no truck is meant by it yet")
    wanted = -(-shares[stage] * len(members) // 100) - len(released)
    order = sorted(pending, key=lambda each: (is_dark(each, rollout, now_ms), _place(digest, each.truck)))
    return Step(stage + 1, tuple(each.truck for each in order[: max(0, wanted)]), opens=True)


def _place(digest: bytes, truck: str) -> bytes:
    return hashlib.sha256(digest + truck.encode()).digest()


def _halt(rollout: Rollout, released: Sequence[RolloutMember], now_ms: int) -> str:
    failed = sum(each.outcome in _FAILED for each in released)
    if rollout.stop_at_percent is None or not failed:
        return ""
    # Dark trucks tell nothing: a stage of ten with eight of them must not hide that the other two failed.
    telling = sum(is_settled(each, rollout) or not is_dark(each, rollout, now_ms) for each in released)
    if failed * 100 < rollout.stop_at_percent * telling:
        return ""
    share = round(100 * failed / telling)
    return f"{failed} of {telling} trucks failed ({share} %; it stops at {rollout.stop_at_percent} %)"


def _waits(rollout: Rollout, stage: int, stages: int, released: Sequence[RolloutMember], now_ms: int) -> str:
    """Return what the next stage waits for, "" for nothing."""
    open_still = [
        each.truck for each in released if not is_settled(each, rollout) and not is_dark(each, rollout, now_ms)
    ]
    of_stage = [each for each in released if each.stage == stage]
    begins = f"stage {stage + 1} of {stages} begins when"
    if open_still:
        named = ", ".join(open_still[:3]) + (f" and {len(open_still) - 3} more" if len(open_still) > 3 else "")
        return f"{begins} {named} reported"
    if of_stage and not any(is_settled(each, rollout) for each in of_stage):
        return f"{begins} a truck of stage {stage} reported; all of them are dark"
    return ""
