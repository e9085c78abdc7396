"""Samples in the shapes that programs and people read."""

from __future__ import annotations

import csv
import io

import pytest

from tests.gateway.api.conftest import World
from tests.gateway.fleets import NOW_S

PATH = "/v1/trucks/ke-arrow/samples"


async def test_json_is_series_with_senml_labels(world: World) -> None:
    answer = (await world.gateway.get(PATH)).json
    assert answer["series"] == [
        {"n": "bat_v", "u": "V", "t_ms": [(NOW_S - 120) * 1000, (NOW_S - 60) * 1000], "v": [26.0, 26.5]},
        {"n": "pv_w", "u": "W", "t_ms": [(NOW_S - 120) * 1000], "v": [5.0]},
    ]
    assert (answer["step_s"], answer["next"]) == (0, None)
    assert answer["until_ms"] - answer["since_ms"] == 86_400_000


async def test_csv_is_one_row_a_time(world: World) -> None:
    answer = await world.gateway.get(f"{PATH}?format=csv&channels=pv_w,bat_v")
    assert answer.media == "text/csv"
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert rows[0] == ["time", "bat_v", "pv_w"]
    assert [row[1:] for row in rows[1:]] == [["26.0", "5.0"], ["26.5", ""]]
    assert rows[1][0].endswith("Z")


async def test_pages_continue_in_json_and_csv(world: World) -> None:
    first = await world.gateway.get(f"{PATH}?limit=1")
    assert [each["v"] for each in first.json["series"]] == [[26.0], [5.0]]
    second = await world.gateway.get(f"{PATH}?limit=1&after={first.json['next']}")
    assert [each["v"] for each in second.json["series"]] == [[26.5]]
    assert second.json["next"] is None
    text = await world.gateway.get(f"{PATH}?limit=1&format=csv")
    following = text.headers["Link"].partition(">")[0].removeprefix("<")
    assert b"26.5" in (await world.gateway.get(following)).body


async def test_a_step_gives_means_and_extremes(world: World) -> None:
    answer = (await world.gateway.get(f"{PATH}?step=600&channels=bat_v")).json
    (battery,) = answer["series"]
    assert (battery["v"], battery["min"], battery["max"], battery["count"]) == ([26.25], [26.0], [26.5], [2])


async def test_times_may_be_unix_seconds_or_rfc_3339(world: World) -> None:
    by_number = await world.gateway.get(f"{PATH}?since={NOW_S - 90}&until={NOW_S}")
    assert by_number.json["series"][0]["v"] == [26.5]
    by_date = await world.gateway.get(f"{PATH}?since=2026-11-18T00:00:00%2B03:00&until=2026-11-19T00:00:00Z")
    assert by_date.status == 200
    assert (await world.gateway.get(f"{PATH}?since=2026-11-18T00:00:00")).status == 400  # which zone?


async def test_parquet_is_not_promised(world: World) -> None:
    answer = await world.gateway.get(f"{PATH}?format=parquet")
    assert (answer.status, answer.media) == (406, "application/problem+json")


@pytest.mark.parametrize("query", ["step=-1", "limit=0", "limit=50001", "format=xml", "channels=" + "x" * 3_000])
async def test_what_cannot_be_asked_is_refused(world: World, query: str) -> None:
    assert (await world.gateway.get(f"{PATH}?{query}")).status == 400


async def test_nothing_in_the_period_is_an_empty_answer(world: World) -> None:
    assert (await world.gateway.get(f"{PATH}?since=0&until=1000")).json["series"] == []
    assert (await world.gateway.get(f"{PATH}?since=1000&until=0")).json["series"] == []
