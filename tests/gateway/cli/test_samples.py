"""Telemetry, events and gaps on the command line, from what a truck really signed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import NOW_S, Truck, add_truck
from tests.gateway.running import RunningGateway

SINCE = ("--since", "2026-11-01", "--until", "2026-12-01")


@pytest.fixture
def truck(signed_in: RunningGateway) -> Truck:
    """A truck with 120 minutes of two channels; the second is missing every other minute."""

    async def fill() -> Truck:
        made = await add_truck(signed_in.fleet)
        await made.register()
        start = NOW_S // 3600 * 3600 - 7200
        for first in (0, 60):
            await made.batch([(start + 60 * n, (2600 + n, None if n % 2 else n)) for n in range(first, first + 60)])
        await made.event("door.open", values_json='{"by": "key\\u001b[2J"}')
        await made.event("boot", boot=9, time_ms=1_000)
        return made

    return signed_in.run(fill())


def test_rows_are_printed_with_their_units(truck: Truck, digitruck: Digitruck) -> None:
    ran = digitruck("samples", "ke-arrow", *SINCE)
    lines = ran.out.splitlines()
    assert lines[0].split() == ["time", "bat_v", "[V]", "pv_w", "[W]"]
    assert len(lines) == 121
    assert lines[1].split()[2:] == ["26", "0"]
    assert lines[2].split()[2:] == ["26.01", "-"]


def test_channels_and_steps_are_asked_for(truck: Truck, digitruck: Digitruck) -> None:
    series = digitruck("samples", "ke-arrow", *SINCE, "--channels", "bat_v", "--step", "10m", "--format", "json").json
    assert [each["n"] for each in series] == ["bat_v"]
    assert len(series[0]["v"]) == len(series[0]["max"]) == 12
    assert series == digitruck("samples", "ke-arrow", *SINCE, "--channels", "bat_v", "--step", "600", "--json").json


def test_csv_goes_to_standard_output_or_a_file_alike(truck: Truck, digitruck: Digitruck, home: Path) -> None:
    printed = digitruck("samples", "ke-arrow", *SINCE, "--format", "csv").out
    digitruck("samples", "ke-arrow", *SINCE, "--format", "csv", "--output", "out.csv")
    rows = list(csv.reader(io.StringIO(printed, newline="")))
    assert rows == list(csv.reader(io.StringIO((home / "out.csv").read_text(), newline="")))
    assert rows[0] == ["time", "bat_v", "pv_w"]
    assert len(rows) == 121


def test_many_pages_are_one_table_with_one_header(
    truck: Truck, signed_in: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.client import Client

    whole = digitruck("samples", "ke-arrow", *SINCE, "--format", "csv").out
    series = digitruck("samples", "ke-arrow", *SINCE, "--json").json
    asked = []
    plain = Client.call

    async def small_pages(self, method, path, *, query=None, **rest):  # type: ignore[no-untyped-def]
        asked.append(path)
        return await plain(self, method, path, query={**(query or {}), "limit": 50}, **rest)

    monkeypatch.setattr(Client, "call", small_pages)
    assert digitruck("samples", "ke-arrow", *SINCE, "--format", "csv").out == whole
    assert len(asked) >= 3
    assert digitruck("samples", "ke-arrow", *SINCE, "--json").json == series


def test_what_the_gateway_cannot_write_is_said(truck: Truck, digitruck: Digitruck) -> None:
    ran = digitruck("samples", "ke-arrow", *SINCE, "--format", "parquet", "--output", "x.parquet", ok=False)
    assert (ran.code, "parquet" in ran.err) == (1, True)


def test_events_of_an_unknown_clock_and_with_control_characters_are_printed_safely(
    truck: Truck, digitruck: Digitruck
) -> None:
    out = digitruck("events", "ke-arrow").out
    assert "door.open" in out
    assert "clock unknown" in out
    assert "\x1b" not in out
    assert digitruck("events", "ke-arrow", "--json").json[0]["values"] == {"by": "key\x1b[2J"}
    assert digitruck("events", "ke-arrow", "--until", "2026-11-01").out == ""


def test_coverage_names_every_gap(truck: Truck, signed_in: RunningGateway, digitruck: Digitruck) -> None:
    assert "No gaps." in digitruck("coverage", "ke-arrow", *SINCE).out
    truck.sequence += 3
    signed_in.run(truck.event("late"))
    out = digitruck("coverage", "ke-arrow", *SINCE).out
    assert "120 in 2 batches" in out
    assert "6-8" in out
    assert "not arrived yet" in out
    assert digitruck("coverage", "ke-arrow", "--json").json["epochs"][0]["missing"] == [[6, 8]]
