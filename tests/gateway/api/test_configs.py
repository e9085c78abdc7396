"""The configuration of a truck is the newest one for it, with what the truck did with it."""

from __future__ import annotations

from protocol import cose
from protocol.documents import CollectorConfig
from protocol.numbers import DocumentKind, Outcome
from tests.gateway.api.conftest import Gateway, World
from tests.gateway.fleets import add_truck


async def test_the_newest_configuration_is_shown_with_its_outcome(world: World) -> None:
    shown = (await world.gateway.get("/v1/trucks/ke-arrow/config")).json
    assert shown["links"] == [
        {
            "name": "sat",
            "month_bytes_max": 5_000_000,
            "reserve_bytes": 100_000,
            "price_per_mb_milli": 4_500_000,
            "currency": "USD",
        }
    ]
    assert (shown["outcome"], shown["document"]["digest"]) == ("applied", world.config.hex())
    newer = world.gateway.signers.config(2, collectors=(CollectorConfig("host", 60),), extra={"lesson": True})
    await world.gateway.put_document(newer)
    shown = (await world.gateway.get("/v1/trucks/ke-arrow/config")).json
    assert (shown["outcome"], shown["collectors"]) == (None, [{"name": "host", "period_s": 60}])
    assert shown["extra"] == {"lesson": True}
    await world.truck.receipt(DocumentKind.CONFIG, cose.digest(newer), Outcome.ROLLED_BACK, reason="cut off")
    shown = (await world.gateway.get("/v1/trucks/ke-arrow/config")).json
    assert (shown["outcome"], shown["reason"]) == ("rolled-back", "cut off")


async def test_a_truck_that_was_never_configured_has_none(gateway: Gateway) -> None:
    await add_truck(gateway.fleet)
    assert (await gateway.get("/v1/trucks/ke-arrow/config")).status == 404
