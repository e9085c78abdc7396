"""A pool is given out in grants whose sum, with those that trucks still go by, never exceeds it."""

from __future__ import annotations

import pytest

from gateway.forecast import DAY_MS
from protocol.numbers import DocumentKind, Precedence
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import Truck, add_truck
from tests.gateway.running import RunningGateway, now_ms


class Group:
    """Two trucks of a group that has a pool of 100 MB for its satellite."""

    def __init__(self, running: RunningGateway, digitruck: Digitruck) -> None:
        self.running = running
        self.digitruck = digitruck
        self.trucks = {name: running.run(add_truck(running.fleet, name)) for name in ("ke-arrow", "ke-tana")}
        self.grant("--amount", "100MB", "--even")

    def grant(self, *arguments: str, ok: bool = True) -> str:
        ran = self.digitruck("budget", "grant", "sat", "--group", "kenya", *arguments, "--key", "asha", "--yes", ok=ok)
        assert ok or ran.code == 1
        return ran.out + ran.err

    def applied(self, truck: str) -> None:
        """Let a truck say that it applied the newest configuration."""
        record = self.running.run(self.running.fleet.newest_config(truck, "kenya"))
        assert record is not None
        sender: Truck = self.trucks[truck]
        self.running.run(sender.receipt(DocumentKind.CONFIG, record.digest))

    def grants(self) -> dict[str, tuple[int, int]]:
        """Return what each truck was given, and what it may go by, in MB."""
        (pool,) = self.digitruck("budget", "pool", "--group", "kenya", "--json").json
        assert pool["excess"] == 0
        return {each["truck"]: (each["grant"] // 10**6, each["held"] // 10**6) for each in pool["grants"]}


@pytest.fixture
def group(trusted: RunningGateway, digitruck: Digitruck) -> Group:
    return Group(trusted, digitruck)


def test_a_grant_is_raised_only_when_the_lowered_one_was_applied(group: Group) -> None:
    group.applied("ke-arrow")
    group.applied("ke-tana")
    refused = group.grant("ke-arrow=20MB", "ke-tana=80MB", ok=False)
    assert "could spend 30000000 more than the sat pool has, until ke-arrow applied a lower grant" in refused
    group.grant("ke-arrow=20MB")
    assert group.grants() == {"ke-arrow": (20, 50), "ke-tana": (50, 50)}
    group.grant("ke-tana=80MB", ok=False)
    group.applied("ke-arrow")
    group.grant("ke-tana=80MB")
    assert group.grants() == {"ke-arrow": (20, 20), "ke-tana": (80, 80)}


def test_what_a_truck_may_have_applied_unheard_counts_too(group: Group) -> None:
    group.applied("ke-arrow")
    group.grant("ke-arrow=0")
    group.applied("ke-arrow")
    group.grant("ke-arrow=50MB")
    group.grant("ke-arrow=10MB")
    # It said that it has 0, and may since have had 50.
    assert group.grants()["ke-arrow"] == (10, 50)
    group.grant("ke-tana=90MB", ok=False)


def test_grants_beyond_the_pool_are_refused_before_anything_is_signed(group: Group) -> None:
    said = group.grant("ke-arrow=80MB", ok=False)
    assert "the grants come to 130.0 MB, the pool has 100.0 MB" in said


def test_a_pool_is_shared_out_as_it_is_used(group: Group) -> None:
    days = [now_ms() - day * DAY_MS for day in range(1, 10)]
    entries = [LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, at, 300_000, 9) for at in days]
    group.running.run(group.running.fleet.ledger_add(entries))
    group.grant("ke-arrow=0", "ke-tana=0")
    for truck in group.trucks:
        group.applied(truck)
    group.grant("--by-use")
    found = group.grants()
    assert found["ke-arrow"][0] > 90
    out = group.digitruck("budget", "pool").out
    assert "(all)" in out
    assert "of 100.0 MB" in out


def test_a_truck_with_a_configuration_of_its_own_is_named_as_outside(group: Group) -> None:
    group.digitruck("config", "set", "ke-tana", "batch_age_s=60", "pools.sat=", "--key", "asha", "--yes")
    ran = group.digitruck("budget", "pool")
    assert "ke-tana of kenya: not in the pool" in ran.err


def test_a_pool_of_money_is_in_its_currency(trusted: RunningGateway, digitruck: Digitruck) -> None:
    trusted.run(add_truck(trusted.fleet))
    grant = ("budget", "grant", "sat", "--group", "kenya")
    digitruck(*grant, "--money", "--amount", "10.50", "ke-arrow=4.25", "--key", "asha", "--yes")
    (pool,) = digitruck("budget", "pool", "--json").json
    assert (pool["unit"], pool["amount"], pool["given"]) == ("money", 10_500, 4_250)
    assert "4.250 USD" in digitruck("budget", "pool").out
    assert digitruck(*grant, "lte=5", "--even", "--key", "asha", ok=False).code == 2
