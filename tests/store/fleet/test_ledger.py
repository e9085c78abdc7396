"""The ledger adds up what the gateway counts, and keeps what trucks report beside it."""

from dataclasses import replace

import pytest

from protocol.numbers import Precedence
from store.fleet.evidence import DAY_MS, HOUR_MS
from store.fleet.fleet import FleetStore
from store.fleet.records import Contacts, DayUse, Direction, LedgerEntry, LedgerSource

ENTRY = LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "upload", Direction.UP, 5, 612, 1, 640, 40, "USD")


async def test_bytes_are_added_up_by_the_hour(fleet: FleetStore) -> None:
    await fleet.ledger_add([ENTRY, ENTRY, replace(ENTRY, at_ms=HOUR_MS + 1)])
    await fleet.ledger_add([replace(ENTRY, at_ms=HOUR_MS - 1, bytes=8)])
    hours = await fleet.ledger("ke-arrow", step_ms=HOUR_MS)
    assert [(each.start_ms, each.bytes, each.datagrams, each.money_nano) for each in hours] == [
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


async def test_days_and_spans_have_what_each_link_used_and_was_billed(fleet: FleetStore) -> None:
    down = replace(ENTRY, direction=Direction.DOWN, billed_bytes=None, money_nano=None, currency="")
    await fleet.ledger_add([ENTRY, down, replace(ENTRY, link="lte", at_ms=DAY_MS), replace(ENTRY, truck="tz-arrow")])
    sat = DayUse(2 * 612, 2, 640 + 612, 40)
    assert await fleet.ledger_days(["ke-arrow"], 0, 2 * DAY_MS) == {
        ("ke-arrow", "sat"): {0: sat},
        ("ke-arrow", "lte"): {1: DayUse(612, 1, 640, 40)},
    }
    assert await fleet.ledger_use(["ke-arrow"], 0, HOUR_MS) == {("ke-arrow", "sat"): sat}
    assert await fleet.ledger_use(["ke-arrow"], 2 * DAY_MS, 3 * DAY_MS) == {}


async def test_money_without_a_currency_is_refused(fleet: FleetStore) -> None:
    with pytest.raises(ValueError, match="currency"):
        await fleet.ledger_add([replace(ENTRY, currency="")])


async def test_contacts_are_the_hours_of_a_link_and_its_best_hour_of_content(fleet: FleetStore) -> None:
    content = replace(ENTRY, cause="content", direction=Direction.DOWN, bytes=5_000)
    await fleet.ledger_add([ENTRY, content, replace(content, at_ms=HOUR_MS), replace(content, at_ms=HOUR_MS)])
    await fleet.ledger_add([replace(ENTRY, link="lte", at_ms=2 * HOUR_MS), replace(ENTRY, truck="tz-arrow")])
    found = await fleet.ledger_contacts("ke-arrow", 0, DAY_MS)
    assert found == {"sat": Contacts(2, 10_000), "lte": Contacts(1, 0)}
