"""What a scrape tells of the fleet, and that its series are bounded."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.fleetmetrics import FleetMetrics
from gateway.rollups import RollupTask
from protocol.numbers import Precedence
from store.fleet.evidence import HOUR_MS, BatchPart
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.api.conftest import World
from tests.gateway.fleets import NOW_MS, NOW_S, add_truck

Samples = dict[tuple[str, ...], float]


def read(text: bytes) -> Samples:
    """Return the values by name and labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def metrics(self, fleet: FleetStore) -> FleetMetrics:
        return FleetMetrics(fleet, now_ms=lambda: NOW_MS + round(self.now_s * 1000), monotonic=lambda: self.now_s)


async def test_the_newest_value_of_each_channel_has_its_time_and_unit(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    await truck.register()
    await truck.batch([(NOW_S - 120, (2600, 5)), (NOW_S - 60, (2650, None))])
    await RollupTask(fleet).catch_up()
    found = read(await Clock().metrics(fleet).text())
    assert found["digitruck_channel_value", "bat_v", "ke-arrow", "V"] == 26.5
    assert found["digitruck_channel_timestamp_seconds", "bat_v", "ke-arrow", "V"] == NOW_S - 60
    assert found["digitruck_channel_value", "pv_w", "ke-arrow", "W"] == 5.0
    assert found["digitruck_channel_timestamp_seconds", "pv_w", "ke-arrow", "W"] == NOW_S - 120


async def test_trucks_are_told_with_what_is_missing_and_the_revoked_are_not(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    gone = await add_truck(fleet, "zm-patel")
    truck.sequence = 3
    await truck.send(BatchPart(1, None))
    await fleet.heard("ke-arrow", "sat", NOW_MS - 5_000)
    await gone.event("boot")
    await fleet.revoke_truck("zm-patel", NOW_MS)
    found = read(await Clock().metrics(fleet).text())
    assert found["digitruck_truck_last_heard_timestamp_seconds", "kenya", "ke-arrow"] == NOW_S - 5
    assert found["digitruck_truck_missing_parcels", "kenya", "ke-arrow"] == 3
    assert (found["digitruck_trucks", "enrolled"], found["digitruck_trucks", "revoked"]) == (1, 1)
    assert found["digitruck_batches_waiting", "schema"] == 1
    assert not any("zm-patel" in key for key in found)


async def test_bytes_are_counted_on_while_hours_close(fleet: FleetStore) -> None:
    def entry(at_ms: int, count: int) -> LedgerEntry:
        return LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, at_ms, count, 1)

    await add_truck(fleet)
    clock = Clock()
    metrics = clock.metrics(fleet)
    await fleet.ledger_add([entry(NOW_MS - 400 * 24 * HOUR_MS, 1_000), entry(NOW_MS, 10)])
    totals = []
    for hour in range(6):
        clock.now_s = hour * 3600.0
        await fleet.ledger_add([entry(NOW_MS + hour * HOUR_MS, 1)])
        found = read(await metrics.text())
        totals.append(found["digitruck_link_bytes_total", "up", "sat", "ke-arrow"])
        assert found["digitruck_cause_bytes_total", "batch", "up", "normal"] == totals[-1]
    assert totals == [1_011, 1_012, 1_013, 1_014, 1_015, 1_016]
    assert found["digitruck_link_datagrams_total", "up", "sat", "ke-arrow"] == 8


async def test_bytes_that_find_their_truck_make_no_counter_fall(fleet: FleetStore) -> None:
    def entry(truck: str, cause: str, count: int) -> LedgerEntry:
        return LedgerEntry(truck, "lte" if truck else "", Precedence.NORMAL, cause, Direction.UP, NOW_MS, count, 1)

    await add_truck(fleet)
    clock = Clock()
    metrics = clock.metrics(fleet)
    await fleet.ledger_add([entry("", "stranger", 500)])
    before = read(await metrics.text())
    await fleet.ledger_add([entry("", "stranger", -400), entry("ke-arrow", "batch", 400)])
    clock.now_s = 10.0
    after = read(await metrics.text())
    counters = [key for key in before if key[0].endswith("_total")]
    assert len(counters) >= 3
    assert all(after[key] >= before[key] for key in counters)
    assert after["digitruck_link_bytes_total", "up", "lte", "ke-arrow"] == 400


async def test_what_is_beyond_the_limits_is_counted_and_left_out(
    fleet: FleetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ke-arrow", "ke-boma", "zm-patel"):
        truck = await add_truck(fleet, name)
        await truck.register()
        await truck.batch([(NOW_S, (2600, 5))])
    await RollupTask(fleet).catch_up()
    monkeypatch.setattr("gateway.api.fleetmetrics.METRIC_TRUCKS_MAX", 2)
    monkeypatch.setattr("gateway.api.fleetmetrics.METRIC_CHANNELS_MAX", 3)
    found = read(await Clock().metrics(fleet).text())
    assert sum(key[0] == "digitruck_channel_value" for key in found) == 3
    assert sum(key[0] == "digitruck_truck_missing_parcels" for key in found) == 2
    assert found["digitruck_metrics_left_out", "trucks"] == 1
    assert found["digitruck_metrics_left_out", "channels"] == 3


async def test_many_scrapers_read_the_database_once(fleet: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = fleet.summary

    async def counted() -> object:
        asked.append(True)
        return await plain()

    monkeypatch.setattr(fleet, "summary", counted)
    clock = Clock()
    metrics = clock.metrics(fleet)
    for now_s in (0.0, 1.0, 4.9, 5.1, 6.0):
        clock.now_s = now_s
        await metrics.text()
    assert len(asked) == 2


async def test_a_scrape_has_the_api_and_the_fleet(world: World) -> None:
    found = read((await world.gateway.get("/metrics")).body)
    assert found["digitruck_trucks", "enrolled"] == 1
    assert any(key[0] == "digitruck_api_streams" for key in found)
    assert (await world.gateway.get("/metrics", role=None)).status == 401
