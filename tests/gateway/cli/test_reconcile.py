"""A bill is held against the ledger: the drift is told, and a large one is an alarm until a later bill agrees."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from protocol.numbers import Precedence
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import RunningGateway


def at(day: int, hour: int = 12) -> int:
    return round(datetime(2026, 10, day, hour, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def counted(signed_in: RunningGateway) -> RunningGateway:
    """A truck whose satellite carried 1 MB on the first and 2 MB on the second of October."""

    async def fill() -> None:
        await add_truck(signed_in.fleet)
        line = ("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP)
        entries = [LedgerEntry(*line, at(1), 1_000_000, 9), LedgerEntry(*line, at(2), 2_000_000, 9)]
        await signed_in.fleet.ledger_add([*entries, LedgerEntry("ke-arrow", "lte", *line[2:], at(1), 7_000_000, 9)])

    signed_in.run(fill())
    return signed_in


def test_drift_is_told_by_day_and_a_large_one_is_an_alarm_until_a_bill_agrees(
    counted: RunningGateway, digitruck: Digitruck, home: Path
) -> None:
    (home / "bill.csv").write_text("Date,Usage MB\n2026-10-01,1.01\n2026-10-02,2.50\n")
    bill = ("ledger", "reconcile", "bill.csv", "--truck", "ke-arrow", "--link", "sat")
    ran = digitruck(*bill)
    assert "2026-10-02 00:00" in ran.out
    assert "+510000 bytes (+17.00 %)" in ran.out
    assert "times of 'Date', bytes of 'Usage MB' (MB)" in ran.err
    (alarm,) = digitruck("alarm", "list", "--json").json
    assert (alarm["rule"], alarm["subject"]) == ("bill.drift", "sat")
    assert "510000 bytes more" in alarm["text"]
    assert digitruck(*bill, "--threshold", "20", "--json").json["drift_percent"] == 17.0
    assert digitruck("alarm", "list", "--json").json == []
    assert len(counted.run(counted.fleet.bills("ke-arrow"))) == 2


def test_the_providers_day_is_local(counted: RunningGateway, digitruck: Digitruck, home: Path) -> None:
    (home / "bill.csv").write_text("Date,Usage MB\n2026-10-02,2\n")
    bill = ("ledger", "reconcile", "bill.csv", "--truck", "ke-arrow", "--link", "sat", "--zone", "Africa/Nairobi")
    (line,) = digitruck(*bill, "--json").json["lines"]
    assert line["since_ms"] == at(1, 21)
    assert (line["billed_bytes"], line["counted_bytes"]) == (2_000_000, 2_000_000)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--zone", "Africa/Nowhere"), "time zone"),
        (("--where", "SIM=1"), "there is no column 'SIM'"),
        (("--unit", "stones"), "is no unit"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file_in_it(
    counted: RunningGateway, digitruck: Digitruck, home: Path, arguments: tuple[str, ...], says: str
) -> None:
    (home / "bill.csv").write_text("Date,Usage\n2026-10-01,1\n")
    bill = ("ledger", "reconcile", "bill.csv", "--truck", "ke-arrow", "--link", "sat")
    ran = digitruck(*bill, *arguments, ok=False)
    assert ran.code == 1
    assert says in ran.err
    assert ran.err.startswith("digitruck: bill.csv: ")
