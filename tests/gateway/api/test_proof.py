"""Evidence over the API: exported as it was signed, and verified by the gateway itself."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from gateway.evidence import Verifier
from tests.gateway.api.conftest import World
from tests.gateway.fleets import NOW_S


async def test_an_export_verifies_without_the_gateway(world: World) -> None:
    answer = await world.gateway.get("/v1/trucks/ke-arrow/evidence")
    assert answer.media == "application/jsonl"
    verifier = Verifier(world.truck.key.public)
    for line in answer.body.splitlines(keepends=True):
        verifier.line(line)
    verifier.check_whole()
    # The fixture signs its batch alone: the rest are bytes that stand for parcels.
    assert verifier.result().kinds == {"batch": 1}


async def test_the_gateway_verifies_what_it_has(world: World) -> None:
    path = f"/v1/trucks/ke-arrow/verification?since={NOW_S - 600}&until={NOW_S - 1}"
    shown = (await world.gateway.get(path)).json
    assert (shown["parcels"], shown["verified"], shown["failed"], shown["kinds"]) == (1, 1, 0, {"batch": 1})
    assert shown["keys"] == [{"signing_key": world.truck.key.public.hex(), "parcels": 1}]
    async with world.gateway.fleet._database.write() as transaction:
        await transaction.execute(text("UPDATE schemas SET encoded = x'80'"))
    shown = (await world.gateway.get(path)).json
    assert (shown["verified"], shown["failed"]) == (0, 1)
    assert "schema" in shown["findings"][0]["reason"]


@pytest.mark.parametrize("route", ["evidence", "verification"])
async def test_of_an_unknown_truck_there_is_none(world: World, route: str) -> None:
    assert (await world.gateway.get(f"/v1/trucks/nobody/{route}")).status == 404


async def test_a_period_that_ends_before_it_begins_is_refused(world: World) -> None:
    assert (await world.gateway.get("/v1/trucks/ke-arrow/verification?since=2&until=1")).status == 400
