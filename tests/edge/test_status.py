from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from edge.clock import ClockState
from edge.status import (
    ClockStatus,
    CollectorStatus,
    DiskStatus,
    EdgeStatus,
    LinkStatus,
    QueueStatus,
    VersionStatus,
    WaitStatus,
    format_age,
    format_bytes,
    render_links,
    render_status,
)

DISK = DiskStatus(12_000_000, 512_000_000, 3_400_000_000, 200_000_000_000, 81_000_000_000)
NEW = EdgeStatus("ke-arrow", (), (), (), ClockStatus(ClockState.UNSET), DISK)
BUSY = EdgeStatus(
    truck="ke-arrow",
    queues=(QueueStatus("flash", 0, 0), QueueStatus("normal", 42, 50_123, 7_300.0)),
    links=(
        LinkStatus("sat", True, 1_250_000, 30_000_000, 28_000_000, 95.0),
        LinkStatus("lte", False, 0, None, None, None),
        LinkStatus("depot", None, 0),
    ),
    versions=(VersionStatus("config", "7", "7"), VersionStatus("maths", "2.0", "1.0", 999, 1_000)),
    clock=ClockStatus(ClockState.SYNCED, 1_780_000_000.0),
    disk=DISK,
    last_contact_age_s=95.0,
    collectors=(CollectorStatus("solar", 100, 59.0), CollectorStatus("gps", 0, None, "cannot open /dev/ttyACM0")),
)


def test_a_busy_truck_reads_in_a_glance():
    assert (
        render_status(BUSY)
        == """\
truck ke-arrow
last contact  95 s ago
clock         synced
disk          queues 12 MB of 512 MB, content 3.4 GB of 200 GB, free 81 GB

waiting  parcels  size   oldest
normal   42       50 kB  2 h

link   state    spent   budget  left   last contact
sat    usable   1.2 MB  30 MB   28 MB  95 s ago
lte    down     0 B     no cap  -      never
depot  unknown  0 B     no cap  -      never

version of  active  desired
config      7       7
maths       1.0     2.0      99 % of 1.0 kB

collector  rows  last row
solar      100   59 s ago
gps        0     never     cannot open /dev/ttyACM0
"""
    )


def test_a_new_truck_says_what_is_not_there_yet():
    text = render_status(NEW)
    for line in (
        "last contact  never",
        "clock         not set; times are repaired when the gateway tells it",
        "nothing waits to be sent",
        "no links are configured",
        "no configuration or content has been received",
        "no collectors are running",
    ):
        assert line in text.splitlines()


def test_lines_fit_a_serial_console():
    assert max(map(len, render_status(BUSY).splitlines())) <= 80


def test_the_structs_are_the_json():
    value = msgspec.json.decode(msgspec.json.encode(BUSY))
    assert value["links"][0] == {
        "name": "sat",
        "usable": True,
        "spent_bytes": 1_250_000,
        "budget_bytes": 30_000_000,
        "left_bytes": 28_000_000,
        "last_contact_age_s": 95.0,
        "rtt_s": None,
        "loss": None,
        "note": "",
        "tariff": "",
        "spent_money": "",
        "left_normal_bytes": None,
        "period_ends_s": None,
        "waits": [],
        "device": None,
        "rate_bps": None,
        "falls": 0.0,
    }

    assert value["clock"]["state"] == "synced"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_999, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (12_345_678, "12 MB"),
        (10**15, "1000 TB"),
    ],
)
def test_bytes_read_in_decimal_units(count: int, text: str):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("age_s", "text"),
    [(-3.0, "0 s"), (0.0, "0 s"), (119.9, "119 s"), (120.0, "2 min"), (7_200.0, "2 h"), (172_800.0, "2 days")],
)
def test_ages_read_in_one_unit(age_s: float, text: str):
    assert format_age(age_s) == text


def test_a_version_is_current_when_nothing_else_is_desired():
    assert VersionStatus("maths", None, "1").current
    assert VersionStatus("maths", "1", "1").current
    assert not VersionStatus("maths", "2", "1").current


def test_a_link_says_why_it_carries_nothing():
    note = "the budget of this month is used up: only flash may use the reserve"
    lines = render_status(
        replace(NEW, links=(LinkStatus("lte", True, 10, 10, 0), LinkStatus("sat", True, 9, note=note)))
    )
    found = lines.splitlines()
    assert found[found.index(f"sat: {note}") - 1].startswith("sat ")
    assert found[found.index(f"sat: {note}") + 1] == ""
    assert "lte:" not in lines


def test_one_screen_says_why_nothing_moves_and_when_it_will():
    text = "1.2 MB of 30 MB left are flash's reserve; new period on 15 Dec 00:00 Africa/Nairobi"
    waits = (
        WaitStatus("normal", "reserve", text, 1_797_285_600),
        WaitStatus("bulk", "reserve", text, 1_797_285_600),
        WaitStatus("priority", "cheaper", "cheaper over lte"),
    )
    sat = LinkStatus("sat", True, 28_800_000, 30_000_000, 1_200_000, 5.0, tariff="5.00 USD/MB", waits=waits)
    queues = (QueueStatus("normal", 42, 50_123),)
    lines = render_status(replace(NEW, queues=queues, links=(sat,))).splitlines()
    assert f"sat: normal waits: {text}" in lines
    assert not any("priority" in line or "bulk" in line for line in lines)  # nothing of them is here
    both = render_status(
        replace(NEW, queues=queues, links=(sat,), versions=(VersionStatus("maths", "2", "1"),))
    ).splitlines()
    assert f"sat: normal and bulk wait: {text}" in both
    shown = render_links((sat,)).splitlines()
    assert shown[:2] == ["sat: works, heard 5 s ago", "  tariff  5.00 USD/MB"]
    assert shown[3:] == [f"  normal and bulk wait: {text}", "  priority waits: cheaper over lte"]
