"""Bills are compared by whole spans, kept, and listed newest first."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.api.conftest import World
from tests.gateway.fleets import NOW_S

HOUR_S = NOW_S - NOW_S % 3_600


async def put(world: World, *lines: tuple[int, int, int], link: str = "sat", **fields: Any) -> Any:
    spans = [{"since_ms": since * 1000, "until_ms": until * 1000, "bytes": count} for since, until, count in lines]
    body = {"link": link, "lines": spans} | fields
    return await world.gateway.ask("POST", "/v1/trucks/ke-arrow/bills", json=body)


async def test_a_bill_is_compared_with_what_was_counted_of_its_link(world: World) -> None:
    answer = await put(world, (HOUR_S, HOUR_S + 3_600, 51_090), (HOUR_S - 3_600, HOUR_S, 0))
    assert answer.status == 201
    bill = answer.json
    assert (bill["billed_bytes"], bill["counted_bytes"], bill["drift_bytes"]) == (51_090, 1_090, 50_000)
    assert [each["counted_bytes"] for each in bill["lines"]] == [0, 1_090]
    (alarm,) = [each for each in await world.gateway.fleet.alarms("ke-arrow") if each.rule == "bill.drift"]
    assert "50000 bytes more" in alarm.text


async def test_what_a_provider_rounds_is_no_alarm(world: World) -> None:
    await put(world, (HOUR_S, HOUR_S + 3_600, 2_000))
    # The one that was there is over.
    assert await world.gateway.fleet.alarms("ke-arrow") == []


async def test_bills_are_listed_newest_first(world: World) -> None:
    for count in (1, 2, 3):
        await put(world, (HOUR_S, HOUR_S + 3_600, count))
    first = (await world.gateway.get("/v1/trucks/ke-arrow/bills?limit=2")).json
    rest = (await world.gateway.get(f"/v1/trucks/ke-arrow/bills?after={first['next']}")).json
    assert [each["billed_bytes"] for each in first["items"] + rest["items"]] == [3, 2, 1]


@pytest.mark.parametrize("lines", [[], [(5, 5, 1)], [(5, 4, 1)], [(0, 10**9, 1)], [(0, 10, -1)]])
async def test_spans_that_are_none_are_refused(world: World, lines: list[tuple[int, int, int]]) -> None:
    assert (await put(world, *lines)).status == 400
