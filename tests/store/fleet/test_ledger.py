"""The ledger adds up what the gateway counts, and keeps what trucks report beside it."""

from dataclasses import replace

from protocol.numbers import Precedence
from store.fleet.evidence import DAY_MS, HOUR_MS
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, LedgerEntry, LedgerSource

ENTRY = LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "upload", Direction.UP, 5, 612, 1, 40)


async def test_bytes_are_added_up_by_the_hour(fleet: FleetStore) -> None:
    await fleet.ledger_add([ENTRY, ENTRY, replace(ENTRY, at_ms=HOUR_MS + 1)])
    await fleet.ledger_add([replace(ENTRY, at_ms=HOUR_MS - 1, bytes=8)])
    hours = await fleet.ledger("ke-arrow", step_ms=HOUR_MS)
    assert [(each.start_ms, each.bytes, each.datagrams, each.money_milli) for each in hours] == [
        (0, 612 * 2 + 8, 3, 120),
        (HOUR_MS, 612, 1, 40),
    ]
    (all_of_it,) = await fleet.ledger("ke-arrow")
    assert (all_of_it.bytes, all_of_it.start_ms, all_of_it.direction) == (612 * 3 + 8, None, Direction.UP)
    (first,) = await fleet.ledger(until_ms=HOUR_MS)
    assert first.bytes == 612 * 2 + 8
    (second,) = await fleet.ledger(since_ms=HOUR_MS, step_ms=DAY_MS)
    assert (second.bytes, second.start_ms) == (612, 0)


async def test_lines_differ_by_truck_link_precedence_cause_direction_and_currency(fleet: FleetStore) -> None:
    other = [
        replace(ENTRY, truck=""),
        replace(ENTRY, link="lte"),
        replace(ENTRY, precedence=Precedence.FLASH),
        replace(ENTRY, cause="handshake"),
        replace(ENTRY, direction=Direction.DOWN),
        replace(ENTRY, currency="KES"),
    ]
    await fleet.ledger_add([ENTRY, *other])
    sums = await fleet.ledger()
    assert len(sums) == 7
    assert {each.bytes for each in sums} == {612}
    assert len(await fleet.ledger("")) == 1


async def test_what_a_truck_reports_again_counts_once(fleet: FleetStore) -> None:
    await fleet.ledger_add([ENTRY])
    for total in (100, 300, 300, 200):
        await fleet.ledger_reported([replace(ENTRY, bytes=total)])
    (reported,) = await fleet.ledger(source=LedgerSource.TRUCK)
    (counted,) = await fleet.ledger()
    assert (reported.bytes, counted.bytes) == (300, 612)
    await fleet.ledger_add([])
