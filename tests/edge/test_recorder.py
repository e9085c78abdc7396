"""The recorder on a real database: late clocks, events, receipts and the records of scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.recorder import LOCAL_SERIES
from protocol.errors import MalformedError
from protocol.messages import Batch, Receipt, SchemaOffer
from protocol.numbers import DocumentKind, Outcome, ParcelKind, Precedence
from protocol.schema import decode_schema
from tests.edge.trucks import NOW_S, SCHEMA, Truck


@pytest.fixture
async def truck(tmp_path: Path) -> AsyncIterator[Truck]:
    truck = Truck(tmp_path)
    await truck.start()
    try:
        yield truck
    finally:
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


async def test_over_a_link_that_costs_nothing_batches_do_not_wait_to_be_full(truck: Truck) -> None:
    await truck.row(1, 1)
    truck.monotonic.now += 301
    await truck.recorder.tick()
    assert truck.rows() == []
    truck.free = True
    await truck.recorder.tick()
    assert len(truck.rows()) == 1


async def test_a_batch_that_a_paid_step_has_room_for_does_not_wait(truck: Truck) -> None:
    await truck.row(1, 1)
    truck.monotonic.now += 301
    truck.paid_bytes = 150
    await truck.recorder.tick()
    assert truck.rows() == []
    truck.paid_bytes = 512
    await truck.recorder.tick()
    assert len(truck.rows()) == 1


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
    assert truck.recorder._batches.series(LOCAL_SERIES) is not None
    assert len([each for each in truck.payloads(ParcelKind.BATCH) if isinstance(each, Batch)]) == 1


async def test_rows_from_many_tasks_at_once_are_all_kept(truck: Truck) -> None:
    async def some(first: int) -> None:
        for value in range(first, first + 40):
            await truck.recorder.on_row("solar", 1_000.0 + value, (value, None))

    await asyncio.gather(*(some(first) for first in range(0, 200, 40)))
    await truck.restart()
    assert sorted(cells[0] or 0 for _, _, cells in truck.rows()) == list(range(200))


# -- what the gateway would put aside ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Door.Opened", ()),
        ("", ()),
        ("x" * 65, ()),
        ("door\n", ()),
        ("door", (("n", 2**64),)),
        ("door", (("k" * 65, 1),)),
        ("door", (("text", "x" * 10_000),)),
        ("door", tuple((f"k{number}", 1) for number in range(65))),
        ("door", tuple((f"k{number}", "x" * 256) for number in range(64))),
    ],
)
async def test_an_event_that_the_gateway_would_put_aside_is_refused_here(
    truck: Truck, name: str, values: tuple[tuple[str, int | bool | str], ...]
) -> None:
    with pytest.raises(MalformedError, match="cannot be recorded"):
        await truck.recorder.event(name, Precedence.NORMAL, values)
    assert truck.events() == []
