"""Tariffs and budgets are written, explained, signed and looked back at, and a wrong one names its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.settings import settings_of
from gateway.cli.spending import check_spending, with_spending
from protocol.documents import Config, parse_document
from protocol.errors import LocalError
from protocol.tariffs import BillingStep
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import RunningGateway

FILE = """
[tariffs.sat]
currency = "KES"
price_per_mb = 5.50
step = "datagram"
step_bytes = 50
allowance_bytes = "1MB"
billing_day = 15
zone = "Africa/Nairobi"
free = "sun 00:00-24:00"

[budgets.sat]
money_max = 20
reserve_money = 2
shares = "20/50/10"
"""


@pytest.fixture
def fleet(trusted: RunningGateway) -> RunningGateway:
    trusted.run(add_truck(trusted.fleet))
    return trusted


def in_force(running: RunningGateway) -> Config:
    record = running.run(running.fleet.newest_config("ke-arrow", "kenya"))
    assert record is not None
    return parse_document(record.signed, Config)[0]


def test_a_file_is_explained_signed_shown_and_comes_out_again(
    fleet: RunningGateway, digitruck: Digitruck, tmp_path: Path
) -> None:
    (tmp_path / "tariffs.toml").write_text(FILE)
    ran = digitruck("budget", "set", "--group", "kenya", "--file", "tariffs.toml", "--key", "asha", "--yes")
    assert '+ tariffs.sat.zone = "Africa/Nairobi"' in ran.out
    assert "5.500 KES a MB, each datagram rounded up to 50 B, 1.0 MB included; a month from day 15" in ran.out
    assert "at most 20.000 KES a month, of which 2.000 KES for flash alone" in ran.out
    (tariff,) = in_force(fleet).tariffs
    assert (tariff.step, tariff.price_per_mb_milli, tariff.billing_day) == (BillingStep.DATAGRAM, 5_500, 15)
    out = digitruck("budget", "show", "--group", "kenya", "--toml").out
    (tmp_path / "again.toml").write_text(out)
    again = digitruck("budget", "set", "--group", "kenya", "--file", "again.toml", "--key", "asha", "--yes")
    assert "no difference" in again.err
    (shown,) = digitruck("budget", "show", "--group", "kenya", "--json").json
    assert (shown["links"][0]["money_max_milli"], shown["links"][0]["currency"]) == (20_000, "KES")


def test_pairs_change_a_part_and_leave_the_rest_of_the_configuration(
    fleet: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck("config", "set", "ke-arrow", "batch_age_s=900", "links.lte.month_bytes_max=7", "--key", "asha", "--yes")
    digitruck("budget", "set", "ke-arrow", "budgets.sat.bytes_max=3MB", "--key", "asha", "--yes")
    digitruck("budget", "set", "ke-arrow", "tariffs.sat.price_per_mb=5.50", "--key", "asha", "--yes")
    config = in_force(fleet)
    assert (config.batch_age_s, config.version) == (900, 3)
    assert [each.bytes_max for each in config.budgets] == [3_000_000]
    # Trucks of an older release find what they understand.
    assert [(each.name, each.month_bytes_max) for each in config.links] == [("lte", 7), ("sat", 3_000_000)]
    history = digitruck("budget", "history", "ke-arrow", "--json").json
    assert [each["document"]["version"] for each in history] == [3, 2]
    assert history[1]["changes"] == ["+ budgets.sat.bytes_max = 3000000"]
    assert "price_per_mb" in digitruck("budget", "history", "ke-arrow").out
    digitruck("budget", "set", "ke-arrow", "budgets.sat=", "tariffs.sat=", "--key", "asha", "--yes")
    assert [each.name for each in in_force(fleet).links] == ["lte"]


def test_a_dry_run_signs_nothing_and_needs_no_key(fleet: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck("budget", "set", "ke-arrow", "budgets.sat.bytes_max=3MB", "--dry-run")
    assert "at most 3.0 MB a month" in ran.out
    assert "nothing was sent" in ran.err
    assert fleet.run(fleet.fleet.newest_config("ke-arrow", "kenya")) is None
    assert digitruck("budget", "set", "ke-arrow", "budgets.sat.bytes_max=3MB", ok=False).code == 2


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("tariffs.sat.price_per_mb=cheap", "tariffs.sat.price_per_mb: 'cheap' is no amount"),
        ("tariffs.sat.zone=Africa/Nowhere", "tariffs.sat.zone: time zone Africa/Nowhere is not known here"),
        ("tariffs.sat.billing_day=32", "tariffs.sat.billing_day: "),
        ("tariffs.sat.free=always", "tariffs.sat.free: 'always' is not a window"),
        ("tariffs.sat.price=5", "tariffs.sat.price is no setting: there are currency, price_per_mb"),
        ("budgets.sat.bytes_max=30 megabytes", "budgets.sat.bytes_max: '30 megabytes' are no bytes"),
        ("budgets.sat.shares=60/60/0", "budgets.sat.shares: the shares of sat come to 120 percent"),
        ("budgets.sat=5", "budgets.sat lacks a part"),
        ("pools.sat.grants=ke-arrow 5", "pools.sat: the pool of sat needs bytes_max or money_max"),
        ("batch_age_s=5", "batch_age_s is not about money"),
        ("timetable.lessons=mon 8-9", "timetable.lessons: "),
    ],
)
def test_what_is_wrong_is_named_by_its_key(fleet: RunningGateway, digitruck: Digitruck, pair: str, says: str) -> None:
    ran = digitruck("budget", "set", "ke-arrow", pair, "--key", "asha", "--yes", ok=False)
    assert ran.code == 1
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_a_reserve_beyond_its_cap_names_the_table() -> None:
    with pytest.raises(LocalError, match=r"budgets.sat: .*reserve_bytes is more than bytes_max"):
        check_spending({"budgets.sat.bytes_max": 5, "budgets.sat.reserve_bytes": 6})


def test_an_older_truck_gets_what_the_money_buys_and_nothing_of_a_pool() -> None:
    bought = with_spending({}, {"tariffs.sat.price_per_mb": 5, "budgets.sat.money_max": 10})
    assert bought["links.sat.month_bytes_max"] == 2_000_000
    pooled = with_spending({}, {"pools.sat.bytes_max": 10, "pools.sat.grants": "ke-arrow 5"})
    assert pooled["links.sat.month_bytes_max"] == 0
    assert settings_of(None) == {}
