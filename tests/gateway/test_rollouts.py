"""Which rollout each truck hears of, and how rollouts go on, on a real store and with real signatures."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.documents import Documents
from protocol.documents import Addressee, Desired, parse_document
from protocol.errors import RollbackError
from protocol.numbers import DocumentKind, Outcome, Precedence
from protocol.trust import TrustedSet
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, LedgerEntry
from store.fleet.rollouts import RolloutState
from tests.gateway.coapside import Clock
from tests.gateway.fleets import NOW_S, Signers, Truck, add_truck

BY = Signers()
KENYA = Addressee(group="kenya")
TEN = [f"t{number}" for number in range(10)]


class Fleet:
    """Ten trucks, two editions of a bundle, and the gateway's documents."""

    def __init__(self, documents: Documents, store: FleetStore, clock: Clock) -> None:
        self.documents, self.store, self.clock = documents, store, clock
        self.trucks: dict[str, Truck] = {}
        self.editions: list[bytes] = []

    @property
    def rollouts(self) -> Any:
        return self.documents.rollouts

    async def roll_out(self, edition: int | None, version: int, **terms: Any) -> bytes:
        manifest = None if edition is None else self.editions[edition]
        signed = BY.rollout(manifest, version=version, to=terms.pop("to", KENYA), **terms)
        return (await self.documents.accept(signed, "asha")).digest

    async def told(self) -> dict[str, int | None]:
        """Return by truck the version of the rollout that its desired state names."""
        found: dict[str, int | None] = {}
        for name in self.trucks:
            record = await self.store.desired(name)
            entries = () if record is None else parse_document(record.signed, Desired)[0].entries
            named = [each.version for each in entries if each.document is DocumentKind.ROLLOUT]
            found[name] = named[0] if named else None
        return found

    async def told_of(self, version: int) -> list[str]:
        return [name for name, named in (await self.told()).items() if named == version]

    async def say(self, name: str, edition: int, outcome: Outcome = Outcome.APPLIED) -> None:
        await self.trucks[name].receipt(DocumentKind.MANIFEST, self.editions[edition], outcome, "maths")


@pytest.fixture
async def ten(fleet: FleetStore, clock: Clock) -> Fleet:
    """Ten trucks that have the first edition by rollout 1."""
    documents = Documents(fleet, lambda _: BY.gateway, now_ms=clock.now_ms)
    await documents.load()
    await documents.accept(BY.root_document(), "ada")
    await documents.accept(BY.delegation(), "ada")
    made = Fleet(documents, fleet, clock)
    for version in (1, 2, 3):
        signed = BY.manifest({"a.html": b"a" * version}, version=version)
        made.editions.append((await documents.accept(signed, "library")).digest)
    for name in TEN:
        made.trucks[name] = await add_truck(fleet, name)
        await fleet.heard(name, "lte", clock.now_ms())
    await made.roll_out(0, 1)
    for name in TEN:
        await made.say(name, 0)
    return made


async def test_stages_open_one_after_the_other(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(10, 50), stop_at_percent=20)
    seen = []
    for _ in range(3):
        told = await ten.told_of(2)
        seen.append(len(told))
        for name in told:
            await ten.say(name, 1)
        await ten.rollouts.advance(digest)
    assert seen == [1, 5, 10]
    opened = [each for each in await ten.store.audit_log() if each.action == "rollout.stage"]
    assert len(opened) == 2


async def test_a_bad_bundle_halts_at_the_first_stage_and_the_others_never_hear_of_it(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(20,), stop_at_percent=20)
    first = await ten.told_of(2)
    await ten.say(first[0], 1, Outcome.ROLLED_BACK)
    await ten.rollouts.advance(digest)
    state = await ten.store.rollout(digest)
    assert state is not None
    assert (state.state, state.changed_by) == (RolloutState.HALTED, "gateway")
    assert state.reason == "1 of 2 trucks failed (50 %; it stops at 20 %)"
    (alarm,) = await ten.store.alarms()
    assert (alarm.rule, alarm.cleared_ms) == ("rollout.halted", None)
    told = await ten.told()
    assert told.pop(first[0]) == 2, "it has said what became of it"
    assert told.pop(first[1]) is None, "the other one is not told to go on, nor of what it would refuse"
    assert set(told.values()) == {1}


async def test_a_halted_one_is_resumed_by_a_person(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(20,), stop_at_percent=60)
    first = await ten.told_of(2)
    for name in first:
        await ten.say(name, 1, Outcome.REJECTED)
    await ten.rollouts.advance(digest)
    assert await ten.rollouts.set_state(digest, RolloutState.RUNNING, "asha", "")
    state = await ten.store.rollout(digest)
    assert state is not None
    assert state.state is RolloutState.HALTED, "what halted it still does"


async def test_paused_it_is_withheld_from_whoever_has_not_finished_it(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(20,))
    done, under_way = await ten.told_of(2)
    await ten.say(done, 1)
    assert await ten.rollouts.set_state(digest, RolloutState.PAUSED, "asha", "")
    assert not await ten.rollouts.set_state(digest, RolloutState.PAUSED, "asha", "")
    told = await ten.told()
    assert (told[done], told[under_way]) == (2, None)
    await ten.say(under_way, 1)
    await ten.rollouts.advance(digest)
    assert len(await ten.told_of(2)) == 1
    assert await ten.rollouts.set_state(digest, RolloutState.RUNNING, "asha", "")
    assert len(await ten.told_of(2)) == 10


async def test_aborted_it_goes_on_to_nobody_and_a_newer_one_takes_it_back(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(20,))
    first = await ten.told_of(2)
    await ten.say(first[0], 1)
    assert await ten.rollouts.set_state(digest, RolloutState.ABORTED, "asha", "")
    assert await ten.told_of(2) == [first[0]]
    assert len(await ten.told_of(1)) == 8
    assert await ten.store.alarms() == []
    assert not await ten.rollouts.set_state(digest, RolloutState.RUNNING, "asha", "")
    await ten.roll_out(0, 3)
    assert len(await ten.told_of(3)) == 10


async def test_a_truck_that_joins_gets_the_newest_and_skips_what_is_superseded(ten: Fleet) -> None:
    await ten.roll_out(1, 2)
    ten.trucks["new"] = await add_truck(ten.store, "new")
    record = await ten.store.truck("new")
    assert record is not None
    await ten.documents.refresh(record)
    assert (await ten.told())["new"] == 2


async def test_a_truck_that_joins_amid_stages_waits_for_its_own_and_pays_for_one_version(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(20,), stop_at_percent=50)
    ten.trucks["new"] = await add_truck(ten.store, "new")
    record = await ten.store.truck("new")
    assert record is not None
    await ten.documents.refresh(record)
    assert (await ten.told())["new"] is None
    for name in await ten.told_of(2):
        await ten.say(name, 1, Outcome.REJECTED)
    await ten.rollouts.advance(digest)
    await ten.documents.refresh(record)
    assert (await ten.told())["new"] == 1, "the newest is halted: it gets what works"


async def test_what_is_superseded_before_it_reached_a_truck_is_skipped(ten: Fleet) -> None:
    await ten.roll_out(1, 2, stages=(50,))
    half = await ten.told_of(2)
    digest = await ten.roll_out(2, 3, stages=(10,))
    told = await ten.told()
    (first,) = await ten.told_of(3)
    assert {told[name] for name in half if name != first} == {None}, "they were not to pay for both"
    assert {told[name] for name in TEN if name not in half and name != first} == {1}
    await ten.say(first, 2)
    await ten.rollouts.advance(digest)
    assert len(await ten.told_of(3)) == 10


async def test_dark_trucks_follow_when_the_others_have_it(ten: Fleet) -> None:
    for name in TEN[:4]:
        await ten.store.heard(name, "sat", ten.clock.now_ms() - 9 * 86_400_000)
    digest = await ten.roll_out(1, 2, stages=(60,))
    first = await ten.told_of(2)
    assert not set(first) & set(TEN[:4])
    for name in first:
        await ten.say(name, 1)
    await ten.rollouts.advance(digest)
    assert len(await ten.told_of(2)) == 10, "the word waits for them"


async def test_one_truck_by_name_is_not_waited_for_by_its_group(ten: Fleet) -> None:
    await ten.roll_out(0, 5, to=Addressee(tuple(TEN[:5])))
    digest = await ten.roll_out(1, 2, stages=(50,))
    first = await ten.told_of(2)
    assert len(first) == 3
    for name in first:
        await ten.say(name, 1)
    await ten.rollouts.advance(digest)
    assert sorted(await ten.told_of(2)) == TEN[5:]


async def test_it_halts_when_it_costs_more_than_was_accepted(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(20,), cost_milli_max=10_000)
    (first, _) = await ten.told_of(2)

    async def spend(milli: int) -> None:
        entry = LedgerEntry(
            truck=first,
            link="sat",
            precedence=Precedence.BULK,
            cause="content",
            direction=Direction.DOWN,
            at_ms=ten.clock.now_ms(),
            bytes=1_000,
            datagrams=1,
            money_nano=milli * 1_000_000,
            currency="USD",
        )
        await ten.store.ledger_add([entry])
        await ten.rollouts.advance(digest)

    await spend(10_000)
    state = await ten.store.rollout(digest)
    assert state is not None
    assert state.state is RolloutState.RUNNING
    await spend(1)
    state = await ten.store.rollout(digest)
    assert state is not None
    assert (state.state, state.reason) == (RolloutState.HALTED, "10.00 USD were spent, 10.00 were accepted")


async def test_another_process_goes_on_where_this_one_stopped(ten: Fleet) -> None:
    digest = await ten.roll_out(1, 2, stages=(20,))
    for name in await ten.told_of(2):
        await ten.say(name, 1)
    other = Documents(ten.store, lambda _: BY.gateway, now_ms=ten.clock.now_ms)
    await other.load()
    await other.rollouts.advance(digest)
    await ten.rollouts.advance(digest)
    assert len(await ten.told_of(2)) == 10
    assert len([each for each in await ten.store.audit_log() if each.action == "rollout.stage"]) == 1


async def test_no_gateway_can_give_a_truck_an_older_one_again(ten: Fleet) -> None:
    trust = TrustedSet(BY.root_document(), truck="t0", group="kenya")
    trust.accept_delegation(BY.delegation(), NOW_S)
    trust.accept_rollout(BY.rollout(ten.editions[1], version=2, to=KENYA, stages=(10,)), NOW_S)
    with pytest.raises(RollbackError):
        trust.accept_rollout(BY.rollout(ten.editions[0], version=1, to=KENYA), NOW_S)
