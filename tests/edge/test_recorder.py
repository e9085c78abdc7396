"""The recorder on a real database: nothing accepted is lost or doubled, whatever fails and whenever it stops."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge.clock import Clock
from edge.recorder import LOCAL_SERIES, Recorder
from protocol import batch
from protocol.cose import SigningKey
from protocol.errors import LocalError, MalformedError, QueueFullError
from protocol.messages import Batch, Event, Receipt, SchemaOffer, decode_payload, unseal, verify_parcel
from protocol.numbers import DATAGRAM_PAYLOAD_BYTES_MAX, DocumentKind, Outcome, ParcelKind, Precedence
from protocol.schema import Channel, Schema, decode_schema
from store import incidents
from store.database import open_database
from store.errors import CommitUnknownError, StoreFailedError
from store.openrows import OpenRow, OpenRows
from store.parcels import ParcelQueue
from store.schema import STATE
from store.writer import Writer

KEY = SigningKey(b"k" * 32)
SCHEMA = Schema((Channel("bat_v", "V", 100, 2600, 5), Channel("pv_w", "W", 1, 0, 50)), period_s=60)
OTHER = Schema((Channel("level", "m", 10, 0, 5),), period_s=10)
NOW_S = 1_795_000_000


class Monotonic:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Truck:
    """A recorder on its database; `restart` is a power cut and a new start."""

    folder: Path
    monotonic: Monotonic = field(default_factory=Monotonic)
    boot: int = 7
    synced: bool = True
    share_bytes: int = 4 << 20
    parcels_seen: int = 0

    async def start(self, *, open_series: bool = True) -> None:
        self.database = open_database(self.folder / "state.db", schema=STATE, share_bytes=self.share_bytes)
        self.queue = ParcelQueue(self.database, "ke-arrow")
        self.writer = Writer(self.database)
        self.writer.start()
        offset_s = NOW_S - self.monotonic.now if self.synced else None
        self.clock = Clock(boot=self.boot, floor_s=0, offset_s=offset_s, monotonic=self.monotonic)
        self.recorder = Recorder(
            truck="ke-arrow",
            key=KEY,
            database=self.database,
            queue=self.queue,
            writer=self.writer,
            clock=self.clock,
            batch_age_s=3_600,
            on_parcel=self._on_parcel,
        )
        await self.recorder.recover()
        if open_series:
            await self.recorder.open_series("solar", SCHEMA)

    async def _on_parcel(self) -> None:
        self.parcels_seen += 1

    async def stop(self) -> None:
        await self.writer.close()
        self.database.crash()

    async def restart(self, **options: Any) -> None:
        await self.stop()
        await self.start(**options)

    async def row(self, *cells: int | None, name: str = "solar") -> None:
        self.monotonic.now += 60
        await self.recorder.on_row(name, self.monotonic.now, cells)

    def payloads(self, kind: ParcelKind) -> list[Any]:
        sealed = [row[0] for row in self.database.rows("SELECT sealed FROM parcels ORDER BY id")]
        parcels = [unseal(each) for each in sealed]
        return [decode_payload(each) for each in parcels if each.kind is kind]

    def events(self) -> list[Event]:
        return self.payloads(ParcelKind.EVENT)

    def rows(self, name: Schema = SCHEMA) -> list[tuple[int | None, int, tuple[int | None, ...]]]:
        """Return (boot, time, cells) of every row of a schema that is in a parcel."""
        numbers = {each.number for each in self.payloads(ParcelKind.SCHEMA) if each.schema == name.encoded}
        return [
            (each.boot, time, cells)
            for each in self.payloads(ParcelKind.BATCH)
            if each.schema in numbers
            for time, cells in batch.decode(name, each.body)
        ]

    def open_rows(self) -> int:
        return int(self.database.value("SELECT count(*) FROM open_rows"))


@pytest.fixture
async def truck(tmp_path: Path) -> AsyncIterator[Truck]:
    truck = Truck(tmp_path)
    await truck.start()
    try:
        yield truck
    finally:
        await truck.stop()


def break_commits(truck: Truck, monkeypatch: pytest.MonkeyPatch, *, times: int, durable: bool) -> None:
    """Let the next COMMITs of jobs that change something report an error, after they were done or instead."""
    run, left = truck.writer.run, times

    async def unknown(function: Any) -> Any:
        nonlocal left
        if left <= 0:
            return await run(function)
        left -= 1
        if durable:
            await run(function)
        raise CommitUnknownError("COMMIT failed")

    monkeypatch.setattr(truck.writer, "run", unknown)


async def test_a_row_is_durable_when_it_is_accepted(truck: Truck) -> None:
    await truck.row(2600, 10)
    await truck.restart()
    assert [cells for _, _, cells in truck.rows()] == [(2600, 10)]
    assert truck.open_rows() == 0


async def test_open_rows_are_recovered_once(truck: Truck) -> None:
    for value in range(20):
        await truck.row(2600 + value, None)
    for _ in range(3):
        await truck.restart()
    assert [cells[0] for _, _, cells in truck.rows()] == list(range(2600, 2620))


async def test_rows_of_different_boots_are_recovered_apart(tmp_path: Path) -> None:
    truck = Truck(tmp_path, synced=False)
    await truck.start()
    await truck.row(1, 1)
    await truck.stop()
    truck.boot = 8
    # Both boots' rows are open at once when the recovery itself was cut short.
    database = open_database(tmp_path / "state.db", schema=STATE, share_bytes=4 << 20)
    OpenRows(database).add(OpenRow(0, 8, 9_000, (2, 2)))
    database.crash()
    await truck.start()
    assert [(boot, cells) for boot, _, cells in truck.rows()] == [(7, (1, 1)), (8, (2, 2))]
    await truck.stop()


async def test_a_full_batch_fits_a_datagram_and_the_next_row_opens_another(truck: Truck) -> None:
    chance = random.Random(3)
    values = [(chance.randrange(-(2**40), 2**40), chance.randrange(2**40)) for _ in range(400)]
    for cells in values:
        await truck.row(*cells)
    sealed = [row[0] for row in truck.database.rows("SELECT sealed FROM parcels WHERE kind = 1")]
    assert len(sealed) > 3
    assert max(map(len, sealed)) <= DATAGRAM_PAYLOAD_BYTES_MAX - 16
    assert truck.open_rows() == len(values) - len(truck.rows())
    await truck.restart()
    assert [cells for _, _, cells in truck.rows()] == values


async def test_a_batch_of_rows_that_hardly_change_closes_at_the_most_rows(truck: Truck) -> None:
    number = truck.payloads(ParcelKind.SCHEMA)[0].number
    rows = OpenRows(truck.database)

    def fill() -> None:
        for at in range(batch.ROWS_MAX + 5):
            rows.add(OpenRow(number, None, NOW_S + 60 * at, (2600, 0)))

    await truck.writer.run(fill)
    await truck.restart()
    assert len(truck.rows()) == batch.ROWS_MAX + 5
    assert [len(batch.decode(SCHEMA, each.body)) for each in truck.payloads(ParcelKind.BATCH)] == [batch.ROWS_MAX, 5]


async def test_the_row_after_the_last_that_a_batch_takes_is_taken(
    truck: Truck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.recorder.ROWS_MAX", 8)
    for value in range(20):
        await truck.row(value, 0)
    await truck.recorder.close_all()
    assert [cells[0] for _, _, cells in truck.rows()] == list(range(20))


async def test_every_parcel_verifies_and_a_batch_only_with_its_schema(truck: Truck) -> None:
    await truck.row(1, 2)
    await truck.recorder.event("door.opened", Precedence.FLASH)
    await truck.recorder.close_all()
    for sealed, epoch in truck.database.rows("SELECT sealed, epoch FROM parcels"):
        is_batch = unseal(sealed).kind is ParcelKind.BATCH
        meaning = SCHEMA.digest if is_batch else None
        verify_parcel(sealed, KEY.public, "ke-arrow", int.from_bytes(epoch, "big"), meaning)


async def test_a_schema_is_offered_once(truck: Truck) -> None:
    await truck.recorder.open_series("solar", SCHEMA)
    await truck.restart()
    (offer,) = truck.payloads(ParcelKind.SCHEMA)
    assert decode_schema(offer.schema) == SCHEMA
    await truck.recorder.offer_again([offer.number, 999])
    await truck.recorder.offer_again([offer.number])
    assert len(truck.payloads(ParcelKind.SCHEMA)) == 2
    truck.monotonic.now += 601
    await truck.recorder.offer_again([offer.number])
    assert len(truck.payloads(ParcelKind.SCHEMA)) == 3


async def test_a_schema_is_offered_again_in_a_new_epoch(truck: Truck) -> None:
    await truck.stop()
    (truck.folder / "state.db.identity").unlink()  # what a restored copy looks like
    await truck.start()
    assert len(truck.payloads(ParcelKind.SCHEMA)) == 2


async def test_collectors_that_start_anew_go_on_with_their_batch(truck: Truck) -> None:
    await truck.row(1, 1)
    await truck.recorder.open_series("solar", SCHEMA)
    await truck.row(2, 2)
    await truck.recorder.close_all()
    assert [cells for _, _, cells in truck.rows()] == [(1, 1), (2, 2)]
    assert len(truck.payloads(ParcelKind.BATCH)) == 1


async def test_a_series_with_a_new_schema_closes_its_old_batch(truck: Truck) -> None:
    await truck.row(1, 1)
    await truck.recorder.open_series("solar", OTHER)
    await truck.row(5, name="solar")
    await truck.recorder.close_all()
    assert [cells for _, _, cells in truck.rows()] == [(1, 1)]
    assert [cells for _, _, cells in truck.rows(OTHER)] == [(5,)]
    assert truck.open_rows() == 0


async def test_two_series_of_the_same_schema_do_not_clear_each_others_rows(truck: Truck) -> None:
    await truck.recorder.open_series("spare", SCHEMA)
    await truck.row(1, 1)
    await truck.row(2, 2, name="spare")
    await truck.recorder.close_all()
    await truck.row(3, 3)
    await truck.restart()
    assert sorted(cells for _, _, cells in truck.rows()) == [(1, 1), (2, 2), (3, 3)]


async def test_a_batch_closes_when_it_is_old(truck: Truck) -> None:
    await truck.row(1, 1)
    await truck.recorder.tick()
    assert truck.open_rows() == 1
    truck.monotonic.now += 3_600
    await truck.recorder.tick()
    assert (truck.open_rows(), len(truck.rows())) == (0, 1)


async def test_a_row_that_does_not_fit_its_schema_is_refused_and_changes_nothing(truck: Truck) -> None:
    for cells in [(1,), (1, 2, 3), (2**64, 0)]:
        with pytest.raises(LocalError):
            await truck.row(*cells)
    assert truck.open_rows() == 0
    await truck.row(1, 1)
    await truck.restart()
    assert len(truck.rows()) == 1


# -- failures of the disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("rows_before", [0, 1, 30])
async def test_a_row_of_an_unknown_commit_is_kept_once(
    truck: Truck, monkeypatch: pytest.MonkeyPatch, durable: bool, rows_before: int
) -> None:
    for value in range(rows_before):
        await truck.row(value, 0)
    break_commits(truck, monkeypatch, times=2, durable=durable)
    await truck.row(77, 0)
    await truck.row(78, 0)
    await truck.recorder.close_all()
    assert [cells[0] for _, _, cells in truck.rows()] == [*range(rows_before), 77, 78]


@pytest.mark.parametrize("durable", [True, False])
async def test_a_batch_of_an_unknown_commit_is_queued_once(
    truck: Truck, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    for value in range(5):
        await truck.row(value, 0)
    break_commits(truck, monkeypatch, times=2, durable=durable)
    await truck.recorder.close_all()
    await truck.row(5, 0)
    await truck.restart()
    assert [cells[0] for _, _, cells in truck.rows()] == list(range(6))


@pytest.mark.parametrize("durable", [True, False])
async def test_an_event_of_an_unknown_commit_is_queued_once(
    truck: Truck, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    break_commits(truck, monkeypatch, times=1, durable=durable)
    await truck.recorder.event("door.opened", Precedence.FLASH)
    assert [event.name for event in truck.events()] == ["door.opened"]


async def test_a_disk_that_takes_nothing_is_told_and_the_rows_stay(
    truck: Truck, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in range(5):
        await truck.row(value, 0)
    with monkeypatch.context() as broken:
        break_commits(truck, broken, times=99, durable=False)
        with pytest.raises(StoreFailedError):
            await truck.recorder.close_all()
        with pytest.raises(StoreFailedError):
            await truck.row(99, 0)
    await truck.row(5, 0)
    await truck.recorder.close_all()
    assert [cells[0] for _, _, cells in truck.rows()] == list(range(6))


async def test_a_queue_that_is_full_refuses_and_keeps_what_was_accepted(
    truck: Truck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.recorder.BODY_BYTES_MAX", 60)
    accepted = []
    with monkeypatch.context() as full:

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise QueueFullError("the queue's share of the disk is used up")

        full.setattr(truck.queue, "add", refuse)
        for value in range(200):
            try:
                await truck.row(value * 7919 % 100_000, value)
                accepted.append(value)
            except QueueFullError:
                break
        assert 1 < len(accepted) < 199
        with pytest.raises(QueueFullError):
            await truck.recorder.close_all()
        await truck.stop()
        await truck.start()  # a daemon starts with a full queue too
    await truck.row(1, 999)
    await truck.recorder.close_all()
    assert [cells[1] for _, _, cells in truck.rows()] == [*accepted, 999]


async def test_a_start_with_a_full_queue_keeps_open_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truck = Truck(tmp_path)
    await truck.start()
    await truck.row(1, 1)
    await truck.stop()
    with monkeypatch.context() as full:

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise QueueFullError("full")

        full.setattr(ParcelQueue, "add", refuse)
        await truck.start()
        assert truck.open_rows() == 1
    await truck.row(2, 2)
    await truck.recorder.close_all()
    assert [cells for _, _, cells in truck.rows()] == [(1, 1), (2, 2)]
    await truck.stop()


async def test_rows_whose_schema_is_gone_are_named_as_lost(truck: Truck) -> None:
    await truck.row(1, 1)
    await truck.writer.run(lambda: truck.database.delete("schemas", "1 = 1"))
    await truck.restart(open_series=False)
    (incident,) = [each for each in incidents.unreported(truck.database) if each.name == "rows.lost"]
    assert incident.values["rows"] == 1
    assert truck.open_rows() == 0


@pytest.mark.parametrize("failing", range(1, 25))
async def test_a_power_cut_at_any_statement_loses_no_row_and_doubles_none(tmp_path: Path, failing: int) -> None:
    truck = Truck(tmp_path)
    await truck.start()
    accepted: list[int] = []
    statements = 0

    def cut(_statement: str) -> None:
        nonlocal statements
        statements += 1
        if statements == failing:
            truck.database.sql.conn.interrupt()

    for value in range(3):
        await truck.row(value, 0)
        accepted.append(value)
    truck.database.sql.conn.set_trace_callback(cut)
    with pytest.MonkeyPatch.context() as small:
        small.setattr("edge.recorder.BODY_BYTES_MAX", 12)
        for value in range(3, 9):
            try:
                await truck.row(value, 0)
                accepted.append(value)
            except (sqlite3.OperationalError, LocalError):
                break
    truck.database.sql.conn.set_trace_callback(None)
    await truck.restart()
    values = [cells[0] for _, _, cells in truck.rows()]
    assert values[: len(accepted)] == accepted
    # The one that was refused may be there: its fate was told as unknown. No other, and none twice.
    assert values in (accepted, [*accepted, len(accepted)])
    await truck.stop()


# -- the clock ---------------------------------------------------------------------------------------------------------


async def test_a_clock_learnt_late_closes_the_batches_of_boot_time_and_tells_what_they_mean(tmp_path: Path) -> None:
    truck = Truck(tmp_path, synced=False)
    await truck.start()
    await truck.row(1, 1)
    first_s = truck.monotonic.now
    truck.clock.learn(NOW_S, 0.0)
    offset_s = truck.clock.offset_s
    assert offset_s is not None
    await truck.recorder.clock_known()
    await truck.row(2, 2)
    await truck.recorder.close_all()
    (one, two) = truck.rows()
    ticks = SCHEMA.ticks_per_s
    assert one == (7, round(first_s * ticks), (1, 1))
    assert two == (None, round((truck.monotonic.now + offset_s) * ticks), (2, 2))
    (clock,) = [event for event in truck.events() if event.name == "clock"]
    assert clock.values == {"boot": 7, "offset_ms": round(offset_s * 1000)}
    assert clock.boot is None
    await truck.stop()


async def test_a_row_between_learning_and_telling_starts_its_own_batch(tmp_path: Path) -> None:
    truck = Truck(tmp_path, synced=False)
    await truck.start()
    await truck.row(1, 1)
    truck.clock.learn(NOW_S, 0.0)
    await truck.row(2, 2)
    await truck.recorder.clock_known()
    await truck.recorder.close_all()
    assert [(boot, cells) for boot, _, cells in truck.rows()] == [(7, (1, 1)), (None, (2, 2))]
    await truck.stop()


async def test_an_event_of_before_the_clock_was_known_carries_its_boot(tmp_path: Path) -> None:
    truck = Truck(tmp_path, synced=False)
    await truck.start()
    await truck.recorder.event("door.opened", Precedence.NORMAL)
    await truck.recorder.event("told.by.a.script", Precedence.NORMAL, time_s=NOW_S)
    first, second = (event for event in truck.events() if "." in event.name and not event.name.startswith("store."))
    assert (first.boot, first.time_ms) == (7, round(truck.monotonic.now * 1000))
    assert (second.boot, second.time_ms) == (None, NOW_S * 1000)
    await truck.stop()


@pytest.mark.parametrize("synced", [True, False])
async def test_an_incident_of_an_unknown_time_is_not_of_1970(tmp_path: Path, synced: bool) -> None:
    truck = Truck(tmp_path, synced=synced)
    await truck.start()
    await truck.recorder.tick()
    await truck.recorder.tick()
    (event,) = [event for event in truck.events() if event.name == "store.epoch"]
    if synced:
        assert (event.boot, event.time_ms) == (None, NOW_S * 1000)
    else:
        assert (event.boot, event.time_ms) == (7, round(truck.monotonic.now * 1000))
    await truck.stop()


# -- receipts and local scripts ----------------------------------------------------------------------------------------


def receipt(version: int = 1, outcome: Outcome = Outcome.APPLIED, kind: DocumentKind = DocumentKind.CONFIG) -> Receipt:
    return Receipt(document=kind, digest=bytes([version]) * 32, outcome=outcome, name="ke-arrow", version=version)


async def test_a_receipt_has_the_time_once_it_is_known(truck: Truck) -> None:
    await truck.recorder.receipt(receipt())
    assert truck.payloads(ParcelKind.RECEIPT)[0].time_ms == NOW_S * 1000


async def test_the_same_receipt_is_sent_once_even_over_restarts(truck: Truck) -> None:
    for _ in range(2):
        await truck.recorder.receipt(receipt())
        await truck.restart()
    await truck.recorder.receipt(receipt(outcome=Outcome.ROLLED_BACK))
    await truck.recorder.receipt(receipt(version=2))
    await truck.recorder.receipt(receipt(version=1))
    assert [(each.version, each.outcome) for each in truck.payloads(ParcelKind.RECEIPT)] == [
        (1, Outcome.APPLIED),
        (1, Outcome.ROLLED_BACK),
        (2, Outcome.APPLIED),
        (1, Outcome.APPLIED),
    ]


async def test_a_receipt_of_a_desired_state_may_be_repeated(truck: Truck) -> None:
    for _ in range(2):
        await truck.recorder.receipt(receipt(kind=DocumentKind.DESIRED))
    assert len(truck.payloads(ParcelKind.RECEIPT)) == 2


async def test_records_of_scripts_declare_their_channels_as_they_appear(truck: Truck) -> None:
    await truck.recorder.record((("water.level", 0.83),), None)
    await truck.recorder.record((("water.level", 0.5), ("generator.hours", 1204.0)), None)
    await truck.recorder.record((("generator.hours", 1205.0),), float(NOW_S))
    await truck.recorder.close_all()
    offers: list[SchemaOffer] = truck.payloads(ParcelKind.SCHEMA)[1:]
    first, second = (decode_schema(each.schema) for each in offers)
    assert [(each.name, each.scale) for each in second.channels] == [("water.level", 100), ("generator.hours", 1)]
    assert [cells for _, _, cells in truck.rows(first)] == [(83,)]
    assert [cells for _, _, cells in truck.rows(second)] == [(50, 1204), (None, 1205)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300, -1e19])
async def test_a_record_that_no_batch_can_hold_is_refused(truck: Truck, value: float) -> None:
    with pytest.raises(MalformedError):
        await truck.recorder.record((("x", value),), None)
    await truck.recorder.record((("x", 1.0),), None)
    assert truck.open_rows() == 1


async def test_too_many_channels_are_refused_and_the_known_ones_go_on(truck: Truck) -> None:
    await truck.recorder.record((("level", 0.25),), None)
    with pytest.raises(MalformedError, match="at most"):
        await truck.recorder.record((("level", 0.5), *((f"c{number}", 1.0) for number in range(300))), None)
    await truck.recorder.record((("level", 0.75),), None)
    await truck.recorder.close_all()
    assert len(truck.payloads(ParcelKind.SCHEMA)) == 2
    assert LOCAL_SERIES in truck.recorder._series
    assert len([each for each in truck.payloads(ParcelKind.BATCH) if isinstance(each, Batch)]) == 1


async def test_rows_from_many_tasks_at_once_are_all_kept(truck: Truck) -> None:
    async def some(first: int) -> None:
        for value in range(first, first + 40):
            await truck.recorder.on_row("solar", 1_000.0 + value, (value, None))

    await asyncio.gather(*(some(first) for first in range(0, 200, 40)))
    await truck.restart()
    assert sorted(cells[0] or 0 for _, _, cells in truck.rows()) == list(range(200))
