"""The gateway's account: its sums are the meter's totals, whoever the bytes turned out to belong to."""

from __future__ import annotations

import pytest

from store.fleet.records import Direction
from tests.gateway.coapside import ScriptedTruck, Side, open_truck, unprotected


async def totals(side: Side) -> dict[tuple[Direction, str], int]:
    lines = await side.fleet.ledger()
    return {
        (way, unit): sum(getattr(line, unit) for line in lines if line.direction is way)
        for way in Direction
        for unit in ("bytes", "datagrams")
    }


def assert_equals_meter(found: dict[tuple[Direction, str], int], side: Side) -> None:
    meter = side.context.meter
    assert found == {
        (Direction.UP, "bytes"): meter.received.bytes_ip,
        (Direction.UP, "datagrams"): meter.received.datagrams,
        (Direction.DOWN, "bytes"): meter.sent.bytes_ip,
        (Direction.DOWN, "datagrams"): meter.sent.datagrams,
    }


async def test_sums_equal_the_meters_totals_over_trucks_strangers_and_flushes(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake("sat")
    for _ in range(3):
        await truck.upload(truck.offer(number=truck.sequence + 1))
        await side.ledger.flush()
    async with open_truck(side.address, "ke-unknown") as stranger:
        await stranger.handshake()
        assert await unprotected(stranger.upload())
    await side.ledger.flush()
    assert_equals_meter(await totals(side), side)


async def test_bytes_of_a_stranger_are_nobodys_and_of_a_truck_are_its_own(side: Side, truck: ScriptedTruck) -> None:
    async with open_truck(side.address, "ke-unknown") as stranger:
        await stranger.handshake()
        assert await unprotected(stranger.upload())
    await side.ledger.flush()
    assert {line.truck for line in await side.fleet.ledger()} == {""}
    await truck.handshake("sat")
    await truck.upload(truck.offer())
    await side.ledger.flush()
    of_truck = await side.fleet.ledger("ke-arrow")
    assert {(line.link, line.cause) for line in of_truck} == {("sat", "schema")}
    assert {line.direction: line.datagrams for line in of_truck} == {Direction.UP: 1, Direction.DOWN: 1}


async def test_a_failed_write_loses_no_count(side: Side, truck: ScriptedTruck, monkeypatch: pytest.MonkeyPatch) -> None:
    await truck.handshake("sat")
    await truck.upload()

    async def away(*_: object) -> None:
        raise OSError("no database")

    with monkeypatch.context() as patched:
        patched.setattr(side.fleet, "ledger_add", away)
        with pytest.raises(OSError, match="no database"):
            await side.ledger.flush()
    await truck.upload()
    await side.ledger.flush()
    assert_equals_meter(await totals(side), side)
