"""Bytes and money on the command line."""

from __future__ import annotations

import pytest

from protocol.numbers import Precedence
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import RunningGateway, now_ms


@pytest.fixture
def spent(trusted: RunningGateway) -> RunningGateway:
    """A truck that used two links this hour, and a stranger's bytes."""

    async def fill() -> None:
        await add_truck(trusted.fleet)
        at = now_ms()
        await trusted.fleet.ledger_add(
            [
                LedgerEntry(
                    "ke-arrow",
                    "sat",
                    Precedence.NORMAL,
                    "telemetry",
                    Direction.UP,
                    at,
                    1_500,
                    3,
                    None,
                    13_500_000_000,
                    "USD",
                ),
                LedgerEntry("ke-arrow", "lte", Precedence.BULK, "content", Direction.DOWN, at, 2_000_000, 1_600),
                LedgerEntry("", "", Precedence.BULK, "stranger", Direction.UP, at, 60, 1),
            ]
        )

    trusted.run(fill())
    return trusted


def test_lines_and_their_sum_are_printed(spent: RunningGateway, digitruck: Digitruck) -> None:
    out = digitruck("ledger", "ke-arrow").out
    assert "13.500 USD" in out
    assert "no price known" in out
    assert " 0.000" not in out
    assert "2001500 bytes (2.0 MB)" in out
    assert "strangers" not in out
    assert "(strangers)" in digitruck("ledger").out


def test_json_has_every_line_and_steps_have_their_start(spent: RunningGateway, digitruck: Digitruck) -> None:
    lines = digitruck("ledger", "--json").json
    assert sum(each["bytes"] for each in lines) == 2_001_560
    assert all(each["start_ms"] % 3_600_000 == 0 for each in digitruck("ledger", "--step", "1h", "--json").json)
    assert digitruck("ledger", "--step", "1h").out.split()[0] == "from"
    assert digitruck("ledger", "--source", "truck", "--json").json == []


def test_an_empty_period_says_so(spent: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck("ledger", "--until", "2020-01-02", "--since", "2020-01-01")
    assert (ran.out, "no bytes" in ran.err) == ("", True)


def test_budgets_tell_what_is_left_of_the_month(spent: RunningGateway, digitruck: Digitruck) -> None:
    caps = ("links.sat.month_bytes_max=3000", "links.sat.reserve_bytes=500", "links.lte.month_bytes_max=unlimited")
    digitruck("config", "set", "ke-arrow", *caps, "--key", "asha", "--yes")
    (budget,) = digitruck("budget", "show", "--json").json
    links = {each["link"]: each for each in budget["links"]}
    assert (links["sat"]["used_bytes"], links["sat"]["left_bytes"]) == (1_500, 1_500)
    out = digitruck("budget", "show", "ke-arrow").out
    assert "no cap" in out
    assert "3.0 kB" in out
    assert "no price known" in out
    digitruck("config", "set", "ke-arrow", "links.lte.price_per_mb_milli=500", "--key", "asha", "--yes")
    assert "1.000 USD" in digitruck("budget", "show", "ke-arrow").out
    assert "1.000 USD" in digitruck("ledger", "ke-arrow").out
