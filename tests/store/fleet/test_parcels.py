"""What could not be taken is put aside, and only so much of it."""

import pytest

from store.fleet import parcels
from store.fleet.fleet import FleetStore

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
