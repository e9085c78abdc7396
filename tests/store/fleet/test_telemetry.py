"""Batches by time, events and receipts by arrival, and coverage that names what is missing."""

from collections.abc import Callable

import pytest

from protocol.numbers import Precedence
from store.fleet.evidence import BatchPart, EventPart, IngestItem, ParcelKey
from store.fleet.fleet import FleetStore

Make = Callable[..., IngestItem]


@pytest.fixture(autouse=True)
async def _truck(enrol: Callable, fleet: FleetStore, schema_item: IngestItem) -> None:
    await enrol()
    await fleet.ingest([schema_item])


async def test_batches_are_found_by_overlap_in_order_of_time_and_in_pages(
    fleet: FleetStore, item: Make, schema_item: IngestItem
) -> None:
    spans = {2: (300, 399), 3: (100, 199), 4: (200, 299), 5: (200, 250)}
    digest = schema_item.part.digest
    await fleet.ingest([item(n, BatchPart(1, digest, None, *span, 9)) for n, span in spans.items()])

    async def sequences(*arguments: object, **options: object) -> list[int]:
        return [each.key.sequence for each in await fleet.batches("ke-arrow", *arguments, **options)]

    assert await sequences(0, 1_000) == [3, 4, 5, 2]
    assert await sequences(199, 300) == [3, 4, 5]
    assert await sequences(251, 300) == [4]
    assert await sequences(400, 1_000) == []
    page = await fleet.batches("ke-arrow", 0, 1_000, limit=2)
    assert await sequences(0, 1_000, after=page[-1].cursor) == [5, 2]
    assert page[0].sealed == item(3).sealed


async def test_events_come_by_arrival_by_truck_name_and_time(fleet: FleetStore, item: Make, enrol: Callable) -> None:
    await enrol("zm-patel")
    await fleet.ingest(
        [
            item(2, EventPart("door.open", 500, '{"n":1}')),
            item(3, EventPart("pv.low", 400)),
            item(1, EventPart("door.open", 450), truck="zm-patel"),
        ]
    )
    events = await fleet.events("ke-arrow")
    assert [(each.name, each.time_ms) for each in events] == [("door.open", 500), ("pv.low", 400)]
    assert events[0].key == ParcelKey("ke-arrow", 7, 2)
    assert (events[0].values_json, events[0].precedence) == ('{"n":1}', Precedence.NORMAL)
    assert [each.time_ms for each in await fleet.events(None, names=["door.open"])] == [500, 450]
    assert [each.time_ms for each in await fleet.events(None, 401, 500)] == [450]
    assert [each.time_ms for each in await fleet.events(None, after=events[0].id, limit=1)] == [400]


async def test_coverage_names_gaps_and_counts_what_waits(
    fleet: FleetStore, item: Make, schema_item: IngestItem
) -> None:
    digest = schema_item.part.digest
    await fleet.ingest(
        [
            item(2, BatchPart(1, digest, None, 100, 199, 10)),
            item(5, BatchPart(1, digest, None, 300, 399, 7)),
            item(8, BatchPart(2, None)),
            item(9, BatchPart(1, digest, 3, 1, 2, 5)),
        ]
    )
    coverage = await fleet.coverage("ke-arrow", 0, 250)
    assert (coverage.batches, coverage.rows, coverage.first_ms, coverage.last_ms) == (1, 10, 100, 199)
    assert (coverage.parked, coverage.timeless, coverage.rejected) == (1, 1, 0)
    (epoch,) = coverage.epochs
    assert (epoch.epoch, epoch.highest, epoch.missing) == (7, 9, ((3, 4), (6, 7)))
    assert (await fleet.coverage("nobody", 0, 250)).epochs == ()
