"""Batches that go on from others at the gateway: verified with their base, parked without it, read and proven later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.decoding import SchemaCache
from gateway.evidence import EvidenceError, LineWriter, Verification, Verifier
from gateway.parked import Parked
from gateway.proof import evidence_lines
from gateway.rollups import RollupTask
from protocol import batch
from protocol.messages import Batch, Parcel, batch_meaning, content_digest, seal
from protocol.numbers import CODEC_ASSUMED, ParcelKind, Precedence, Refusal
from protocol.schema import Codec
from store.fleet.evidence import BatchState, ParcelKey
from tests.gateway.coapside import EPOCH, ScriptedTruck, Side
from tests.gateway.fleets import NOW_MS, NOW_S, SCHEMA

CARRIED = replace(SCHEMA, codec=Codec.CARRIED)
Rows = list[tuple[int, tuple[int | None, ...]]]


@pytest.fixture(autouse=True)
async def _session(truck: ScriptedTruck) -> None:
    await truck.handshake("sat")


def rows(at: int) -> Rows:
    return [(NOW_S + 3_600 * at + 60 * n, (2_600 + (7 * n + at) % 11, at)) for n in range(20)]


def run(truck: ScriptedTruck, count: int, **changes: Any) -> list[bytes]:
    """Return sealed batches that each go on from the one before."""
    made: list[bytes] = []
    model = None
    for at in range(count):
        body = batch.encode(CARRIED, rows(at), base=model)
        model = batch.decode_on(CARRIED, body, base=model)[1]
        truck.sequence += 1
        payload = Batch(changes.get("number", 1), None, body, 1 if made else None).encode()
        meaning = batch_meaning(CARRIED.digest, content_digest(made[-1]) if made else None)
        parcel = Parcel(EPOCH, truck.sequence, Precedence.NORMAL, ParcelKind.BATCH, payload)
        made.append(seal(truck.signing, parcel, truck.name, meaning))
    return made


async def states(side: Side, *sequences: int) -> list[BatchState | None]:
    found = [await side.fleet.batch(ParcelKey("ke-arrow", EPOCH, each)) for each in sequences]
    return [None if each is None else each.state for each in found]


async def decoded(side: Side) -> list[Rows]:
    """Return the rows of what is stored, each read by a reader that knows nothing yet."""
    found = []
    for record in await side.fleet.batches("ke-arrow", 0, NOW_MS * 2):
        ((_, each),) = await SchemaCache(side.fleet).decode([record])
        found.append([(time // 1000, values) for time, values in each.rows])
    return found


async def test_a_gateway_says_which_codec_it_knows_with_the_time(truck: ScriptedTruck) -> None:
    assert (await truck.upload(ask_time=True)).codec == max(Codec) >= Codec.CARRIED
    assert (await truck.upload()).codec == CODEC_ASSUMED


async def test_a_run_is_verified_read_in_any_order_and_rolled_up(side: Side, truck: ScriptedTruck) -> None:
    ack = await truck.upload(truck.offer(CARRIED), *run(truck, 5))
    assert (ack.cumulative, ack.refused, ack.schemas) == (6, (), ())
    assert await decoded(side) == [rows(at) for at in range(5)]
    records = await side.fleet.batches("ke-arrow", 0, NOW_MS * 2)
    together = await SchemaCache(side.fleet).decode(records[::-1])
    assert [len(each.rows) for _, each in together] == [20] * 5
    assert await RollupTask(side.fleet).catch_up() == 5
    assert await side.fleet.quarantined("ke-arrow") == []


async def test_a_batch_without_its_base_is_parked_and_taken_when_that_comes(side: Side, truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer(CARRIED))
    first, second, third, fourth = run(truck, 4)
    ack = await truck.upload(third, fourth)
    # Acknowledged, for it is kept; the gap asks for its base, and nobody for its schema.
    assert (ack.cumulative, ack.ranges, ack.schemas, ack.refused) == (1, ((4, 5),), (), ())
    assert await states(side, 4, 5) == [BatchState.PARKED, BatchState.PARKED]
    await truck.upload(first)
    assert await states(side, 2, 4, 5) == [BatchState.READY, BatchState.PARKED, BatchState.PARKED]
    assert (await truck.upload(second)).cumulative == 5
    assert await states(side, 3, 4, 5) == [BatchState.READY] * 3
    assert await decoded(side) == [rows(at) for at in range(4)]


async def test_what_waits_for_its_base_is_found_again_by_another_process(side: Side, truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer(CARRIED))
    first, second = run(truck, 2)
    await truck.upload(second)
    side.ingest._parked = Parked(side.fleet, side.ingest._schema, now_ms=lambda: NOW_MS)  # as one that starts
    await truck.upload(first)
    assert await states(side, 2, 3) == [BatchState.READY] * 2


async def test_a_schema_that_comes_last_takes_a_whole_run_up(side: Side, truck: ScriptedTruck) -> None:
    offer = truck.offer(CARRIED)
    made = run(truck, 3)
    assert (await truck.upload(*made[::-1])).schemas == (1,)
    await truck.upload(offer)
    assert await states(side, 2, 3, 4) == [BatchState.READY] * 3


async def test_without_its_epoch_a_batch_whose_base_is_missing_is_asked_for_it(truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer(CARRIED))
    assert (await truck.upload(run(truck, 2)[1], epoch=None)).epoch_unknown


async def test_a_batch_that_goes_on_from_another_than_it_was_signed_for_is_refused(
    side: Side, truck: ScriptedTruck
) -> None:
    await truck.upload(truck.offer(CARRIED))
    _, second = run(truck, 2)
    truck.sequence -= 2
    other = truck.batch(rows(9), schema=CARRIED)
    await truck.upload(other)
    ack = await truck.upload(second)
    assert ack.refused == ((3, Refusal.BAD_SIGNATURE),)


async def test_a_base_under_another_codec_or_before_the_first_is_malformed(truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer(SCHEMA), truck.batch(rows(0)))
    body = batch.encode(SCHEMA, rows(1))
    based = truck.seal(ParcelKind.BATCH, Batch(1, None, body, 1).encode(), schema=SCHEMA)
    early = truck.seal(ParcelKind.BATCH, Batch(1, None, body, 99).encode(), schema=SCHEMA)
    assert (await truck.upload(based, early)).refused == ((3, Refusal.MALFORMED), (4, Refusal.MALFORMED))


async def exported(side: Side, since_s: int = 0) -> list[bytes]:
    writer = LineWriter()
    until_ms = 2 * NOW_MS
    lines = evidence_lines(side.fleet, "ke-arrow", since_ms=since_s * 1000, until_ms=until_ms, now_ms=NOW_MS)
    return (b"".join([writer.write(page) async for page in lines]) + writer.end()).splitlines(keepends=True)


def verified(lines: list[bytes]) -> Verification:
    verifier = Verifier()
    for line in lines:
        verifier.line(line)
    verifier.check_whole()
    return verifier.result()


async def test_evidence_comes_with_the_batches_that_it_goes_on_from(side: Side, truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer(CARRIED), *run(truck, 5))
    found = verified(await exported(side))
    assert (found.verified, found.failed, found.kinds["batch"]) == (6, 0, 5)
    found = verified(await exported(side, since_s=NOW_S + 3 * 3_600))
    # The fourth and the fifth are of the period; the first three are what they stand on.
    assert (found.failed, found.kinds["batch"]) == (0, 5)


async def test_evidence_whose_base_was_taken_out_or_changed_does_not_verify(side: Side, truck: ScriptedTruck) -> None:
    await truck.upload(truck.offer(CARRIED), *run(truck, 3))
    lines = await exported(side)
    verifier = Verifier()
    for line in lines[:-1]:
        if b'"sequence":3,' not in line:
            verifier.line(line)
    found = verifier.result()
    assert [(each.sequence, each.reason) for each in found.findings] == [
        (4, "the batch that it goes on from is missing, or was changed")
    ]
    with pytest.raises(EvidenceError, match="newer digitruck"):
        Verifier().line(lines[0].replace(b'"format":2', b'"format":3'))
