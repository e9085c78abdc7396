"""An alarm is raised once, keeps its age while it holds, and stays as history when it is over."""

from __future__ import annotations

from dataclasses import replace

from store.fleet.alarms import AlarmNote
from store.fleet.fleet import FleetStore

LOW = AlarmNote("budget.75", "ke-arrow", "sat", "warning", "75 % of the sat budget is used", "digitruck budget show")


async def test_an_alarm_that_still_holds_keeps_its_age_and_takes_new_words(fleet: FleetStore) -> None:
    (raised,) = await fleet.settle_alarms("budget.", [LOW], 1_000, truck="ke-arrow")
    assert await fleet.settle_alarms("budget.", [LOW], 2_000, truck="ke-arrow") == []
    assert await fleet.settle_alarms("budget.", [replace(LOW, text="80 %")], 3_000, truck="ke-arrow") == []
    (held,) = await fleet.alarms("ke-arrow")
    assert (held.id, held.since_ms, held.text, held.cleared_ms) == (raised.id, 1_000, "80 %", None)


async def test_what_is_not_said_again_is_over_and_comes_back_as_a_new_one(fleet: FleetStore) -> None:
    await fleet.settle_alarms("budget.", [LOW], 1_000, truck="ke-arrow")
    await fleet.settle_alarms("budget.", [], 2_000, truck="ke-arrow")
    assert await fleet.alarms() == []
    (again,) = await fleet.settle_alarms("budget.", [LOW], 3_000, truck="ke-arrow")
    newest, oldest = await fleet.alarms(with_cleared=True)
    assert (newest.id, newest.since_ms) == (again.id, 3_000)
    assert (oldest.since_ms, oldest.cleared_ms) == (1_000, 2_000)


async def test_other_rules_trucks_and_subjects_are_left_alone(fleet: FleetStore) -> None:
    bill = replace(LOW, rule="bill.drift")
    await fleet.settle_alarms("budget.", [LOW], 1_000, truck="ke-arrow")
    await fleet.settle_alarms("budget.", [replace(LOW, truck="tz-arrow")], 1_000, truck="tz-arrow")
    await fleet.settle_alarms("bill.", [bill, replace(bill, subject="lte")], 1_000, truck="ke-arrow")
    await fleet.settle_alarms("bill.", [], 2_000, truck="ke-arrow", subject="lte")
    await fleet.settle_alarms("budget.", [], 2_000, truck="tz-arrow")
    found = {(each.rule, each.truck, each.subject) for each in await fleet.alarms()}
    assert found == {("budget.75", "ke-arrow", "sat"), ("bill.drift", "ke-arrow", "sat")}


async def test_the_first_who_saw_it_stands_and_all_of_it_is_in_the_audit_log(fleet: FleetStore) -> None:
    (raised,) = await fleet.settle_alarms("budget.", [LOW], 1_000, truck="ke-arrow")
    seen = await fleet.acknowledge_alarm(raised.id, 2_000, actor="asha")
    assert seen is not None
    assert await fleet.acknowledge_alarm(raised.id, 3_000, actor="juma") == seen
    assert (seen.acknowledged_ms, seen.acknowledged_by) == (2_000, "asha")
    assert await fleet.acknowledge_alarm(raised.id + 1, 3_000, actor="juma") is None
    await fleet.settle_alarms("budget.", [], 4_000, truck="ke-arrow")
    log = [(each.action, each.actor) for each in await fleet.audit_log()]
    assert log == [("alarm.cleared", "gateway"), ("alarm.acknowledged", "asha"), ("alarm.raised", "gateway")]


async def test_alarms_are_told_in_the_feed_of_changes(fleet: FleetStore) -> None:
    await fleet.settle_alarms("budget.", [LOW], 1_000, truck="ke-arrow")
    async for change in fleet.changes.subscribe(after=0):
        if change.kind == "alarm":
            assert (change.truck, change.subject) == ("ke-arrow", "budget.75")
            return
