"""What a truck counted and what arrived differ by what was lost, whatever the ledger of the truck went through."""

from __future__ import annotations

import json

import pytest

from gateway.accounts import Comparison, compared, read_account
from gateway.bearers import bearers_of
from protocol.numbers import Precedence
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.fleets import NOW_MS, add_truck

HOUR_MS = 3_600_000


async def saw(fleet: FleetStore, direction: Direction, count: int, at_ms: int) -> None:
    line = ("ke-arrow", "sat", Precedence.NORMAL, "batch", direction)
    await fleet.ledger_add([LedgerEntry(*line, at_ms, count, 1)])


async def compare(fleet: FleetStore, *reports: tuple[int, dict[str, int]]) -> Comparison:
    truck = await add_truck(fleet)
    for at_ms, values in reports:
        await truck.event("ledger.account", at_ms, json.dumps(values))
    record = await fleet.truck("ke-arrow")
    assert record is not None
    found = await compared(fleet, record)
    assert found is not None
    return found


def totals(found: Comparison) -> dict[Direction, tuple[int, int, int]]:
    return {each.direction: (each.truck_bytes, each.gateway_bytes, each.lost_bytes) for each in found.lines}


async def test_what_left_and_did_not_arrive_was_lost(fleet: FleetStore) -> None:
    await saw(fleet, Direction.UP, 95_000, NOW_MS)
    await saw(fleet, Direction.DOWN, 60_000, NOW_MS)
    found = await compare(
        fleet, (NOW_MS + HOUR_MS, {"sat.2u": 100_000, "sat.2d": 54_000, "sat.b": 154_000, "sat.m": 9})
    )
    assert totals(found) == {Direction.UP: (100_000, 95_000, 5_000), Direction.DOWN: (54_000, 60_000, 6_000)}
    assert (found.loss("sat", Direction.UP), found.loss("sat", Direction.DOWN)) == (0.05, 0.1)
    assert found.loss("lte", Direction.UP) is None
    assert (found.billed, found.milli) == ({"sat": 154_000}, {"sat": 9})
    truck = await fleet.truck("ke-arrow")
    assert truck is not None
    bearer = (await bearers_of(fleet, truck, NOW_MS + HOUR_MS))["sat"]
    assert (bearer.loss_up, bearer.loss_down) == (0.05, 0.1)


async def test_two_reports_are_compared_over_what_lies_between(fleet: FleetStore) -> None:
    await saw(fleet, Direction.UP, 70, NOW_MS)
    await saw(fleet, Direction.UP, 40, NOW_MS + 3 * HOUR_MS)
    found = await compare(fleet, (NOW_MS + HOUR_MS, {"sat.2u": 80}), (NOW_MS + 4 * HOUR_MS, {"sat.2u": 130}))
    assert totals(found) == {Direction.UP: (50, 40, 10)}
    assert found.since_ms == NOW_MS + HOUR_MS


async def test_a_ledger_that_was_begun_anew_is_compared_as_a_whole(fleet: FleetStore) -> None:
    await saw(fleet, Direction.UP, 40, NOW_MS + 3 * HOUR_MS)
    found = await compare(fleet, (NOW_MS + HOUR_MS, {"sat.2u": 80}), (NOW_MS + 4 * HOUR_MS, {"sat.2u": 44}))
    assert totals(found) == {Direction.UP: (44, 40, 4)}
    assert found.since_ms == NOW_MS


async def test_a_truck_that_told_nothing_is_not_compared(fleet: FleetStore) -> None:
    await add_truck(fleet)
    record = await fleet.truck("ke-arrow")
    assert record is not None
    assert await compared(fleet, record) is None


@pytest.mark.parametrize(
    "values", ['{"sat.9u": 5}', '{"SAT.2u": 5}', '{"sat.2u": "5"}', '{"sat.2u": true}', '{"x": -1}']
)
def test_what_is_no_part_of_an_account_is_skipped(values: str) -> None:
    found = read_account(values, 0)
    assert (found.carried, found.billed, found.milli) == ({}, {}, {})
