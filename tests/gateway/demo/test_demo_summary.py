"""The demo's verdict: each thing that should work and did not is named."""

from dataclasses import replace

import pytest

from gateway.demo.picture import LinkPicture, TruckPicture, VersionPicture, plain
from gateway.demo.picture import Picture as Shown
from gateway.demo.summary import Result, TruckResult, failures, report

LTE = LinkPicture("lte", usable=True, rtt_s=0.08, spent_bytes=2_000, spent_milli=0.02, currency="USD")
TRUCK = TruckPicture(
    name="ke-arrow",
    place="Nairobi, KE",
    rows_recorded=100,
    rows_arrived=96,
    batches=20,
    queued=1,
    links=(LTE,),
    versions=(VersionPicture("config", "1", "1"), VersionPicture("lessons", "b", "b")),
)
GOOD = TruckResult(TRUCK, missing=0, rows_at_restart=40, telemetry_bytes=4_800, carried_bytes={"lte": 2_000})
RESULT = Result(
    trucks=(GOOD,),
    first_sample_s=9.0,
    passed_s=60.0,
    configured="1",
    bundle="lessons",
    wanted_versions=("a", "b"),
    activated={"a": {"ke-arrow": 20.0}, "b": {"ke-arrow": 50.0}},
    killed_s=30.0,
    back_s=34.0,
    troubles=(),
)


def with_truck(**changes: object) -> Result:
    return replace(RESULT, trucks=(replace(GOOD, **changes),))


def test_nothing_is_wrong_when_all_worked() -> None:
    assert failures(RESULT) == []


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (replace(RESULT, first_sample_s=None), "no sample"),
        (replace(RESULT, killed_s=None, back_s=None), "not killed and restarted"),
        (replace(RESULT, activated={"a": {"ke-arrow": 20.0}}), "lessons b was not activated"),
        (replace(RESULT, configured="2"), "configuration 2"),
        (replace(RESULT, troubles=("the story ended",)), "the story ended"),
        (with_truck(missing=2), "2 parcels are missing"),
        (with_truck(rows_at_restart=96), "nothing arrived after the restart"),
        (with_truck(picture=replace(TRUCK, rows_arrived=101)), "101 rows arrived of 100"),
        (with_truck(picture=replace(TRUCK, rows_recorded=1_000)), "904 rows have not arrived"),
    ],
)
def test_what_failed_is_named(result: Result, said: str) -> None:
    found = failures(result)
    assert len(found) == 1
    assert said in found[0]


def test_the_report_says_bytes_a_sample_money_and_the_restart() -> None:
    text = "\n".join(report(RESULT))
    assert "96 samples in 20 batches arrived, 50 bytes each" in text
    assert "lte 2,000 B for 0.0000 USD (the relay carried 2,000)" in text
    assert "killed at 30 s, back at 34 s: 56 samples arrived since, 0 parcels missing" in text


def test_a_download_under_way_is_shown_with_its_share() -> None:
    truck = replace(TRUCK, versions=(VersionPicture("lessons", "b", "a", share=0.25),))
    (line,) = plain(Shown(12.0, True, (truck,), []))
    assert "lessons a -> b 25%" in line
