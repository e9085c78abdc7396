"""What could not be taken is put aside, and only so much of it."""

import pytest

from store.fleet import parcels
from store.fleet.evidence import EventPart, IngestItem
from store.fleet.fleet import FleetStore
from tests.store.fleet.conftest import NOW_MS, Enrol, Make

KEPT = 8


async def test_quarantine_keeps_the_newest_of_each_truck(fleet: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "QUARANTINED_KEPT", KEPT)
    await fleet.quarantine("zm-patel", (1 << 64) - 1, 7, b"other", "bad signature", 1)
    for n in range(KEPT + 3):
        await fleet.quarantine("ke-arrow", None, None, b"%d" % n, "malformed", n)
    newest = await fleet.quarantined("ke-arrow", limit=2)
    assert [each.received_ms for each in newest] == [KEPT + 2, KEPT + 1]
    rest = await fleet.quarantined("ke-arrow", after=newest[-1].id, limit=1_000)
    assert len(rest) == KEPT - 2
    assert rest[-1].received_ms == 3
    (kept,) = await fleet.quarantined("zm-patel")
    assert (kept.epoch, kept.sequence, kept.sealed, kept.reason) == ((1 << 64) - 1, 7, b"other", "bad signature")
    assert len(await fleet.quarantined(limit=1_000)) == KEPT + 1


async def test_what_waited_is_told_with_when_the_truck_had_it(
    fleet: FleetStore, enrol: Enrol, item: Make, schema_item: IngestItem
) -> None:
    await enrol()
    hour_ms = 3_600_000
    later = NOW_MS + 5 * hour_ms
    event = item(3, EventPart("door", NOW_MS + hour_ms), received_ms=later)
    timeless = item(4, EventPart("door", 17, boot=9), received_ms=later)
    await fleet.ingest([schema_item, item(2, received_ms=later), event, timeless])
    first, *rest = await fleet.queued("ke-arrow", NOW_MS, later + 1, limit=2)
    rest += await fleet.queued("ke-arrow", NOW_MS, later + 1, after=rest[-1].id)
    assert [(each.at_ms, each.received_ms, each.bytes) for each in (first, *rest)] == [
        (NOW_MS, NOW_MS, 128),
        (NOW_MS + 2 * 60_000 + 59_000, later, 128),
        (NOW_MS + hour_ms, later, 128),
        (later, later, 128),
    ]
    assert await fleet.queued("ke-arrow", later + 1, later + 2) == []
