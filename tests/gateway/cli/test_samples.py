"""Telemetry, events and gaps on the command line, from what a truck really signed."""

from __future__ import annotations

import csv
import errno
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
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
    assert rows[0] == ["time", "bat_v [V]", "pv_w [W]", "repaired"]
    assert len(rows) == 121


def test_many_pages_of_json_are_one(
    truck: Truck, signed_in: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.client import Client

    series = digitruck("samples", "ke-arrow", *SINCE, "--json").json
    asked = []
    plain = Client.call

    async def small_pages(self, method, path, *, query=None, **rest):  # type: ignore[no-untyped-def]
        asked.append(path)
        return await plain(self, method, path, query={**(query or {}), "limit": 50}, **rest)

    monkeypatch.setattr(Client, "call", small_pages)
    paged = digitruck("samples", "ke-arrow", *SINCE, "--json").json
    assert len(asked) >= 3
    for each in (*series, *paged):
        each.pop("gaps_ms")
    assert paged == series


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.parquet", "x.senml.json", "x.senml.cbor"])
def test_the_name_of_the_file_says_the_format(truck: Truck, digitruck: Digitruck, home: Path, name: str) -> None:
    ran = digitruck("samples", "ke-arrow", *SINCE, "--output", name)
    assert (ran.out, name in ran.err) == ("", True)
    body = (home / name).read_bytes()
    starts = {
        "x.csv": b"time,",
        "x.json": b"[\n  {",
        "x.parquet": b"PAR1",
        "x.senml.json": b"[\n{",
        "x.senml.cbor": b"\x9f",
    }
    assert body.startswith(starts[name])
    if name == "x.parquet":
        assert pq.read_table(home / name).num_rows == 120


def test_a_name_that_says_no_format_is_asked_about(truck: Truck, digitruck: Digitruck) -> None:
    ran = digitruck("samples", "ke-arrow", "--output", "x.xlsx", ok=False)
    assert (ran.code, "--format" in ran.err) == (1, True)
    ran = digitruck("samples", "ke-arrow", "--format", "table", "--output", "x", ok=False)
    assert (ran.code, "screen" in ran.err) == (1, True)


def test_a_file_that_breaks_off_leaves_the_one_before(
    truck: Truck, digitruck: Digitruck, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway import exports
    from gateway.exports.delimited import CsvWriter

    (home / "x.csv").write_text("of yesterday")

    class Breaking(CsvWriter):
        def end(self) -> bytes:
            raise OSError("the disk went")

    monkeypatch.setitem(exports.FORMATS, "csv", exports.Format("text/csv", ".csv", Breaking))
    ran = digitruck("samples", "ke-arrow", *SINCE, "--output", "x.csv", ok=False)
    assert (ran.code, "broke off" in ran.err) == (1, True)
    assert (home / "x.csv").read_text() == "of yesterday"
    assert [each.name for each in home.glob(".x*")] == []


def test_a_full_disk_ends_the_download_and_is_said(
    truck: Truck, digitruck: Digitruck, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pieces: Iterator[bytes], file: object) -> int:
        next(pieces)
        raise OSError(errno.ENOSPC, "No space left on device", "x.csv")

    monkeypatch.setattr("gateway.cli.samples._copy", full)
    ran = digitruck("samples", "ke-arrow", *SINCE, "--output", "x.csv", ok=False)
    assert (ran.code, ran.err) == (1, "digitruck: x.csv: No space left on device\n")
    assert not list(home.glob("*x.csv*"))


def test_repaired_clocks_and_gaps_are_pointed_out(
    truck: Truck, signed_in: RunningGateway, digitruck: Digitruck
) -> None:
    async def fill() -> None:
        await truck.batch([(30, (2500, 1))], boot=8)
        await signed_in.fleet.set_clock("ke-arrow", 8, (NOW_S - 86_400) * 1000)

    signed_in.run(fill())
    ran = digitruck("samples", "ke-arrow", *SINCE)
    assert [line.split()[1].endswith("Z") and line.split()[2] == "*" for line in ran.out.splitlines()[1:3]] == [
        True,
        False,
    ]
    assert "1 of 121 times" in ran.err
    assert ran.err.count("No values from") == 3
    assert digitruck("samples", "ke-arrow", *SINCE, "--json").json[0]["repaired"] == [1] + [0] * 120


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
    assert "No parcel is missing." in digitruck("coverage", "ke-arrow", *SINCE).out
    truck.sequence += 3
    signed_in.run(truck.event("late"))
    out = digitruck("coverage", "ke-arrow", *SINCE).out
    assert "120 in 2 batches" in out
    assert "6-8" in out
    assert "not arrived yet" in out
    assert digitruck("coverage", "ke-arrow", "--json").json["epochs"][0]["missing"] == [[6, 8]]
