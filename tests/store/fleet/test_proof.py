"""Evidence comes back by epoch and sequence, a page at a time, on both databases."""

from __future__ import annotations

from collections.abc import Callable

from protocol.numbers import ParcelKind
from store.fleet.evidence import BatchPart, BatchState, EventPart, IngestItem
from store.fleet.fleet import FleetStore
from tests.store.fleet.conftest import NOW_MS, SCHEMA_DIGEST

Make = Callable[..., IngestItem]
HIGH = (1 << 64) - 2


async def test_a_page_continues_where_the_last_one_ended(
    fleet: FleetStore, enrol: Callable, item: Make, schema_item: IngestItem
) -> None:
    await enrol()
    await enrol("zm-patel")
    await fleet.ingest([schema_item, *(item(n) for n in (2, 3, 5)), item(1, EventPart("boot", 5), epoch=HIGH)])
    await fleet.ingest([item(1, EventPart("boot", 5), truck="zm-patel"), item(6, BatchPart(9, None))])
    found = []
    after = None
    while page := await fleet.evidence("ke-arrow", 0, NOW_MS * 2, after, 2):
        found += page
        after = (page[-1].key.epoch, page[-1].key.sequence)
    assert sorted((each.key.epoch, each.key.sequence) for each in found) == [
        (7, 1),
        (7, 2),
        (7, 3),
        (7, 5),
        (7, 6),
        (HIGH, 1),
    ]
    by_key = {(each.key.epoch, each.key.sequence): each for each in found}
    assert by_key[7, 1].kind is ParcelKind.SCHEMA
    assert (by_key[7, 2].state, by_key[7, 2].schema_digest) == (BatchState.READY, SCHEMA_DIGEST)
    assert (by_key[7, 6].state, by_key[7, 6].schema_digest) == (BatchState.PARKED, None)
    assert by_key[7, 3].sealed == item(3).sealed


async def test_batches_are_found_by_their_rows_and_the_rest_by_arrival(
    fleet: FleetStore, enrol: Callable, item: Make, schema_item: IngestItem
) -> None:
    await enrol()
    late = item(2, BatchPart(1, SCHEMA_DIGEST, None, 1_000, 2_000, 9), received_ms=NOW_MS)
    await fleet.ingest([schema_item, late, item(3, EventPart("boot", 1_500))])

    async def sequences(since_ms: int, until_ms: int) -> list[int]:
        return [each.key.sequence for each in await fleet.evidence("ke-arrow", since_ms, until_ms)]

    assert await sequences(1_500, 3_000) == [2]
    assert await sequences(2_001, 3_000) == []
    assert await sequences(NOW_MS, NOW_MS + 1) == [1, 3]
