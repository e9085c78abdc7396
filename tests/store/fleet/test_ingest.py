"""Ingest: each parcel once, in one transaction, whatever comes twice, late, out of order or from a stranger."""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from protocol.numbers import GAPS_MAX, DocumentKind, Outcome, ParcelKind, Precedence
from store.fleet import ingest as ingest_module
from store.fleet.evidence import (
    EpochState,
    EventPart,
    IngestItem,
    IngestStatus,
    ParcelKey,
    ParcelRecord,
    ReceiptPart,
    SchemaPart,
    TombstonePart,
)
from store.fleet.fleet import FleetStore

S = IngestStatus
Make = Callable[..., IngestItem]


def statuses(results: list) -> list[IngestStatus]:
    return [result.status for result in results]


@pytest.fixture(autouse=True)
async def _trucks(enrol: Callable) -> None:
    await enrol("ke-arrow")
    await enrol("zm-patel", group="zambia")


async def test_new_parcels_are_stored_as_they_came(fleet: FleetStore, item: Make) -> None:
    event = item(1, EventPart("door.open", 5))
    results = await fleet.ingest([event])
    assert statuses(results) == [S.STORED]
    assert results[0].state == EpochState("ke-arrow", 7, 1, (), event.received_ms, event.received_ms)
    stored = await fleet.parcel(ParcelKey("ke-arrow", 7, 1))
    assert stored == ParcelRecord(
        ParcelKey("ke-arrow", 7, 1), ParcelKind.EVENT, Precedence.NORMAL, "sat", event.received_ms, event.sealed
    )


async def test_a_repeat_is_answered_identically_and_stored_once(fleet: FleetStore, item: Make) -> None:
    parcel = item(1, EventPart("door.open", 5))
    first = await fleet.ingest([parcel])
    again = await fleet.ingest([parcel])
    assert again[0].state == first[0].state
    assert statuses(again) == [S.DUPLICATE]
    assert again[0].committed
    assert len(await fleet.events("ke-arrow")) == 1


async def test_a_repeat_within_one_call_is_stored_once(fleet: FleetStore, item: Make) -> None:
    parcel = item(1, EventPart("door.open", 5))
    assert statuses(await fleet.ingest([parcel, parcel])) == [S.STORED, S.DUPLICATE]
    assert len(await fleet.events("ke-arrow")) == 1


async def test_gaps_are_kept_and_close_when_filled(fleet: FleetStore, item: Make) -> None:
    event = EventPart("e", 1)
    results = await fleet.ingest([item(1, event), item(3, event), item(4, event), item(6, event)])
    assert (results[-1].state.cumulative, results[-1].state.ranges) == (1, ((3, 4), (6, 6)))
    (filled,) = await fleet.ingest([item(2, event)])
    assert (filled.state.cumulative, filled.state.ranges) == (4, ((6, 6),))
    assert await fleet.epoch_state("ke-arrow") == filled.state


async def test_many_trucks_and_epochs_share_a_transaction(fleet: FleetStore, item: Make) -> None:
    event = EventPart("e", 1)
    high = (1 << 64) - 1
    results = await fleet.ingest(
        [item(1, event), item(1, event, truck="zm-patel", epoch=high), item(2, event, truck="zm-patel", epoch=high)]
    )
    assert [result.state.cumulative for result in results] == [1, 2, 2]
    assert (await fleet.epoch_state("zm-patel")).epoch == high
    assert await fleet.parcel(ParcelKey("zm-patel", high, 2)) is not None


async def test_an_unknown_or_revoked_truck_does_not_hold_up_the_others(fleet: FleetStore, item: Make) -> None:
    event = EventPart("e", 1)
    await fleet.revoke_truck("zm-patel", 5)
    results = await fleet.ingest([item(1, event, truck="nobody"), item(1, event, truck="zm-patel"), item(1, event)])
    assert statuses(results) == [S.UNKNOWN_TRUCK, S.REVOKED_TRUCK, S.STORED]
    assert [result.state is None for result in results] == [True, True, False]
    assert not results[0].committed


async def test_one_gap_too_many_is_not_acknowledged_and_comes_in_later(fleet: FleetStore, item: Make) -> None:
    event = EventPart("e", 1)
    await fleet.ingest([item(2 * n, event) for n in range(1, GAPS_MAX + 1)])
    beyond = item(2 * GAPS_MAX + 2, event)
    (refused,) = await fleet.ingest([beyond])
    assert refused.status is S.BEYOND_GAPS
    assert not refused.committed
    assert not refused.state.covers(beyond.sequence)
    assert statuses(await fleet.ingest([item(1, event), beyond])) == [S.STORED, S.STORED]


async def test_an_epoch_that_starts_later_is_the_current_one(fleet: FleetStore, item: Make) -> None:
    event = EventPart("e", 1)
    await fleet.ingest([item(1, event, epoch=9)])
    await fleet.ingest([item(1, event, epoch=2)])
    await fleet.ingest([item(2, event, epoch=9)])
    assert [state.epoch for state in await fleet.epochs_of("ke-arrow")] == [2, 9]
    assert (await fleet.epoch_state("ke-arrow")).epoch == 2
    assert (await fleet.epoch_state("ke-arrow", 9)).cumulative == 2
    assert await fleet.epoch_state("zm-patel") is None


async def test_a_tombstone_closes_the_gaps_it_names(fleet: FleetStore, item: Make) -> None:
    event = EventPart("e", 1)
    await fleet.ingest([item(1, event), item(5, event)])
    (result,) = await fleet.ingest([item(6, TombstonePart(7, ((2, 3),), "disk full", 120))])
    assert (result.state.cumulative, result.state.ranges) == (3, ((5, 6),))
    (epoch,) = (await fleet.coverage("ke-arrow", 0, 1)).epochs
    assert epoch.dropped == ((2, 3, "disk full"),)
    assert epoch.missing == ((4, 4),)


@pytest.mark.parametrize("together", [True, False])
async def test_a_parcel_that_comes_after_its_tombstone_is_stored_once(
    fleet: FleetStore, item: Make, together: bool
) -> None:
    event = EventPart("e", 1)
    tombstone, late = item(2, TombstonePart(7, ((1, 1),), "disk full")), item(1, event)
    if together:
        assert statuses(await fleet.ingest([tombstone, late])) == [S.STORED, S.STORED]
    else:
        await fleet.ingest([tombstone])
        assert statuses(await fleet.ingest([late])) == [S.STORED]
    assert statuses(await fleet.ingest([late])) == [S.DUPLICATE]
    assert len(await fleet.events("ke-arrow")) == 1


async def test_a_tombstone_of_an_older_epoch_does_not_make_it_current(fleet: FleetStore, item: Make) -> None:
    await fleet.ingest([item(1, TombstonePart(3, ((1, 9),), "lost"), epoch=8)])
    assert [state.epoch for state in await fleet.epochs_of("ke-arrow")] == [8, 3]


async def test_a_schema_number_keeps_its_first_meaning_within_an_epoch(fleet: FleetStore, item: Make) -> None:
    def part(content: bytes) -> SchemaPart:
        return SchemaPart(1, hashlib.sha256(content).digest(), content)

    results = await fleet.ingest([item(1, part(b"a")), item(2, part(b"b")), item(3, part(b"a"))])
    assert statuses(results) == [S.STORED, S.CONFLICT, S.STORED]
    assert results[1].committed
    assert (await fleet.schema_numbered("ke-arrow", 7, 1)).encoded == b"a"
    assert statuses(await fleet.ingest([item(1, part(b"b"), epoch=8)])) == [S.STORED]
    assert [schema.encoded for schema in await fleet.schemas_of("ke-arrow")] == [b"a", b"b"]


async def test_the_newest_receipt_by_the_trucks_own_order_counts(fleet: FleetStore, item: Make) -> None:
    def receipt(version: int, outcome: Outcome = Outcome.APPLIED) -> ReceiptPart:
        return ReceiptPart(DocumentKind.MANIFEST, bytes([version]) * 32, outcome, "atlas", version)

    await fleet.ingest([item(3, receipt(3)), item(2, receipt(2))])
    (held,) = await fleet.holdings("ke-arrow")
    assert (held.version, held.outcome, held.digest) == (3, Outcome.APPLIED, b"\3" * 32)
    await fleet.ingest([item(1, receipt(9, Outcome.ROLLED_BACK), epoch=8)])
    await fleet.ingest([item(4, receipt(4))])
    (held,) = await fleet.holdings("ke-arrow")
    assert held.version == 9
    assert [each.version for each in await fleet.receipts("ke-arrow")] == [3, 2, 9, 4]


async def test_an_older_epoch_that_goes_on_reports_what_its_truck_has_now(fleet: FleetStore, item: Make) -> None:
    def receipt(version: int, time_ms: int) -> ReceiptPart:
        return ReceiptPart(DocumentKind.MANIFEST, bytes([version]) * 32, Outcome.APPLIED, "atlas", version, "", time_ms)

    async def held() -> int:
        return (await fleet.holdings("ke-arrow"))[0].version

    await fleet.ingest([item(1, receipt(1, 100))])
    await fleet.ingest([item(1, receipt(2, 200), epoch=8)])  # of a copy of the truck, on another computer
    await fleet.ingest([item(2, receipt(3, 150))])
    await fleet.ingest([item(3, receipt(4, 0))])
    assert await held() == 2
    await fleet.ingest([item(4, receipt(5, 300))])
    assert await held() == 5


async def test_a_receipt_of_the_desired_state_shows_on_the_truck(fleet: FleetStore, item: Make) -> None:
    await fleet.ingest([item(1, ReceiptPart(DocumentKind.DESIRED, b"d" * 32, Outcome.APPLIED, "ke-arrow", 4))])
    assert (await fleet.truck("ke-arrow")).desired_reported == b"d" * 32


async def test_a_new_epoch_or_a_fork_asks_for_the_report_once_more(fleet: FleetStore, item: Make) -> None:
    report = ReceiptPart(DocumentKind.DESIRED, b"d" * 32, Outcome.APPLIED, "ke-arrow", 4)
    await fleet.ingest([item(1, report)])
    await fleet.ingest([item(1, EventPart("e", 1), epoch=8)])
    assert (await fleet.truck("ke-arrow")).desired_reported is None
    await fleet.ingest([item(2, report, epoch=8), item(3, EventPart("e", 2), epoch=8)])
    assert (await fleet.truck("ke-arrow")).desired_reported == b"d" * 32
    await fleet.forget_report("ke-arrow")
    assert (await fleet.truck("ke-arrow")).desired_reported is None


async def test_ingest_notes_when_and_over_what_a_truck_was_heard(fleet: FleetStore, item: Make) -> None:
    await fleet.ingest([item(1, EventPart("e", 1), received_ms=77, link="lte")])
    truck = await fleet.truck("ke-arrow")
    assert (truck.last_heard_ms, truck.last_link) == (77, "lte")


async def test_nothing_of_a_call_that_fails_is_kept(
    fleet: FleetStore, item: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk went")

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "index_tombstones", fail)
        with pytest.raises(OSError, match="the disk went"):
            await fleet.ingest([item(1, EventPart("e", 1))])
    assert await fleet.epoch_state("ke-arrow") is None
    assert await fleet.parcel(ParcelKey("ke-arrow", 7, 1)) is None
    assert statuses(await fleet.ingest([item(1, EventPart("e", 1))])) == [S.STORED]


async def test_two_gateways_take_the_same_parcels_once(fleet: FleetStore, other: FleetStore, item: Make) -> None:
    event = EventPart("e", 1)
    items = [item(sequence, event, truck=truck) for sequence in range(1, 21) for truck in ("ke-arrow", "zm-patel")]
    calls = [items[start : start + 10] for start in range(0, 40, 5)]
    both = [store.ingest(call) for call in calls for store in (fleet, other)]
    results = [result for call in await asyncio.gather(*both) for result in call]
    assert sum(result.status is S.STORED for result in results) == 40
    assert all(result.committed for result in results)
    assert len(await fleet.events(None)) == 40
    assert (await fleet.epoch_state("zm-patel")).cumulative == 20


async def test_a_deadlock_starts_the_transaction_over(
    fleet: FleetStore, item: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadlock(Exception):
        sqlstate = "40P01"

    real, tries = ingest_module.index_parcels, []

    def deadlock_once(*arguments: object) -> object:
        tries.append(1)
        if len(tries) == 1:
            raise DBAPIError("INSERT", {}, Deadlock())
        return real(*arguments)

    monkeypatch.setattr(ingest_module, "index_parcels", deadlock_once)
    assert statuses(await fleet.ingest([item(1, EventPart("e", 1))])) == [S.STORED]
    assert len(tries) == 2


async def test_a_call_cancelled_at_any_step_leaves_the_store_working(fleet: FleetStore, item: Make) -> None:
    for turns in range(30):
        parcel = item(turns + 1, EventPart("e", 1))
        running = asyncio.create_task(fleet.ingest([parcel]))
        for _ in range(turns):
            await asyncio.sleep(0.0001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        (result,) = await asyncio.wait_for(fleet.ingest([parcel]), 60)
        assert result.committed
        assert result.state.cumulative == turns + 1
    assert len(await fleet.events("ke-arrow")) == 30


async def test_an_epoch_beyond_64_bits_is_refused(fleet: FleetStore, item: Make) -> None:
    with pytest.raises((ValueError, SQLAlchemyError)):
        await fleet.ingest([item(1, EventPart("e", 1), epoch=1 << 64)])


async def test_nothing_is_something_ingest_can_take(fleet: FleetStore) -> None:
    assert await fleet.ingest([]) == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_ingest_returned_is_in_the_file(fleet: FleetStore, item: Make, tmp_path: Path) -> None:
    await fleet.ingest([item(1, EventPart("e", 1))])
    with sqlite3.connect(tmp_path / "fleet.db") as reader:
        assert reader.execute("SELECT count(*) FROM parcels").fetchone() == (1,)


async def test_another_parcel_under_a_number_is_told_from_the_same_one_again(fleet: FleetStore, item: Make) -> None:
    """A truck whose disk was put back gives numbers again; the same parcel, signed anew, is no other one."""
    core = bytes(60)
    stored = replace(item(2, EventPart("e", 1)), sealed=core + b"1" * 64)
    assert statuses(await fleet.ingest([stored])) == [S.STORED]
    again, other = replace(stored, sealed=core + b"2" * 64), replace(stored, sealed=b"x" + stored.sealed[1:])
    results = await fleet.ingest([again, other, stored])
    assert statuses(results) == [S.DUPLICATE, S.TAKEN, S.DUPLICATE]
    assert not results[1].committed
    parcel = await fleet.parcel(ParcelKey(stored.truck, stored.epoch, stored.sequence))
    assert parcel is not None
    assert parcel.sealed == stored.sealed
