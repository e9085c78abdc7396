"""Alarms are listed, and somebody says that they were seen."""

from __future__ import annotations

from gateway.api.auth import Role
from store.fleet.alarms import AlarmNote
from tests.gateway.api.conftest import World
from tests.gateway.fleets import NOW_MS


async def test_alarms_are_paged_by_truck_and_those_that_are_over_only_on_request(world: World) -> None:
    fleet = world.gateway.fleet
    notes = [AlarmNote(f"budget.{n}", "ke-arrow", "sat", "warning", f"{n} %", "look") for n in (50, 75, 90)]
    await fleet.settle_alarms("budget.", notes, NOW_MS, truck="ke-arrow")
    await fleet.settle_alarms("budget.", notes[:2], NOW_MS + 1, truck="ke-arrow")
    first = (await world.gateway.get("/v1/alarms?truck=ke-arrow&limit=1")).json
    rest = (await world.gateway.get(f"/v1/alarms?after={first['next']}")).json
    assert [each["rule"] for each in first["items"] + rest["items"]] == ["budget.75", "budget.50", "bill.drift"]
    assert len((await world.gateway.get("/v1/alarms?all=true")).json["items"]) == 4
    assert (await world.gateway.get("/v1/alarms?truck=tz-arrow")).json["items"] == []


async def test_an_alarm_is_seen_by_an_operator(world: World) -> None:
    (raised,) = await world.gateway.fleet.alarms()
    path = f"/v1/alarms/{raised.id}/acknowledge"
    assert (await world.gateway.ask("POST", path, role=Role.VIEWER)).status == 403
    seen = (await world.gateway.ask("POST", path, role=Role.OPERATOR)).json

    assert (seen["acknowledged_by"], seen["cleared_ms"]) == ("the-operator", None)
    assert (await world.gateway.ask("POST", "/v1/alarms/999/acknowledge")).status == 404
