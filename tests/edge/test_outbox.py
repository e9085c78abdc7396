"""The outbox: what is sealed verifies, and an unknown COMMIT queues a parcel once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.messages import Parcel, decode_payload, unseal, verify_parcel
from protocol.numbers import Precedence
from store.errors import StoreFailedError
from tests.edge.trucks import KEY, Truck, break_commits


@pytest.fixture
async def truck(tmp_path: Path) -> AsyncIterator[Truck]:
    truck = Truck(tmp_path)
    await truck.start()
    try:
        yield truck
    finally:
        await truck.stop()


@pytest.mark.parametrize("durable", [True, False])
async def test_an_event_of_an_unknown_commit_is_queued_once(
    truck: Truck, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    break_commits(truck, monkeypatch, times=1, durable=durable)
    await truck.recorder.event("door.opened", Precedence.FLASH)
    assert [event.name for event in truck.events()] == ["door.opened"]


async def test_a_disk_that_stays_silent_is_told_in_the_end(truck: Truck, monkeypatch: pytest.MonkeyPatch) -> None:
    break_commits(truck, monkeypatch, times=99, durable=False)
    with pytest.raises(StoreFailedError, match="stays for the next start"):
        await truck.recorder.event("door.opened", Precedence.FLASH)
    assert truck.events() == []


async def test_a_parcel_that_is_sealed_again_keeps_what_it_says(truck: Truck) -> None:
    await truck.recorder.event("door.opened", Precedence.FLASH)
    (sealed,) = [row[0] for row in truck.database.rows("SELECT sealed FROM parcels WHERE kind = 2")]
    old = unseal(sealed)
    again = truck.recorder.reseal(Parcel(99, 5, old.precedence, old.kind, old.payload), None)
    verify_parcel(again, KEY.public, "ke-arrow", 99)
    assert decode_payload(unseal(again)).name == "door.opened"
