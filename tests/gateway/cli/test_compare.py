"""Both accounts are shown side by side."""

from __future__ import annotations

from protocol.numbers import Precedence
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import NOW_MS, add_truck
from tests.gateway.running import RunningGateway


def test_what_was_lost_on_the_way_is_told(signed_in: RunningGateway, digitruck: Digitruck) -> None:
    truck = signed_in.run(add_truck(signed_in.fleet))
    ran = digitruck("ledger", "compare", "ke-arrow", ok=False)
    assert (ran.code, "has not told its own account yet" in ran.err) == (1, True)
    entry = LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, NOW_MS, 900, 3)
    signed_in.run(signed_in.fleet.ledger_add([entry]))
    signed_in.run(truck.event("ledger.account", NOW_MS + 3_600_000, '{"sat.2u":1000,"sat.b":1000,"sat.m":5000}'))
    ran = digitruck("ledger", "compare", "ke-arrow")
    assert "sat normal up 1000 900 100 10.0" in " ".join(ran.out.split())
    assert "sat: billed 1.0 kB, 5.000 in its currency" in ran.out
    assert digitruck("ledger", "compare", "ke-arrow", "--json").json["lines"][0]["lost_bytes"] == 100
