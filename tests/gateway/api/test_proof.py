"""Evidence over the API: exported as it was signed, and verified by the gateway itself."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from gateway.api.limits import ApiLimits
from gateway.evidence import Verifier
from gateway.series import Table
from gateway.telemetry import Telemetry
from store.fleet.fleet import FleetStore
from tests.gateway.api.conftest import Opener, World
from tests.gateway.fleets import NOW_MS, NOW_S, add_truck


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


async def test_exports_take_turns(open_gateway: Opener, fleet: FleetStore) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    class Slow:
        async def table(self, truck: str, **_: object) -> Table:
            begun.set()
            await released.wait()
            return await Telemetry(fleet).table(truck, channels=(), since_ms=0, until_ms=NOW_MS, step_s=0)

    async with open_gateway(ApiLimits(exports_max=1, export_wait_s=0.05), telemetry=Slow()) as gateway:
        await add_truck(fleet)
        first = asyncio.create_task(gateway.get("/v1/trucks/ke-arrow/samples?format=csv"))
        await begun.wait()
        for path in ("evidence", "verification", "samples?format=csv"):
            answer = await gateway.get(f"/v1/trucks/ke-arrow/{path}")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
        released.set()
        assert (await first).status == 200
        for path in ("evidence", "verification", "samples?format=csv"):
            assert (await gateway.get(f"/v1/trucks/ke-arrow/{path}")).status == 200
