"""Events and receipts as the API shows them."""

from __future__ import annotations

from tests.gateway.api.conftest import World
from tests.gateway.fleets import EPOCH, NOW_MS


async def test_events_come_in_order_with_their_values(world: World) -> None:
    await world.truck.event("battery.low", NOW_MS + 1)
    answer = await world.gateway.get("/v1/trucks/ke-arrow/events")
    first, second = answer.json["items"]
    assert (first["name"], first["values"]) == ("door.opened", {"count": 2, "by": "teacher"})
    assert (first["epoch"], first["time_ms"], first["boot_ms"]) == (f"{EPOCH:016x}", NOW_MS, None)
    assert second["name"] == "battery.low"


async def test_events_are_paged_and_chosen_by_name_and_time(world: World) -> None:
    for n in range(3):
        await world.truck.event(f"tick.{n}", NOW_MS + 10_000 * (n + 1))
    page = (await world.gateway.get("/v1/trucks/ke-arrow/events?limit=3")).json
    rest = (await world.gateway.get(f"/v1/trucks/ke-arrow/events?limit=3&after={page['next']}")).json
    assert [each["name"] for each in rest["items"]] == ["tick.2"]
    assert rest["next"] is None
    named = (await world.gateway.get("/v1/trucks/ke-arrow/events?names=tick.0,tick.1")).json
    assert len(named["items"]) == 2
    since = (NOW_MS + 15_000) / 1000
    later = (await world.gateway.get(f"/v1/trucks/ke-arrow/events?since={since}")).json
    assert [each["name"] for each in later["items"]] == ["tick.1", "tick.2"]


async def test_a_time_since_boot_is_not_shown_as_a_date(world: World) -> None:
    await world.truck.event("early", 5_000, boot=3)
    (event,) = (await world.gateway.get("/v1/trucks/ke-arrow/events?names=early")).json["items"]
    assert (event["time_ms"], event["boot_ms"], event["repaired"]) == (None, 5_000, False)
    await world.gateway.fleet.set_clock("ke-arrow", 3, NOW_MS)
    (event,) = (await world.gateway.get("/v1/trucks/ke-arrow/events?names=early")).json["items"]
    assert (event["time_ms"], event["boot_ms"], event["repaired"]) == (NOW_MS + 5_000, None, True)


async def test_receipts_say_what_became_of_documents(world: World) -> None:
    config, manifest = (await world.gateway.get("/v1/trucks/ke-arrow/receipts")).json["items"]
    assert (config["document"], config["outcome"], config["digest"]) == ("config", "applied", world.config.hex())
    assert (manifest["document"], manifest["name"], manifest["outcome"]) == ("manifest", "maths", "held")
