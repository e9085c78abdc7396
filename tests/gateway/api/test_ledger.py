"""Every byte is shown where it went, and what is left of the month."""

from __future__ import annotations

import pytest

from gateway.budgets import price_milli
from protocol.numbers import Precedence
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.api.conftest import World
from tests.gateway.fleets import NOW_MS, add_truck


async def test_lines_add_up_to_the_total(world: World) -> None:
    page = (await world.gateway.get("/v1/trucks/ke-arrow/ledger")).json
    assert page["total_bytes"] == 51_090 == sum(each["bytes"] for each in page["items"])
    up = next(each for each in page["items"] if each["direction"] == "up")
    assert (up["link"], up["precedence"], up["cause"], up["datagrams"]) == ("sat", "normal", "batch", 2)


async def test_lines_are_paged_and_the_total_stays_whole(world: World) -> None:
    first = (await world.gateway.get("/v1/ledger?limit=2")).json
    rest = (await world.gateway.get(f"/v1/ledger?limit=2&after={first['next']}")).json
    assert len(first["items"] + rest["items"]) == 3
    assert first["total_bytes"] == rest["total_bytes"] == 51_090
    assert rest["next"] is None


async def test_the_fleet_has_all_trucks_and_a_truck_only_itself(world: World) -> None:
    await add_truck(world.gateway.fleet, "tz-arrow", "tanzania")
    entry = LedgerEntry("tz-arrow", "sat", Precedence.FLASH, "event", Direction.UP, NOW_MS, 7, 1)
    await world.gateway.fleet.ledger_add([entry])
    assert (await world.gateway.get("/v1/ledger")).json["total_bytes"] == 51_097
    assert (await world.gateway.get("/v1/trucks/tz-arrow/ledger")).json["total_bytes"] == 7


async def test_a_period_and_a_source_are_chosen(world: World) -> None:
    until = NOW_MS // 1000 - 86_400
    assert (await world.gateway.get(f"/v1/ledger?since=0&until={until}")).json["items"] == []
    assert (await world.gateway.get("/v1/ledger?source=truck")).json["items"] == []
    stepped = (await world.gateway.get("/v1/ledger?step=3600")).json["items"]
    assert all(each["start_ms"] % 3_600_000 == 0 for each in stepped)


async def test_lines_are_told_apart_by_what_is_asked_for(world: World) -> None:
    by_link = (await world.gateway.get("/v1/ledger?by=link")).json
    assert [(each["link"], each["bytes"], each["datagrams"]) for each in by_link["items"]] == [
        ("lte", 50_000, 40),
        ("sat", 1_090, 4),
    ]
    assert {each[name] for each in by_link["items"] for name in ("truck", "cause", "direction")} == {None}
    assert by_link["total_bytes"] == 51_090
    (day,) = (await world.gateway.get("/v1/trucks/ke-arrow/ledger?by=day,truck")).json["items"][:1]
    assert day["start_ms"] % 86_400_000 == 0
    assert day["truck"] == "ke-arrow"


async def test_bytes_whose_price_nobody_knows_are_not_added_to_money(world: World) -> None:
    lines = (await world.gateway.get("/v1/ledger?by=truck")).json["items"]
    found = {each["currency"]: (each["bytes"], each["money_milli"]) for each in lines}
    assert found == {None: (50_000, None), "USD": (1_090, price_milli(1_090, 4_500_000))}


@pytest.mark.parametrize("query", ["by=cost", "by=link,", "by=day&step=3600", "by="])
async def test_a_column_that_is_none_is_refused(world: World, query: str) -> None:
    assert (await world.gateway.get(f"/v1/ledger?{query}")).status == 400


async def test_a_budget_is_the_configured_cap_less_what_was_used(world: World) -> None:
    budget = (await world.gateway.get("/v1/trucks/ke-arrow/budget")).json
    links = {each["link"]: each for each in budget["links"]}
    assert (links["sat"]["used_bytes"], links["sat"]["left_bytes"]) == (1_090, 5_000_000 - 1_090)
    assert links["sat"]["spent_milli"] == 4_905
    assert links["lte"]["bytes_max"] is None
    assert budget["month_start_ms"] <= NOW_MS < budget["month_end_ms"]


async def test_budgets_of_all_trucks_are_paged(world: World) -> None:
    await add_truck(world.gateway.fleet, "tz-arrow", "tanzania")
    first = (await world.gateway.get("/v1/budgets?limit=1")).json
    rest = (await world.gateway.get(f"/v1/budgets?limit=1&after={first['next']}")).json
    assert [each["truck"] for each in first["items"] + rest["items"]] == ["ke-arrow", "tz-arrow"]
    assert rest["items"][0]["links"] == []


async def test_money_is_what_was_reported_or_follows_the_signed_price_or_is_not_known(world: World) -> None:
    fleet = world.gateway.fleet
    paid = LedgerEntry(
        "ke-arrow", "sat", Precedence.FLASH, "event", Direction.UP, NOW_MS, 10, 1, None, 77_000_000, "EUR"
    )
    stranger = LedgerEntry("", "", Precedence.NORMAL, "stranger", Direction.UP, NOW_MS, 10, 1)
    await fleet.ledger_add([paid, stranger])
    lines = {
        (each["truck"], each["link"], each["precedence"], each["direction"]): (each["money_milli"], each["currency"])
        for each in (await world.gateway.get("/v1/ledger")).json["items"]
    }
    assert lines == {
        ("ke-arrow", "sat", "flash", "up"): (77, "EUR"),
        ("ke-arrow", "sat", "normal", "up"): (price_milli(1_000, 4_500_000), "USD"),
        ("ke-arrow", "sat", "normal", "down"): (price_milli(90, 4_500_000), "USD"),
        ("ke-arrow", "lte", "bulk", "down"): (None, None),
        ("", "", "normal", "up"): (None, None),
    }
