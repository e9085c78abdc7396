"""Samples in the shapes that programs and people read."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

import aiohttp
import cbor2
import pyarrow.parquet as pq
import pytest

from gateway.series import Column, Table, TableRow
from store.fleet.fleet import FleetStore
from tests.gateway.api.conftest import Opener, World
from tests.gateway.fleets import NOW_S, add_truck

PATH = "/v1/trucks/ke-arrow/samples"


async def test_json_is_series_with_senml_labels(world: World) -> None:
    answer = (await world.gateway.get(PATH)).json
    assert answer["series"] == [
        {
            "n": "bat_v",
            "u": "V",
            "t_ms": [(NOW_S - 120) * 1000, (NOW_S - 60) * 1000],
            "v": [26.0, 26.5],
            "gaps_ms": [[(NOW_S - 86_400) * 1000, (NOW_S - 120) * 1000]],
        },
        {
            "n": "pv_w",
            "u": "W",
            "t_ms": [(NOW_S - 120) * 1000],
            "v": [5.0],
            "gaps_ms": [[(NOW_S - 86_400) * 1000, (NOW_S - 120) * 1000]],
        },
    ]
    assert answer["repaired"] == 0
    assert (answer["step_s"], answer["next"]) == (0, None)
    assert answer["until_ms"] - answer["since_ms"] == 86_400_000


async def test_csv_is_one_row_a_time(world: World) -> None:
    answer = await world.gateway.get(f"{PATH}?format=csv&channels=pv_w,bat_v")
    assert answer.media == "text/csv"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="ke-arrow.csv"'
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert rows[0] == ["time", "bat_v [V]", "pv_w [W]", "repaired"]
    assert [row[1:] for row in rows[1:]] == [["26.0", "5.0", "0"], ["26.5", "", "0"]]
    assert rows[1][0].endswith("Z")


async def test_pages_continue(world: World) -> None:
    first = await world.gateway.get(f"{PATH}?limit=1")
    assert [each["v"] for each in first.json["series"]] == [[26.0], [5.0]]
    second = await world.gateway.get(f"{PATH}?limit=1&after={first.json['next']}")
    assert [each["v"] for each in second.json["series"]] == [[26.5]]
    assert second.json["next"] is None


async def test_senml_comes_in_json_and_cbor(world: World) -> None:
    answer = await world.gateway.get(f"{PATH}?format=senml-json")
    assert answer.media == "application/senml+json"
    assert answer.json == [
        {"bn": "ke-arrow/", "bt": NOW_S - 120, "n": "bat_v", "u": "V", "v": 26},
        {"n": "pv_w", "u": "W", "v": 5},
        {"bt": NOW_S - 60, "n": "bat_v", "u": "V", "v": 26.5},
    ]
    packed = await world.gateway.get(f"{PATH}?format=senml-cbor")
    assert packed.media == "application/senml+cbor"
    assert cbor2.loads(packed.body)[1] == {0: "pv_w", 1: "W", 2: 5}


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/senml+json", "application/senml+json"),
        ("text/html, application/senml+cbor;q=0.9", "application/senml+cbor"),
        ("text/csv", "text/csv"),
        ("image/png", "application/json"),
        ("*/*", "application/json"),
        ("", "application/json"),
    ],
)
async def test_the_accept_header_chooses_unless_a_format_is_asked_for(world: World, accept: str, media: str) -> None:
    headers = {"Accept": accept}
    assert (await world.gateway.get(PATH, headers=headers)).media == media
    assert (await world.gateway.get(f"{PATH}?format=csv", headers=headers)).media == "text/csv"


async def test_parquet_is_read_by_others(world: World) -> None:
    answer = await world.gateway.get(f"{PATH}?format=parquet")
    assert answer.media == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.body))
    assert table["bat_v [V]"].to_pylist() == [26.0, 26.5]
    assert table["pv_w [W]"].to_pylist() == [5.0, None]


async def test_a_file_has_all_rows_or_as_many_as_are_asked_for(world: World) -> None:
    for hour in range(3):
        start = NOW_S - 36_000 + 3600 * hour
        await world.truck.batch([(start + 10 * n, (2600 + n, n)) for n in range(360)])
    whole = (await world.gateway.get(f"{PATH}?format=csv")).body.splitlines()
    assert len(whole) == 1 + 3 * 360 + 2
    some = (await world.gateway.get(f"{PATH}?format=csv&limit=7")).body.splitlines()
    assert some == whole[:8]


async def test_values_of_a_repaired_clock_are_marked(world: World) -> None:
    await world.truck.batch([(100, (2700, 7))], boot=4)
    await world.gateway.fleet.set_clock("ke-arrow", 4, (NOW_S - 600) * 1000)
    answer = (await world.gateway.get(PATH)).json
    battery, solar = answer["series"]
    assert (battery["v"], battery["repaired"], solar["repaired"]) == ([27.0, 26.0, 26.5], [1, 0, 0], [1, 0])
    assert answer["repaired"] == 2


async def test_a_period_that_breaks_off_is_not_taken_for_a_whole_one(open_gateway: Opener, fleet: FleetStore) -> None:
    class Breaking:
        async def table(self, truck: str, **_: object) -> Table:
            async def pages() -> AsyncIterator[list[TableRow]]:
                yield [TableRow(0, (1.0,), 0)] * 5_000
                raise OSError("the disk went")

            return Table([Column("a", "")], pages())

    async with open_gateway(telemetry=Breaking()) as gateway:
        await add_truck(fleet)
        with pytest.raises(aiohttp.ClientPayloadError):
            await gateway.get(f"{PATH}?format=csv")


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


@pytest.mark.parametrize("query", ["step=-1", "limit=0", "limit=50001", "format=xml", "channels=" + "x" * 3_000])
async def test_what_cannot_be_asked_is_refused(world: World, query: str) -> None:
    assert (await world.gateway.get(f"{PATH}?{query}")).status == 400


async def test_nothing_in_the_period_is_an_empty_answer(world: World) -> None:
    assert (await world.gateway.get(f"{PATH}?since=0&until=1000")).json["series"] == []
    assert (await world.gateway.get(f"{PATH}?since=1000&until=0")).json["series"] == []
