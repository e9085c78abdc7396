"""Batches whose schema or clock is not known yet are kept, and taken up when it is."""

from collections.abc import Callable

import pytest

from store.fleet.evidence import BatchPart, BatchState, EventPart, IngestItem, ParcelKey, SchemaPart, UnparkedBatch
from store.fleet.fleet import FleetStore

Make = Callable[..., IngestItem]
FOREVER = 10**15


@pytest.fixture(autouse=True)
async def _truck(enrol: Callable) -> None:
    await enrol()


def parked(number: int = 1, boot: int | None = None) -> BatchPart:
    return BatchPart(number, None, boot)


async def test_a_batch_of_an_unknown_schema_waits_and_is_taken_up_once(
    fleet: FleetStore, item: Make, schema_item: IngestItem
) -> None:
    batch = item(2, parked())
    await fleet.ingest([batch, item(3, parked(9))])
    assert await fleet.parked_numbers("ke-arrow") == [(7, 1), (7, 9)]
    assert await fleet.batches("ke-arrow", 0, FOREVER) == []
    await fleet.ingest([schema_item])
    (waiting,) = await fleet.parked_batches("ke-arrow", 1)
    assert (waiting.state, waiting.sealed, waiting.rows) == (BatchState.PARKED, batch.sealed, None)
    assert await fleet.parked_batches("ke-arrow", 1, epoch=8) == []
    taken = UnparkedBatch(waiting.key, schema_item.part.digest, 1_000, 61_000, 2)
    assert await fleet.unpark([taken]) == 1
    assert await fleet.unpark([taken]) == 0
    (found,) = await fleet.batches("ke-arrow", 0, FOREVER)
    assert (found.state, found.schema_digest, found.first_ms, found.rows) == (
        BatchState.READY,
        schema_item.part.digest,
        1_000,
        2,
    )
    assert await fleet.parked_numbers("ke-arrow") == [(7, 9)]


async def test_a_parked_batch_that_does_not_hold_is_given_up_once_and_can_be_looked_at(
    fleet: FleetStore, item: Make
) -> None:
    batch = item(2, parked())
    await fleet.ingest([batch])
    key = ParcelKey("ke-arrow", 7, 2)
    for _ in range(2):
        await fleet.reject_parked(key, "bad signature", 5)
    await fleet.reject_parked(ParcelKey("ke-arrow", 7, 99), "no such parcel", 5)
    (aside,) = await fleet.quarantined("ke-arrow")
    assert (aside.sealed, aside.reason, aside.epoch, aside.sequence) == (batch.sealed, "bad signature", 7, 2)
    assert await fleet.parked_numbers("ke-arrow") == []
    assert (await fleet.coverage("ke-arrow", 0, 1)).rejected == 1
    assert await fleet.parcel(key) is not None


async def test_a_boots_clock_dates_what_came_before_and_after(
    fleet: FleetStore, item: Make, schema_item: IngestItem
) -> None:
    digest = schema_item.part.digest
    monotonic = BatchPart(1, digest, 5, 10, 20, 3)
    await fleet.ingest([schema_item, item(2, monotonic), item(3, EventPart("e", 15, boot=5)), item(4, parked(2, 5))])
    assert await fleet.batches("ke-arrow", 0, FOREVER) == []
    assert await fleet.pending_rollups() == []
    assert await fleet.set_clock("ke-arrow", 5, 1_000) == 3
    await fleet.ingest([item(5, monotonic), item(6, EventPart("e", 16, boot=5))])
    found = await fleet.batches("ke-arrow", 0, FOREVER)
    assert [(each.first_ms, each.last_ms, each.state) for each in found] == [(1_010, 1_020, BatchState.READY)] * 2
    assert [each.time_ms for each in await fleet.events("ke-arrow", since_ms=1_000)] == [1_015, 1_016]
    key = ParcelKey("ke-arrow", 7, 4)
    await fleet.unpark([UnparkedBatch(key, digest, 30, 40, 1)])
    assert [each.first_ms for each in await fleet.batches("ke-arrow", 1_025, FOREVER)] == [1_030]


async def test_the_first_clock_of_a_boot_stands(fleet: FleetStore, item: Make, schema_item: IngestItem) -> None:
    await fleet.set_clock("ke-arrow", 5, 1_000)
    assert await fleet.set_clock("ke-arrow", 5, 9_000) == 0
    await fleet.ingest([schema_item, item(2, BatchPart(1, schema_item.part.digest, 5, 10, 20, 3))])
    assert [each.first_ms for each in await fleet.batches("ke-arrow", 0, FOREVER)] == [1_010]


async def test_schemas_are_found_by_number_epoch_and_digest(fleet: FleetStore, item: Make) -> None:
    await fleet.ingest([item(1, SchemaPart(4, b"d" * 32, b"four")), item(1, SchemaPart(4, b"e" * 32, b"4"), epoch=8)])
    assert await fleet.schema(b"d" * 32) == b"four"
    assert await fleet.schema(b"x" * 32) is None
    assert [each.encoded for each in await fleet.schemas_of("ke-arrow")] == [b"four", b"4"]
    assert [each.encoded for each in await fleet.schemas_of("ke-arrow", 8)] == [b"4"]
    assert await fleet.schema_numbered("ke-arrow", 7, 5) is None
