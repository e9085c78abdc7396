"""The ladder of detail on a truck: summaries go first, detail is folded before anything is dropped, all is told of."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from gateway.rollups import RollupTask
from protocol import batch
from protocol.cose import digest
from protocol.messages import Batch, Parcel, decode_payload, unseal, verify_parcel
from protocol.numbers import ParcelKind, Precedence
from protocol.schema import Codec, Schema, decode_schema
from protocol.summary import Summary, decode_summary, summarise
from store import eviction
from store.documents import Schemas
from store.fleet.evidence import DAY_MS
from tests.edge.rig import Rig, arrived, send, settled, until
from tests.edge.trucks import KEY, SCHEMA, Truck

AFTER_S = 6 * 3600


class Queue:
    """What waits on a truck: batches of rows, summaries and tombstones, by sequence."""

    def __init__(self, truck: Truck) -> None:
        self.rows: dict[int, list[tuple[int, tuple[int | None, ...]]]] = {}
        self.summaries: dict[int, Summary] = {}
        self.precedences: dict[int, Precedence] = {}
        self.buried: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        schemas = {each.number: decode_schema(each.schema) for each in Schemas(truck.database).all()}
        for (sealed,) in truck.database.rows("SELECT sealed FROM parcels WHERE state = 1 ORDER BY id"):
            self._take(unseal(sealed), sealed, schemas, truck)

    def _take(self, parcel: Parcel, sealed: bytes, schemas: dict[int, Schema], truck: Truck) -> None:
        payload = decode_payload(parcel)
        self.precedences[parcel.sequence] = parcel.precedence
        if parcel.kind is ParcelKind.TOMBSTONE:
            self.reasons[payload.reason] += payload.rows
            for first, last in payload.ranges:
                self.buried.update(range(first, last + 1))
        if parcel.kind is not ParcelKind.BATCH:
            return
        assert isinstance(payload, Batch)
        schema = schemas[payload.schema]
        verify_parcel(sealed, KEY.public, "ke-arrow", truck.queue.epoch, digest(schema.encoded))
        if schema.codec is Codec.SUMMARY:
            self.summaries[parcel.sequence] = decode_summary(schema, payload.body)
        else:
            self.rows[parcel.sequence] = batch.decode(schema, payload.body)

    @property
    def told(self) -> dict[int, int]:
        """How many rows the summaries tell of each batch."""
        return {
            sequence: sum(piece.rows for piece in pieces)
            for each in self.summaries.values()
            for sequence, pieces in each.batches
        }


async def record(truck: Truck, rows: int, *, size: int = 1 << 20) -> None:
    chance = random.Random(3)
    for _ in range(rows):
        await truck.row(chance.randint(-size, size), chance.randint(-size, size))


async def test_detail_that_waits_is_summarised_as_priority_and_stays(tmp_path: Path) -> None:
    truck = Truck(tmp_path)
    await truck.start()
    truck.recorder.summary_after_s = AFTER_S
    await record(truck, 300)
    await truck.recorder.close_all()
    await truck.recorder.tick()
    assert Queue(truck).summaries == {}
    truck.monotonic.now += 4 * AFTER_S + 1
    await truck.recorder.tick()
    queue = Queue(truck)
    assert sum(map(len, queue.rows.values())) == 300
    assert queue.told == {sequence: len(rows) for sequence, rows in queue.rows.items()}
    for sequence, summary in queue.summaries.items():
        assert queue.precedences[sequence] is Precedence.PRIORITY
        for of, pieces in summary.batches:
            assert pieces == summarise(SCHEMA, queue.rows[of])
    before = len(queue.summaries)
    truck.monotonic.now += AFTER_S
    await truck.recorder.tick()
    assert len(Queue(truck).summaries) == before
    await truck.stop()


async def test_what_was_delivered_is_not_summarised(tmp_path: Path) -> None:
    truck = Truck(tmp_path)
    await truck.start()
    truck.recorder.summary_after_s = AFTER_S
    await record(truck, 100)
    await truck.recorder.close_all()
    truck.deliver()
    truck.monotonic.now += 5 * AFTER_S
    await truck.recorder.tick()
    assert Queue(truck).summaries == {}
    await truck.stop()


async def test_few_summaries_wait_at_once_so_that_what_is_urgent_is_not_behind_months_of_them(tmp_path: Path) -> None:
    truck = Truck(tmp_path)
    await truck.start()
    truck.recorder.summary_after_s = AFTER_S
    for _ in range(80):
        # Each row is a batch of its own: they fill no datagram together, so each group is of 16.
        await record(truck, 2)
        await truck.recorder.close_all()
    for _ in range(20):
        truck.monotonic.now += 5 * AFTER_S
        await truck.recorder.tick()
    queue = Queue(truck)
    assert 0 < len(queue.summaries) <= 8
    truck.deliver()
    truck.monotonic.now += 5 * AFTER_S
    await truck.recorder.tick()
    assert Queue(truck).summaries == {}
    await truck.stop()


async def test_a_full_share_folds_its_oldest_detail_and_every_row_is_told_of(tmp_path: Path) -> None:
    truck = Truck(tmp_path, share_bytes=1 << 20)
    await truck.start()
    # Most of the share is taken by others, which spares this test weeks of rows.
    truck.database.sql.execute("CREATE TABLE ballast (data BLOB)")
    room = truck.database.capacity_bytes() * 85 // 100 - truck.database.used_bytes() - 30_000
    truck.database.sql.execute("INSERT INTO ballast VALUES (zeroblob(?))", [room])
    rows = 2_400
    truck.database.sql.conn.execute("PRAGMA synchronous = OFF")
    await record(truck, rows, size=1 << 55)
    await truck.recorder.close_all()
    queue = Queue(truck)
    detail = sum(map(len, queue.rows.values()))
    folded = {sequence: count for sequence, count in queue.told.items() if sequence not in queue.rows}
    assert queue.reasons == {"folded": rows - detail}, "nothing was dropped without being told of"
    assert sum(folded.values()) == rows - detail > 0
    assert set(queue.buried) == set(folded)
    assert max(queue.buried.values()) == 1
    assert max(folded) < min(queue.rows)
    await truck.stop()


async def test_rows_of_an_unset_clock_are_folded_under_their_boot(tmp_path: Path) -> None:
    truck = Truck(tmp_path, synced=False)
    await truck.start()
    await record(truck, 120)
    await truck.recorder.close_all()
    with truck.database.atomic():
        assert truck.queue.folding is not None
        truck.queue.folding(lambda dropped: None)
    numbers = {
        each.number for each in Schemas(truck.database).all() if decode_schema(each.schema).codec is Codec.SUMMARY
    }
    (summary,) = [each for each in truck.payloads_left(ParcelKind.BATCH) if each.schema in numbers]
    assert summary.boot == truck.boot
    await truck.stop()


async def test_a_batch_that_cannot_be_decoded_is_left_and_stops_nothing(tmp_path: Path) -> None:
    truck = Truck(tmp_path)
    await truck.start()
    await record(truck, 5)
    await truck.recorder.close_all()
    truck.database.sql.conn.execute("UPDATE parcels SET schema_digest = zeroblob(32) WHERE kind = 1")
    await record(truck, 5)
    await truck.recorder.close_all()
    buried = []
    with truck.database.atomic():
        assert truck.queue.folding is not None
        assert truck.queue.folding(buried.append) > 0
        assert truck.queue.folding(buried.append) == 0
    assert [each.rows for each in buried] == [5]
    await truck.stop()


async def test_a_gateway_counts_every_row_once_from_detail_and_summaries_of_a_truck_that_was_offline(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = await rig.join()
    first = await rig.start(data)
    await send(first, "hello")
    await arrived(rig, "hello")
    await rig.stop(first)
    offline = await rig.start(data, run=False)
    assert offline.clock.wall_s() is not None
    await offline.recorder.open_series("solar", SCHEMA)
    rows = 1_800
    offline.state.sql.conn.execute("PRAGMA synchronous = OFF")
    start_s = offline.clock.monotonic() - 60 * rows
    chance = random.Random(3)
    cells = [(chance.randint(-(1 << 54), 1 << 54), chance.choice([None, 5])) for _ in range(rows)]
    for at in range(rows):
        await offline.recorder.on_row("solar", start_s + 60 * at, cells[at])
    await offline.recorder.close_all()
    # Some detail is folded, some is summarised and stays, and some stays as it is.
    with monkeypatch.context() as full:
        there = offline.state.used_bytes() + eviction.OVERHEAD_BYTES
        full.setattr(eviction, "ADMISSION_PERCENT", 100 * there / offline.state.capacity_bytes())
        await offline.recorder.event("full", Precedence.NORMAL)
    offline.recorder.summary_after_s = 3600
    oldest = "id IN (SELECT id FROM parcels WHERE kind = 1 AND state = 1 ORDER BY id LIMIT 3)"
    await offline.writer.run(lambda: offline.state.update("parcels", oldest, {}, added_s=1))
    await offline.recorder.tick()
    await rig.stop(offline)
    online = await rig.start(data)
    await settled(online)
    assert rig.hub.gateway is not None
    fleet = rig.hub.gateway.fleet
    task = RollupTask(fleet)

    async def rolled_up() -> bool:
        return not await fleet.pending_rollups() or await task.catch_up() < 0

    await until(rolled_up)
    rollups = await fleet.rollups("ke-arrow", ["bat_v", "pv_w"], 0, 1 << 50, DAY_MS)
    volts = [each for each in rollups if each.channel == "bat_v"]
    assert sum(each.count for each in volts) == rows
    assert sum(each.count for each in rollups if each.channel == "pv_w") == sum(pv is not None for _, pv in cells)
    assert min(each.minimum for each in volts) == pytest.approx(min(volt for volt, _ in cells) / 100)
    coverage = await fleet.coverage("ke-arrow", 0, 1 << 50)
    assert sum(last - first + 1 for epoch in coverage.epochs for first, last, _ in epoch.dropped) > 0
    assert {reason for epoch in coverage.epochs for _, _, reason in epoch.dropped} == {"folded"}
    assert 0 < coverage.rows < rows
    assert sum(epoch.dropped_rows for epoch in coverage.epochs) == 0
    summaries = [each for each in await fleet.batches("ke-arrow", 0, 1 << 50) if each.rows == 0]
    assert len(summaries) >= 2
    assert not any(epoch.missing for epoch in coverage.epochs)
