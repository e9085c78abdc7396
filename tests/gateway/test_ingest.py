"""Parcels on their way in: what is stored, parked, refused, and what the acknowledgement says of it."""

from __future__ import annotations

import asyncio
import random

import pytest
import structlog

from protocol import cose
from protocol.messages import Batch, Event, Receipt, SchemaOffer, Tombstone
from protocol.numbers import DocumentKind, Outcome, ParcelKind, Refusal
from protocol.schema import Channel, Schema
from protocol.summary import Summary, encode_summary, summarise, summary_schema
from store.fleet.evidence import BatchState, EpochState
from tests.gateway.coapside import EPOCH, ScriptedTruck, Side, enrol_directly, rows_from
from tests.gateway.fleets import NOW_MS, NOW_S, SCHEMA

HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
async def _session(truck: ScriptedTruck) -> None:
    await truck.handshake("sat")


def event(truck: ScriptedTruck, name: str = "door", **options: object) -> bytes:
    changes = {key: options.pop(key) for key in ("time_ms", "values", "boot") if key in options}
    payload = Event(name, **{"time_ms": NOW_MS, **changes}).encode()  # type: ignore[arg-type]
    return truck.seal(ParcelKind.EVENT, payload, **options)  # type: ignore[arg-type]


async def state_of(side: Side, epoch: int = EPOCH) -> EpochState:
    state = await side.fleet.epoch_state("ke-arrow", epoch)
    assert state is not None
    return state


async def test_a_repeated_upload_is_acknowledged_identically_and_stored_once(side: Side, truck: ScriptedTruck) -> None:
    parcels = truck.offer(), truck.batch(rows_from(NOW_S)), event(truck)
    assert await truck.upload(*parcels) == await truck.upload(*parcels)
    assert len(await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)) == 1
    assert len(await side.fleet.events("ke-arrow")) == 1


async def test_a_batch_is_indexed_by_its_head_and_signed_as_it_came(side: Side, truck: ScriptedTruck) -> None:
    sealed = truck.offer(), truck.batch(rows_from(NOW_S, 5))
    await truck.upload(*sealed)
    (record,) = await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)
    assert (record.first_ms, record.last_ms, record.rows) == (NOW_S * 1000, (NOW_S + 240) * 1000, 5)
    assert (record.sealed, record.state) == (sealed[1], BatchState.READY)


async def test_gaps_are_acknowledged_as_ranges(truck: ScriptedTruck) -> None:
    first, second, third, fourth = (event(truck) for _ in range(4))
    assert (await truck.upload(first, third)).ranges == ((3, 3),)
    assert (await truck.upload(fourth)).ranges == ((3, 4),)
    assert (await truck.upload(second)).cumulative == 4


async def test_a_bad_signature_is_refused_by_its_sequence_and_put_aside(side: Side, truck: ScriptedTruck) -> None:
    forged = event(truck, key=cose.SigningKey(b"f" * 32))
    ack = await truck.upload(forged, event(truck))
    assert ack.refused == ((1, Refusal.BAD_SIGNATURE),)
    assert (ack.cumulative, ack.ranges) == (0, ((2, 2),))
    (aside,) = await side.fleet.quarantined("ke-arrow")
    assert (aside.sequence, aside.sealed) == (1, forged)


async def test_a_parcel_whose_check_fails_unforeseen_is_refused_and_the_others_are_stored(
    side: Side, truck: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peek(*_: object) -> None:
        raise RecursionError("deeper than anybody thought")

    monkeypatch.setattr("gateway.parts.peek", peek)
    ack = await truck.upload(truck.offer(), truck.batch(rows_from(NOW_S)), event(truck))
    assert ack.refused == ((2, Refusal.MALFORMED),)
    assert (ack.cumulative, ack.ranges) == (1, ((3, 3),))
    (aside,) = await side.fleet.quarantined("ke-arrow")
    assert (aside.sequence, aside.reason) == (2, "RecursionError: deeper than anybody thought")


async def test_a_parcel_of_another_truck_is_refused(side: Side, truck: ScriptedTruck) -> None:
    truck.name = "ke-other"
    foreign = event(truck)
    truck.name = "ke-arrow"
    assert (await truck.upload(foreign)).refused == ((1, Refusal.BAD_SIGNATURE),)


async def test_a_parcel_of_another_epoch_is_refused(truck: ScriptedTruck) -> None:
    await truck.upload(event(truck))
    assert (await truck.upload(event(truck, epoch=EPOCH + 1))).refused == ((2, Refusal.BAD_SIGNATURE),)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (ParcelKind.EVENT, b"\xff"),
        (ParcelKind.EVENT, b""),
        (ParcelKind.EVENT, Event("door", NOW_MS).encode() + b"\x00"),
        (ParcelKind.EVENT, Event("door", 1 << 62).encode()),
        (ParcelKind.BATCH, b"\x83\x01\xf6"),
        (ParcelKind.SCHEMA, b"\x82\x01\x41\xff"),
        (ParcelKind.TOMBSTONE, Tombstone(EPOCH, ((9, 2),), "full").encode()),
        (ParcelKind.RECEIPT, Receipt(DocumentKind.CONFIG, bytes(32), Outcome.APPLIED, reason="a\0b").encode()),
    ],
)
async def test_a_malformed_payload_is_refused_and_the_rest_is_stored(
    truck: ScriptedTruck, kind: ParcelKind, payload: bytes
) -> None:
    ack = await truck.upload(truck.seal(kind, payload), event(truck))
    assert ack.refused == ((1, Refusal.MALFORMED),)
    assert ack.ranges == ((2, 2),)


async def test_a_parcel_that_is_no_parcel_is_put_aside(side: Side, truck: ScriptedTruck) -> None:
    ack = await truck.upload(bytes(100), event(truck))
    assert (ack.cumulative, ack.refused) == (1, ())
    assert [each.sequence for each in await side.fleet.quarantined("ke-arrow")] == [None]


async def test_a_batch_whose_body_has_no_head_is_refused(truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer())
    for body in (b"", b"\x00", b"\xff\xff\xff"):
        parcel = truck.seal(ParcelKind.BATCH, Batch(1, None, body).encode(), schema=SCHEMA)
        assert (await truck.upload(parcel)).refused == ((truck.sequence, Refusal.MALFORMED),)


async def test_a_batch_of_an_unknown_schema_is_parked_asked_for_and_taken_up_later(
    side: Side, truck: ScriptedTruck
) -> None:
    truck.sequence = 1
    ack = await truck.upload(truck.batch(rows_from(NOW_S)))
    assert (ack.ranges, ack.schemas) == (((2, 2),), (1,))
    assert await side.fleet.batches("ke-arrow", 0, NOW_MS * 2) == []
    assert (await truck.upload(truck.offer(sequence=1))).cumulative == 2
    (record,) = await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)
    assert (record.state, record.rows) == (BatchState.READY, 3)


async def test_a_parked_batch_that_does_not_verify_is_rejected_and_put_aside(side: Side, truck: ScriptedTruck) -> None:
    truck.sequence = 1
    await truck.upload(truck.batch(rows_from(NOW_S), key=cose.SigningKey(b"f" * 32)))
    await truck.upload(truck.offer(sequence=1))
    assert (await side.fleet.coverage("ke-arrow", 0, NOW_MS * 2)).rejected == 1
    assert [each.sequence for each in await side.fleet.quarantined("ke-arrow")] == [2]


async def test_a_parked_batch_verifies_under_the_key_that_the_truck_had_then(side: Side, truck: ScriptedTruck) -> None:
    truck.sequence = 1
    await truck.upload(truck.batch(rows_from(NOW_S)))
    truck.signing = cose.SigningKey(b"n" * 32)
    await enrol_directly(side.fleet, truck)
    await asyncio.sleep(0.1)
    await truck.handshake("sat")
    await truck.upload(truck.offer(sequence=1))
    assert [each.rows for each in await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)] == [3]


async def test_an_epoch_left_out_is_found_by_the_signature(side: Side, truck: ScriptedTruck) -> None:
    for epoch in (EPOCH, EPOCH + 1):
        await truck.upload(event(truck, epoch=epoch), epoch=epoch)
    truck.sequence = 10
    await truck.upload(event(truck, epoch=EPOCH), epoch=None)
    await truck.upload(event(truck, epoch=EPOCH + 1), epoch=None)
    assert (await state_of(side)).ranges == ((11, 11),)
    assert (await state_of(side, EPOCH + 1)).covers(12)


async def test_an_epoch_left_out_that_nobody_knows_is_asked_for(truck: ScriptedTruck) -> None:
    assert (await truck.upload(event(truck), epoch=None)).epoch_unknown
    assert (await truck.upload(event(truck, sequence=1))).cumulative == 1
    assert (await truck.upload(event(truck, epoch=EPOCH + 5), epoch=None)).epoch_unknown


async def test_a_batch_that_nothing_verifies_is_never_parked_under_a_guessed_epoch(
    side: Side, truck: ScriptedTruck
) -> None:
    await truck.upload(event(truck))
    other = truck.batch(rows_from(NOW_S), number=9, epoch=EPOCH + 1)
    assert (await truck.upload(other, epoch=None)).epoch_unknown
    assert (await state_of(side)).ranges == ()


async def test_two_schemas_share_one_upload_with_their_batches(truck: ScriptedTruck, side: Side) -> None:
    wide = Schema((*SCHEMA.channels, Channel("fan", "%", 1, 0, 1)), period_s=60)
    parcels = [truck.offer(), truck.offer(wide, 2), truck.batch(rows_from(NOW_S))]
    parcels.append(truck.batch([(NOW_S, (1, 2, 3))], schema=wide, number=2))
    assert (await truck.upload(*parcels)).cumulative == 4


async def test_a_clock_event_dates_what_came_before_it(side: Side, truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer(), truck.batch(rows_from(100), boot=4))
    assert await side.fleet.batches("ke-arrow", 0, NOW_MS * 2) == []
    await truck.upload(event(truck, "clock", values={"boot": 4, "offset_ms": NOW_MS}))
    (record,) = await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)
    assert record.first_ms == NOW_MS + 100_000


@pytest.mark.parametrize(
    "values", [{"boot": 4, "offset_ms": 1 << 62}, {"boot": -1, "offset_ms": 5}, {"boot": True}, {}]
)
async def test_a_clock_that_no_truck_has_is_stored_and_not_believed(
    side: Side, truck: ScriptedTruck, values: dict[str, int]
) -> None:
    await truck.upload(truck.offer(), truck.batch(rows_from(100), boot=4))
    assert (await truck.upload(event(truck, "clock", values=values))).cumulative == 3
    assert (await side.fleet.coverage("ke-arrow", 0, NOW_MS * 2)).timeless == 1


async def test_a_tombstone_closes_its_gap(side: Side, truck: ScriptedTruck) -> None:
    await truck.upload(event(truck, sequence=1), event(truck, sequence=5))
    tombstone = truck.seal(ParcelKind.TOMBSTONE, Tombstone(EPOCH, ((2, 4),), "full").encode(), sequence=6)
    assert (await truck.upload(tombstone)).cumulative == 6


async def test_what_a_truck_gone_bad_makes_the_gateway_keep_is_bounded(side: Side, truck: ScriptedTruck) -> None:
    random_ = random.Random(3)
    with structlog.testing.capture_logs():
        for _ in range(6):
            await truck.upload(*(random_.randbytes(80) for _ in range(14)))
    assert len(await side.fleet.quarantined("ke-arrow", limit=1000)) <= 256


async def test_a_burst_of_batches_loads_their_schema_once(
    side: Side, truck: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    await truck.upload(truck.offer())
    asked = []
    load = side.fleet.schema_numbered

    async def counted(*key: object) -> object:
        asked.append(key)
        return await load(*key)  # type: ignore[arg-type]

    monkeypatch.setattr(side.fleet, "schema_numbered", counted)
    side.ingest._schemas.clear()  # as after a restart
    await asyncio.gather(*(truck.upload(truck.batch(rows_from(NOW_S + 600 * n))) for n in range(10)))
    assert len(asked) == 1


async def test_a_summary_is_taken_by_its_pieces_and_parked_until_its_schema_is_here(
    side: Side, truck: ScriptedTruck
) -> None:
    derived = summary_schema(SCHEMA)
    pieces = summarise(SCHEMA, rows_from(NOW_S, 90))
    payload = Batch(2, None, encode_summary(derived, Summary(((4, pieces),)))).encode()
    sealed = truck.seal(ParcelKind.BATCH, payload, schema=derived)
    assert (await truck.upload(sealed)).schemas == (2,)
    await truck.upload(truck.seal(ParcelKind.SCHEMA, SchemaOffer(2, derived.encoded).encode()))
    (record,) = await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)
    assert (record.state, record.rows) == (BatchState.READY, 0)
    assert (record.first_ms, record.last_ms) == (NOW_S * 1000, (NOW_S + 89 * 60) * 1000)


async def test_a_tombstone_may_name_parcels_of_an_older_epoch(side: Side, truck: ScriptedTruck) -> None:
    await truck.upload(event(truck))
    truck.sequence = 0
    tombstone = Tombstone(epoch=EPOCH, ranges=((2, 5),), reason="folded", rows=9).encode()
    ack = await truck.upload(truck.seal(ParcelKind.TOMBSTONE, tombstone, epoch=EPOCH + 1), epoch=EPOCH + 1)
    assert (ack.refused, ack.cumulative) == ((), 1)
    assert (await state_of(side)).cumulative == 5
