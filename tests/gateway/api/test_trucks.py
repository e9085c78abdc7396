"""Trucks are listed in pages, shown with what they hold, and revoked for good."""

from __future__ import annotations

from tests.gateway.api.conftest import Gateway, World
from tests.gateway.fleets import NOW_MS, add_truck


async def test_pages_follow_each_other_by_next_and_by_link(gateway: Gateway) -> None:
    names = [f"truck-{n}" for n in range(5)]
    for name in names:
        await add_truck(gateway.fleet, name)
    found, path, pages = [], "/v1/trucks?limit=2", 0
    while path:
        answer = await gateway.get(path)
        found += [each["truck"] for each in answer.json["items"]]
        link = answer.headers.get("Link", "")
        assert ('rel="next"' in link) == (answer.json["next"] is not None)
        path = link.partition(">")[0].removeprefix("<")
        pages += 1
    assert (found, pages) == (names, 3)


async def test_a_group_is_listed_alone(gateway: Gateway) -> None:
    await add_truck(gateway.fleet, "ke-arrow", "kenya")
    await add_truck(gateway.fleet, "tz-arrow", "tanzania")
    answer = await gateway.get("/v1/trucks?group=tanzania")
    assert [each["truck"] for each in answer.json["items"]] == ["tz-arrow"]
    assert answer.json["next"] is None


async def test_a_truck_is_shown_with_what_it_holds(world: World) -> None:
    await world.gateway.fleet.set_status("ke-arrow", '{"queue":{"normal":3}}', NOW_MS)
    shown = (await world.gateway.get("/v1/trucks/ke-arrow")).json
    assert shown["status"] == {"queue": {"normal": 3}}
    assert shown["signing_key"] == world.truck.key.public.hex()
    held = {each["document"]: each for each in shown["holdings"]}
    assert (held["config"]["outcome"], held["config"]["digest"]) == ("applied", world.config.hex())
    assert (held["manifest"]["outcome"], held["manifest"]["reason"]) == ("held", "battery low")


async def test_up_to_date_needs_a_desired_state(world: World) -> None:
    assert (await world.gateway.get("/v1/trucks/ke-arrow")).json["up_to_date"] is None
    await world.gateway.fleet.set_desired("ke-arrow", b"d" * 32, b"signed", NOW_MS)
    assert (await world.gateway.get("/v1/trucks/ke-arrow")).json["up_to_date"] is False


async def test_a_revoked_truck_stays_listed_and_is_revoked_once(world: World) -> None:
    for _ in range(2):
        answer = await world.gateway.ask("DELETE", "/v1/trucks/ke-arrow")
        assert (answer.status, answer.json["revoked_ms"]) == (200, NOW_MS)
    (listed,) = (await world.gateway.get("/v1/trucks")).json["items"]
    assert listed["revoked_ms"] == NOW_MS
    log = await world.gateway.log()
    assert [each.action for each in log].count("truck.revoked") == 1


async def test_nobody_is_not_found(gateway: Gateway) -> None:
    for path in ("", "/samples", "/events", "/receipts", "/coverage", "/ledger", "/budget", "/config"):
        assert (await gateway.get(f"/v1/trucks/nobody{path}")).status == 404, path
    assert (await gateway.ask("DELETE", "/v1/trucks/nobody")).status == 404
