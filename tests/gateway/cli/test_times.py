"""Times as people type them."""

from __future__ import annotations

import click
import pytest

from gateway.cli import times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("15min", 900), ("2h", 7_200), ("7d", 604_800), ("1w", 604_800)],
)
def test_durations(text: str, seconds: int) -> None:
    assert times.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2 fortnights", "-1h", "1.5h", "9" * 12, "٣h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a duration"):
        times.duration(text)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1795000000", 1_795_000_000_000),
        ("2026-11-18", 1_794_960_000_000),
        ("2026-11-18T06:30Z", 1_794_983_400_000),
        ("2026-11-18T06:30", 1_794_983_400_000),
        ("2026-11-18T09:30+03:00", 1_794_983_400_000),
    ],
)
def test_instants_are_utc_unless_they_say_otherwise(text: str, time_ms: int) -> None:
    assert times.instant(text) == time_ms


def test_a_duration_as_an_instant_is_that_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "now_ms", lambda: 10_000_000_000)
    assert times.instant("2h") == 10_000_000_000 - 7_200_000


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "12345678"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a time"):
        times.instant(text)
