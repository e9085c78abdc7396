"""Open batches on a real database: no row is lost or doubled, whatever fails and whenever it stops."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.batches import BODY_BYTES_MAX
from protocol import batch
from protocol.errors import LocalError, QueueFullError
from protocol.messages import Batch, Parcel, Upload, seal, unseal, verify_parcel
from protocol.numbers import CODEC_ASSUMED, DATAGRAM_PAYLOAD_BYTES_MAX, ParcelKind, Precedence
from protocol.schema import Codec, decode_schema
from store import incidents
from store.bases import Runs, of_database
from store.database import open_database
from store.errors import StoreFailedError
from store.openrows import OpenRow, OpenRows
from store.parcels import ParcelQueue
from store.schema import STATE
from tests.edge.trucks import KEY, NOW_S, OTHER, SCHEMA, Truck, break_commits


@pytest.fixture
async def truck(tmp_path: Path) -> AsyncIterator[Truck]:
    truck = Truck(tmp_path)
    await truck.start()
    try:
        yield truck
    finally:
        await truck.stop()


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


@pytest.mark.parametrize("sequence", [70, 65_535, 70_000])
def test_the_largest_body_fits_a_datagram_with_every_head(sequence: int) -> None:
    payload = Batch(3, None, bytes(BODY_BYTES_MAX)).encode()
    sealed = seal(KEY, Parcel(1 << 63, sequence, Precedence.NORMAL, ParcelKind.BATCH, payload), "ke-arrow", bytes(32))
    upload = Upload(parcels=(sealed,), epoch=1 << 63, ask_time=True).encode()
    assert DATAGRAM_PAYLOAD_BYTES_MAX - 4 <= len(upload) <= DATAGRAM_PAYLOAD_BYTES_MAX


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


async def test_a_series_may_close_younger_and_go_with_its_own_precedence(truck: Truck) -> None:
    await truck.recorder.open_series("other", OTHER, age_s=600, precedence=Precedence.PRIORITY)
    await truck.row(2600, 1)
    await truck.row(5, name="other")
    truck.monotonic.now += 601
    await truck.recorder.tick()
    assert truck.rows(OTHER)
    assert not truck.rows()
    (sealed,) = truck.database.row("SELECT sealed FROM parcels WHERE kind = 1")
    assert unseal(sealed).precedence is Precedence.PRIORITY
    await truck.recorder.open_series("other", OTHER)
    await truck.row(6, name="other")
    truck.monotonic.now += 601
    await truck.recorder.tick()
    assert len(truck.rows(OTHER)) == 1


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
    monkeypatch.setattr("edge.batches.ROWS_MAX", 8)
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
    monkeypatch.setattr("edge.batches.BODY_BYTES_MAX", 60)
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
        small.setattr("edge.batches.BODY_BYTES_MAX", 12)
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


def bases_of(truck: Truck) -> list[int | None]:
    return [each.base for each in truck.payloads(ParcelKind.BATCH)]


def runs_read(truck: Truck) -> list[tuple[int, tuple[int | None, ...]]]:
    """Return the rows of all parcels, as the truck itself reads them."""
    schema, runs = replace(SCHEMA, codec=Codec.CARRIED), Runs(of_database(truck.database))
    found = truck.database.rows("SELECT epoch, sequence, sealed FROM parcels WHERE kind = 1 ORDER BY id")
    return [
        row
        for epoch, sequence, sealed in found
        for row in runs.rows(schema, (int.from_bytes(epoch, "big"), sequence), Batch.decode(unseal(sealed).payload))
    ]


async def test_a_batch_goes_on_from_the_newest_that_was_delivered(truck: Truck) -> None:
    await truck.recorder.use_codec(Codec.CARRIED)
    taken = []
    for at in range(12):
        for value in range(5):
            taken.append((2600 + value, at))
            await truck.row(*taken[-1])
        await truck.recorder.close_all()
        if at != 3:  # then there is no contact for once
            await truck.writer.run(truck.deliver)
    # Eight make a run, and the next stands alone; what was not delivered is gone on from by nobody.
    assert bases_of(truck) == [None, 1, 1, 1, 2, 1, 1, 1, 1, None, 1, 1]
    assert [cells for _, cells in runs_read(truck)] == taken


async def test_a_batch_that_was_just_opened_goes_on_from_what_is_acknowledged_then(truck: Truck) -> None:
    await truck.recorder.use_codec(Codec.CARRIED)
    chance = random.Random(4)
    values = [(chance.randrange(-(2**40), 2**40), chance.randrange(2**40)) for _ in range(300)]
    batches = 0
    for cells in values:
        await truck.row(*cells)
        if truck.recorder.batches > batches:
            batches = truck.recorder.batches
            await truck.writer.run(truck.deliver)  # a moment after it was closed, and the next was opened
    await truck.recorder.close_all()
    assert bases_of(truck)[:3] == [None, 1, 1]
    assert [cells for _, cells in runs_read(truck)] == values
    sealed = [row[0] for row in truck.database.rows("SELECT sealed FROM parcels WHERE kind = 1")]
    assert max(map(len, sealed)) <= DATAGRAM_PAYLOAD_BYTES_MAX - 16


async def test_after_a_restart_a_batch_stands_alone_and_the_codec_is_remembered(truck: Truck) -> None:
    await truck.recorder.use_codec(Codec.CARRIED)
    await truck.row(1, 1)
    await truck.recorder.close_all()
    await truck.writer.run(truck.deliver)
    await truck.row(2, 2)
    await truck.restart()
    await truck.row(3, 3)
    await truck.recorder.close_all()
    assert bases_of(truck) == [None, None, None]
    assert [cells for _, cells in runs_read(truck)] == [(1, 1), (2, 2), (3, 3)]
    assert [decode_schema(each.schema).codec for each in truck.payloads(ParcelKind.SCHEMA)] == [
        Codec.CONTEXT,
        Codec.CARRIED,
    ]


async def test_a_gateway_that_does_not_know_the_codec_never_gets_it(truck: Truck) -> None:
    await truck.row(1, 1)
    await truck.recorder.use_codec(Codec.CARRIED)
    await truck.row(2, 2)
    await truck.recorder.use_codec(CODEC_ASSUMED)  # another gateway, or an older one
    await truck.row(3, 3)
    await truck.recorder.close_all()
    numbers = {each.number: decode_schema(each.schema).codec for each in truck.payloads(ParcelKind.SCHEMA)}
    used = [numbers[each.schema] for each in truck.payloads(ParcelKind.BATCH)]
    assert used == [Codec.CONTEXT, Codec.CARRIED, Codec.CONTEXT]


async def test_a_row_that_waits_while_the_codec_changes_is_in_the_next_batch(truck: Truck) -> None:
    await truck.row(1, 1)
    series = truck.recorder._batches.series("solar")
    assert series is not None
    async with series.lock:
        waiting = asyncio.create_task(truck.row(2, 2))
        changing = asyncio.create_task(truck.recorder.use_codec(Codec.CARRIED))
        await asyncio.sleep(0)
    await asyncio.gather(waiting, changing)
    await truck.recorder.close_all()
    assert truck.open_rows() == 0
    codecs = {each.number: decode_schema(each.schema) for each in truck.payloads(ParcelKind.SCHEMA)}
    found = [batch.decode(codecs[each.schema], each.body) for each in truck.payloads(ParcelKind.BATCH)]
    assert sorted(cells for rows in found for _, cells in rows) == [(1, 1), (2, 2)]
