"""What a rollout does next, from its terms and what its trucks have said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.staging import Step, next_step, stages_of
from protocol import cose
from protocol.documents import Addressee, Rollout
from protocol.numbers import DocumentKind, Outcome
from store.fleet.rollouts import RolloutMember

NOW_MS = 1_795_000_000_000
DIGEST = cose.digest(b"a rollout")
DAY_MS = 86_400_000


def rollout(**terms: object) -> Rollout:
    return Rollout(
        document=DocumentKind.ROLLOUT,
        version=1,
        issued_s=1,
        expires_s=1 << 33,
        addressee=Addressee(group="kenya"),
        bundle="maths",
        manifest=bytes(32),
        **terms,  # type: ignore[arg-type]
    )


def member(name: str, *, stage: int | None = None, outcome: Outcome | None = None, silent_ms: int = 0) -> RolloutMember:
    return RolloutMember(name, NOW_MS - silent_ms, stage, NOW_MS if stage else None, outcome, "", None, False)


def fleet(number: int, **said: object) -> list[RolloutMember]:
    return [member(f"t{index:02}", **said) for index in range(number)]  # type: ignore[arg-type]


def step(terms: Rollout, stage: int, members: list[RolloutMember]) -> Step:
    return next_step(terms, DIGEST, stage, members, NOW_MS)


def test_shares_grow_and_end_with_everybody() -> None:
    assert stages_of(rollout()) == (100,)
    assert stages_of(rollout(stages=(10, 50))) == (10, 50, 100)
    assert stages_of(rollout(stages=(50, 10, 50, 60))) == (50, 60, 100)


def test_without_stages_everybody_gets_it_and_whoever_joins_too() -> None:
    first = step(rollout(), 0, fleet(3))
    assert (first.stage, first.opens, sorted(first.names)) == (1, True, ["t00", "t01", "t02"])
    assert step(rollout(), 0, []).opens, "before the first truck has joined"
    late = step(rollout(), 1, [*fleet(2, stage=1), member("late")])
    assert (late.names, late.opens) == (("late",), False)


def test_a_stage_has_its_share_of_the_trucks_rounded_up() -> None:
    assert len(step(rollout(stages=(10,)), 0, fleet(10)).names) == 1
    assert len(step(rollout(stages=(10,)), 0, fleet(11)).names) == 2
    assert len(step(rollout(stages=(1,)), 0, fleet(3)).names) == 1


def test_who_comes_first_follows_from_the_digest_and_is_heard() -> None:
    names = step(rollout(stages=(20,)), 0, fleet(10)).names
    assert names == step(rollout(stages=(20,)), 0, list(reversed(fleet(10)))).names
    other = next_step(rollout(stages=(20,)), cose.digest(b"another"), 0, fleet(10), NOW_MS).names
    assert other != names
    dark = [replace(each, last_heard_ms=NOW_MS - 9 * DAY_MS) if each.truck in names else each for each in fleet(10)]
    assert not set(step(rollout(stages=(20,)), 0, dark).names) & set(names)


def test_the_next_stage_waits_for_every_truck_that_can_be_reached() -> None:
    terms = rollout(stages=(50,))
    open_one = [member("a", stage=1, outcome=Outcome.APPLIED), member("b", stage=1), member("c"), member("d")]
    assert step(terms, 1, open_one).reason == "stage 2 of 2 begins when b reported"
    held = [replace(open_one[1], outcome=Outcome.HELD)]
    assert step(terms, 1, [open_one[0], *held, *open_one[2:]]).names == ()
    done = [replace(open_one[1], outcome=Outcome.REJECTED)]
    assert set(step(terms, 1, [open_one[0], *done, *open_one[2:]]).names) == {"c", "d"}


def test_dark_trucks_hold_nobody_up_but_a_stage_of_dark_trucks_tells_nothing() -> None:
    terms = rollout(stages=(50,), dark_after_s=3_600)
    dark = member("b", stage=1, silent_ms=2 * 3_600_000)
    told = [member("a", stage=1, outcome=Outcome.APPLIED), dark, member("c"), member("d")]
    assert step(terms, 1, told).opens
    silent = [replace(dark, truck="a"), dark, member("c"), member("d")]
    assert "all of them are dark" in step(terms, 1, silent).reason


@pytest.mark.parametrize(("failures", "halts"), [(0, False), (1, False), (2, True), (3, True)])
def test_it_halts_at_its_share_of_failures(failures: int, halts: bool) -> None:
    terms = rollout(stages=(50,), stop_at_percent=20)
    members = [
        member(f"t{index}", stage=1, outcome=Outcome.ROLLED_BACK if index < failures else Outcome.APPLIED)
        for index in range(10)
    ]
    assert bool(step(terms, 1, [*members, *(member(f"later{n}") for n in range(10))]).halt) is halts


def test_dark_trucks_do_not_hide_that_the_others_failed() -> None:
    terms = rollout(stages=(50,), stop_at_percent=50)
    dark = [member(f"dark{number}", stage=1, silent_ms=9 * DAY_MS) for number in range(8)]
    failed = [member(f"t{number}", stage=1, outcome=Outcome.REJECTED) for number in range(2)]
    assert step(terms, 1, [*dark, *failed]).halt == "2 of 2 trucks failed (100 %; it stops at 50 %)"


def test_taking_away_waits_for_nobody_who_has_nothing() -> None:
    terms = replace_manifest(rollout(stages=(50,)))
    members = [member("a", stage=1), member("b", stage=1), member("c"), member("d")]
    assert step(terms, 1, members).opens
    assert not step(terms, 1, [replace(members[0], holds=True), *members[1:]]).opens


def replace_manifest(terms: Rollout) -> Rollout:
    return Rollout(
        document=terms.document,
        version=terms.version,
        issued_s=terms.issued_s,
        expires_s=terms.expires_s,
        addressee=terms.addressee,
        bundle=terms.bundle,
        stages=terms.stages,
    )
