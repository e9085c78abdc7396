"""Configuration as TOML and as pairs: both mean the same, and every mistake is named."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.output import CommandError
from gateway.cli.settings import Settings, apply_pairs, differences, make_config, read_toml, settings_of, to_toml
from protocol.documents import Addressee, CollectorConfig, Config, LinkConfig
from protocol.tariffs import (
    BillingPeriod,
    BillingStep,
    Box,
    Budget,
    Power,
    Roaming,
    Shares,
    Timetable,
)
from protocol.windows import Window

TOML = """
batch_age_s = 900
[collectors.host]
period_s = 60
[links.sat]
month_bytes_max = 3_000_000
reserve_bytes = 300_000
price_per_mb_milli = 9_000
currency = "USD"
[links.depot]
month_bytes_max = "unlimited"
[tariffs.sat]
price_per_mb = 5.5
currency = "KES"
step = "session"
step_bytes = "1kB"
price_per_session = "0.10"
allowance_bytes = "10MB"
billing_day = 15
zone = "Africa/Nairobi"
free = "mon-fri 22:00-06:00; sat,sun 00:00-24:00"
hours = "daily 05:00-23:00"
roaming = "640: 12.5; 641,646: never; -1.5/29.25/4.3/35: 8 + 0.1/session"
[tariffs.depot]
currency = "USD"
[budgets.sat]
bytes_max = "30MB"
money_max = 150
reserve_bytes = 1_200_000
shares = "20/50/10"
borrow_percent = 50
burst_percent = 10
[pools.sat]
bytes_max = "100MB"
grants = "ke-arrow 60MB, tz-arrow 40MB"
[power]
channel = "solar.soc"
bulk_below = 60
normal_below = "37.5"
[timetable]
zone = "Africa/Nairobi"
lessons = "mon-fri 08:00-16:00"
[extra]
"classroom.name" = "Chumba"
lessons = true
"""


def make(wanted: Settings) -> Config:
    return make_config(wanted, addressee=Addressee(("ke-arrow",)), version=3, issued_s=1, expires_s=2)


def test_toml_becomes_the_signed_fields() -> None:
    config = make(read_toml(TOML))
    assert config.batch_age_s == 900
    assert config.collectors == (CollectorConfig("host", 60),)
    assert config.links == (LinkConfig("depot", None), LinkConfig("sat", 3_000_000, 300_000, 9_000, "USD"))
    assert config.extra == {"classroom.name": "Chumba", "lessons": True}
    assert (config.version, config.confirm_within_s) == (3, None)


def test_tariffs_and_budgets_become_the_signed_fields() -> None:
    config = make(read_toml(TOML))
    depot, sat = config.tariffs
    assert (depot.link, depot.price_per_mb_milli, depot.free) == ("depot", 0, ())
    assert (sat.price_per_mb_milli, sat.session_milli, sat.step, sat.step_bytes) == (
        5_500,
        100,
        BillingStep.SESSION,
        1_000,
    )
    assert (sat.allowance_bytes, sat.period, sat.billing_day) == (10_000_000, BillingPeriod.MONTH, 15)
    assert sat.free == (Window(0b0011111, 22 * 60, 6 * 60), Window(0b1100000, 0, 1_440))
    assert sat.roaming == (
        Roaming((640,), (), 12_500),
        Roaming((641, 646)),
        Roaming((), (Box(-150, 2_925, 430, 3_500),), 8_000, 100),
    )
    assert config.budgets == (Budget("sat", 30_000_000, 150_000, 1_200_000, 0, Shares(20, 50, 10), 50, 10),)
    assert config.pools[0].grant("tz-arrow") == 40_000_000
    assert config.power == Power("solar.soc", 60_000, 37_500)
    assert config.timetable == Timetable("Africa/Nairobi", (Window(0b0011111, 8 * 60, 16 * 60),))


def test_what_show_prints_can_be_set_again() -> None:
    config = make(read_toml(TOML))
    assert make(read_toml(to_toml(settings_of(config)))) == config


def test_pairs_change_one_thing_and_keep_the_rest() -> None:
    old = settings_of(make(read_toml(TOML)))
    new = apply_pairs(old, ["links.sat.month_bytes_max=5000000", "extra.note=12 o'clock", 'extra.code="0012"'])
    assert differences(old, new) == [
        '+ extra.code = "0012"',
        '+ extra.note = "12 o\'clock"',
        "- links.sat.month_bytes_max = 3000000",
        "+ links.sat.month_bytes_max = 5000000",
    ]
    assert make(new).links[1].month_bytes_max == 5_000_000


def test_an_empty_value_takes_a_key_or_all_below_it_away() -> None:
    config = make(apply_pairs(read_toml(TOML), ["links.sat=", "batch_age_s="]))
    assert [each.name for each in config.links] == ["depot"]
    assert config.batch_age_s is None


def test_true_and_1_are_different_values() -> None:
    assert differences({"extra.x": True}, {"extra.x": 1}) == ["- extra.x = true", "+ extra.x = 1"]


@pytest.mark.parametrize(
    "pair",
    [
        "links.sat.month_byte_max=1",
        "links.sat=1",
        "links.sat.currency=usd",
        "links.Sat.month_bytes_max=1",
        "links.new.reserve_bytes=1",
        "links.sat.month_bytes_max=-1",
        "links.sat.month_bytes_max=lots",
        "links.sat.reserve_bytes=true",
        "batch_age_s=0",
        "batch_age=900",
        "confirm_within_s=1",
        "collectors.host.period_s=100000",
        "links=1",
        "extra=1",
        "nonsense",
        "=1",
        "batch_age_s.x=1",
        "extra.gone=",
        "tariffs.sat.price_per_mb=5.0001",
        "tariffs.sat.price_per_mb=-1",
        "tariffs.sat.zone=a b",
        "tariffs.sat.free=mon 25:00-26:00",
        "tariffs.sat.roaming=640",
        "budgets.sat.bytes_max=3 apples",
        "budgets.sat.shares=50/50/50",
        "budgets.sat.reserve_bytes=40MB",
        "pools.sat.bytes_max=99MB",
        "power.bulk_under=1",
    ],
)
def test_what_no_truck_would_accept_is_refused_before_signing(pair: str) -> None:
    with pytest.raises(CommandError):
        make(apply_pairs(read_toml(TOML), [pair]))


@pytest.mark.parametrize(
    "text",
    [
        "links = 3",
        "[link.sat]\nmonth_bytes_max = 1",
        "[links.sat]\nmonth_bytes = 1",
        "[links.sat]\n",
        "batch_age_s = 1.5",
        "x =",
    ],
)
def test_a_file_with_a_mistake_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="not a configuration"):
        read_toml(text)


SCALARS = st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20).filter(lambda text: "\ud800" not in text)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)


@settings(max_examples=100, deadline=None)
@given(extra=st.dictionaries(NAMES, SCALARS, max_size=4))
def test_any_extra_survives_printing_and_reading(extra: dict[str, int | bool | str]) -> None:
    wanted: Settings = {f"extra.{name}": value for name, value in extra.items()}
    text = to_toml(wanted)
    assert tomllib.loads(text).get("extra", {}) == extra
    assert read_toml(text) == wanted
