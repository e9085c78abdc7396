"""Alarms about trucks: each rule begins to hold where it should, says what to do, and ends by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.config import AlertSettings
from gateway.truckwatch import Memory, Place, TruckWatch, distance_km, notes_of, remember
from protocol.numbers import DocumentKind, Outcome
from store.fleet.evidence import LatestValue
from store.fleet.fleet import FleetStore
from store.fleet.records import HoldingRecord, TruckRecord
from tests.gateway.fleets import add_truck

DAY_MS = 86_400_000
NOW_MS = round(datetime(2026, 11, 30, 21, 0, tzinfo=UTC).timestamp() * 1000)  # midnight in Nairobi
TRUCK = TruckRecord("ke-arrow", "kenya", b"", b"", b"", enrolled_ms=NOW_MS - 90 * DAY_MS, last_heard_ms=NOW_MS)
SETTINGS = AlertSettings()


def value(unit: str, number: float, channel: str = "x.y", age_ms: int = 0) -> LatestValue:
    return LatestValue("ke-arrow", channel, unit, NOW_MS - age_ms, number)


def rules(
    truck: TruckRecord = TRUCK,
    values: tuple[LatestValue, ...] = (),
    missing: int = 0,
    refused: tuple[HoldingRecord, ...] = (),
    memory: Memory | None = None,
) -> list[tuple[str, str]]:
    noted = list(notes_of(truck, values, missing, refused, memory or Memory(), SETTINGS, NOW_MS))
    assert all(each.text and each.next_step for each in noted)
    return [(each.rule.removeprefix("truck."), each.severity) for each in noted]


@pytest.mark.parametrize(
    ("days", "found"),
    [(0, []), (2.9, []), (3, [("silent", "warning")]), (21, [("silent", "critical")]),
     (None, [("never-heard", "critical")])],
)  # fmt: skip
def test_silence_is_told_by_its_length(days: float | None, found: list[tuple[str, str]]) -> None:
    heard_ms = None if days is None else round(NOW_MS - days * DAY_MS)
    assert rules(replace(TRUCK, last_heard_ms=heard_ms)) == found


def test_a_truck_that_joined_today_or_was_shut_out_needs_nobody() -> None:
    assert rules(replace(TRUCK, last_heard_ms=None, enrolled_ms=NOW_MS - 3_600_000)) == []
    assert rules(replace(TRUCK, last_heard_ms=0, revoked_ms=NOW_MS), missing=5) == []


@pytest.mark.parametrize(
    ("percent", "age_ms", "found"),
    [(25.1, 0, []), (25, 0, [("battery-low", "warning")]), (12.5, 0, [("battery-low", "critical")]),
     (5, 7 * 3_600_000, [])],
)  # fmt: skip
def test_a_low_battery_is_told_while_its_value_is_fresh(
    percent: float, age_ms: int, found: list[tuple[str, str]]
) -> None:
    assert rules(values=(value("%EL", percent, "solar.soc", age_ms),)) == found


def test_a_full_disk_and_a_refused_document_are_told() -> None:
    assert rules(values=(value("%", 90, "host.disk_used"), value("%", 99, "host.cpu"))) == [("disk-full", "warning")]
    refused = HoldingRecord(
        "ke-arrow", DocumentKind.MANIFEST, "maths", bytes(32), Outcome.ROLLED_BACK, 3, "the hook said no", 0, 0
    )
    assert rules(refused=(refused,)) == [("refused", "warning")]


def test_missing_parcels_are_told_after_a_day_and_not_while_they_come_and_go() -> None:
    memory = Memory()
    remember(memory, (), 4, NOW_MS - DAY_MS)
    assert rules(missing=4, memory=memory) == [("gap", "warning")]
    remember(memory, (), 0, NOW_MS)
    remember(memory, (), 4, NOW_MS)
    assert rules(missing=4, memory=memory) == []


def at(latitude: float, longitude: float, hours_ago: float = 0.0) -> tuple[LatestValue, LatestValue]:
    age_ms = round(hours_ago * 3_600_000)
    return value("lat", latitude, "gps.lat", age_ms), value("lon", longitude, "gps.lon", age_ms)


def test_what_moves_at_night_is_told_and_what_tours_by_day_is_not() -> None:
    memory = Memory()
    remember(memory, at(-1.29, 36.82, hours_ago=4), 0, NOW_MS)  # eight in the evening
    remember(memory, at(-1.29, 36.90, hours_ago=0), 0, NOW_MS)  # midnight, nine kilometres away
    assert rules(values=at(-1.29, 36.90), memory=memory) == [("moved", "critical")]
    assert rules(values=at(-1.29, 36.821), memory=memory) == []
    by_day = Memory()
    remember(by_day, at(-1.29, 36.82, hours_ago=12), 0, NOW_MS)
    remember(by_day, at(-2.5, 36.9, hours_ago=9), 0, NOW_MS)  # a day's drive
    assert rules(values=at(-2.5, 36.9, hours_ago=9), memory=by_day) == []


def test_distances_are_those_of_the_globe() -> None:
    nairobi, kampala = Place(-1.2921, 36.8219, 0), Place(0.3476, 32.5825, 0)
    assert distance_km(nairobi, kampala) == pytest.approx(505, abs=5)
    assert distance_km(nairobi, nairobi) == 0


async def test_an_alarm_is_raised_once_and_ends_when_the_truck_is_heard(fleet: FleetStore) -> None:
    await add_truck(fleet)
    truck = await fleet.truck("ke-arrow")
    assert truck is not None
    later_ms = truck.enrolled_ms + 30 * DAY_MS
    watch = TruckWatch(fleet, SETTINGS, now_ms=lambda: later_ms)
    await watch.look()
    await watch.look()
    assert [(each.rule, each.truck) for each in await fleet.alarms()] == [("truck.never-heard", "ke-arrow")]
    await fleet.heard("ke-arrow", "sat", later_ms)
    await watch.look()
    assert await fleet.alarms() == []
    assert len(await fleet.alarms(with_cleared=True)) == 1
