"""Two living states of one truck raise an alarm; a truck that merely began anew does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import structlog

from gateway.forks import Forks
from protocol.numbers import Precedence
from store.fleet.evidence import BatchPart, EpochState, EventPart, IngestItem, Part, TombstonePart
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import NOW_MS

HOUR_MS = 3_600_000
OLD, NEW = (EpochState("ke-arrow", number, 1, (), NOW_MS + at, NOW_MS + at) for number, at in ((1, 0), (2, HOUR_MS)))


def item(state: EpochState, part: Part) -> IngestItem:
    return IngestItem("ke-arrow", "sat", state.epoch, 5, Precedence.NORMAL, bytes(80), NOW_MS, part)


class Clock:
    now_ms = NOW_MS


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def forks(fleet: FleetStore, clock: Clock) -> Forks:
    return Forks(fleet, now_ms=lambda: clock.now_ms)


async def alarms(fleet: FleetStore) -> list[dict[str, str]]:
    return [json.loads(each.detail_json) for each in await fleet.audit_log() if each.action == "truck.forked"]


LATER = NOW_MS + 3 * HOUR_MS
HARMLESS = [
    EventPart("door", NOW_MS - HOUR_MS),
    EventPart("door", NOW_MS + HOUR_MS),
    EventPart("door", LATER, boot=7),
    BatchPart(1, None, None, NOW_MS - HOUR_MS, NOW_MS, 5),
    BatchPart(1, None, 7, 0, LATER, 5),
    BatchPart(1, None),
    TombstonePart(1, ((1, 1),), "evicted", 0),
]


@pytest.mark.parametrize("part", HARMLESS, ids=repr)
async def test_what_waited_when_a_new_epoch_began_is_no_alarm(fleet: FleetStore, forks: Forks, part: Part) -> None:
    for state in (OLD, NEW, OLD, NEW):
        await forks.watch(state, [item(state, part)], [])
    assert await alarms(fleet) == []


@pytest.mark.parametrize("part", [EventPart("door", LATER), BatchPart(1, None, None, NOW_MS, LATER, 5)], ids=repr)
async def test_an_older_epoch_that_goes_on_is_an_alarm_once_a_day(
    fleet: FleetStore, forks: Forks, clock: Clock, part: Part
) -> None:
    await forks.watch(OLD, [item(OLD, part)], [])
    assert await alarms(fleet) == [], "there is no other yet"
    await forks.watch(NEW, [item(NEW, part)], [])
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await forks.watch(OLD, [item(OLD, part)], [])
            await forks.watch(NEW, [item(NEW, part)], [])
    (alarm,) = await alarms(fleet)
    assert (alarm["epoch"], alarm["newest"]) == (f"{1:016x}", f"{2:016x}")
    assert [each["event"] for each in logs] == ["truck.forked"]
    clock.now_ms += 86_400_000
    await forks.watch(OLD, [item(OLD, part)], [])
    assert len(await alarms(fleet)) == 2


async def test_a_number_that_was_taken_is_an_alarm_in_any_epoch(fleet: FleetStore, forks: Forks) -> None:
    await forks.watch(NEW, [], [item(NEW, EventPart("door", NOW_MS))])
    (alarm,) = await alarms(fleet)
    assert "other contents" in alarm["why"]


async def test_trucks_do_not_share_their_epochs(fleet: FleetStore, forks: Forks) -> None:
    other = replace(NEW, truck="zm-patel")
    await forks.watch(OLD, [item(OLD, EventPart("door", LATER))], [])
    await forks.watch(other, [item(other, EventPart("door", LATER))], [])
    await forks.watch(OLD, [item(OLD, EventPart("door", LATER))], [])
    assert await alarms(fleet) == []
