"""A policy is replayed over what a truck's record says, beside what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.numbers import DocumentKind, Precedence
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import NOW_MS, Truck, add_truck
from tests.gateway.running import RunningGateway

HOUR_MS = 3_600_000
SPAN = ("--since", str(NOW_MS // 1000 - 3_600), "--until", str(NOW_MS // 1000 + 20 * 3_600))


@pytest.fixture
def recorded(trusted: RunningGateway) -> Truck:
    """A truck that sent five events by satellite at once, and fetched content."""

    async def fill() -> Truck:
        truck = await add_truck(trusted.fleet)
        for number in range(5):
            await truck.event("door", NOW_MS + number)
        line = ("ke-arrow", "sat", Precedence.NORMAL)
        await trusted.fleet.ledger_add(
            [
                LedgerEntry(*line, "event", Direction.UP, NOW_MS, 1_200, 5, 1_200, 6_000_000, "USD"),
                LedgerEntry(*line[:2], Precedence.BULK, "content", Direction.DOWN, NOW_MS, 40_000, 40),
                LedgerEntry(*line[:1], "lte", Precedence.NORMAL, "event", Direction.UP, NOW_MS + 5 * HOUR_MS, 10, 1),
            ]
        )
        await truck.receipt(DocumentKind.MANIFEST, bytes(32), name="maths")
        return truck

    return trusted.run(fill())


def test_what_would_have_come_is_shown_beside_what_happened(recorded: Truck, digitruck: Digitruck, home: Path) -> None:
    (home / "policy.toml").write_text(
        '[tariffs.sat]\nprice_per_mb = 5\n[budgets.sat]\nbytes_max = "500B"\n[tariffs.lte]\nprice_per_mb = 0.01\n'
    )
    ran = digitruck("budget", "whatif", "ke-arrow", "--file", "policy.toml", *SPAN)
    assert "7 parcels and downloads" in ran.err
    assert "always there" in ran.out
    found = digitruck("budget", "whatif", "ke-arrow", "--file", "policy.toml", *SPAN, "--json").json
    links = {each["link"]: each for each in found["whatif"]["links"]}
    assert links["sat"]["billed_bytes"] <= 500
    # What the satellite has no budget for goes five hours later, when the 4G was there.
    assert links["lte"]["carried_bytes"] >= 40_000
    happened = {each["precedence"]: each for each in found["happened"]["outcomes"]}
    assert (happened[2]["arrived"], happened[3]["arrived_bytes"]) == (6, 40_000)


def test_pairs_change_the_policy_in_force_and_nothing_is_put(
    recorded: Truck, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck("budget", "set", "ke-arrow", "tariffs.sat.price_per_mb=5", "--key", "asha", "--yes")
    before = trusted.run(trusted.fleet.newest_config("ke-arrow", "kenya"))
    found = digitruck("budget", "whatif", "ke-arrow", "budgets.sat.bytes_max=1MB", *SPAN, "--json").json
    (sat,) = [each for each in found["whatif"]["links"] if each["link"] == "sat"]
    assert sat["is_priced"]
    assert trusted.run(trusted.fleet.newest_config("ke-arrow", "kenya")) == before


def test_a_truck_without_a_record_says_so(recorded: Truck, digitruck: Digitruck) -> None:
    ran = digitruck("budget", "whatif", "ke-arrow", "budgets.sat.bytes_max=1", "--until", "2020-01-02", ok=False)
    assert "nothing of ke-arrow is recorded" in ran.err
    assert digitruck("budget", "whatif", "ke-arrow", ok=False).code == 2
