"""A short silence: `make sim ARGS=--silence` is ninety days of it."""

from __future__ import annotations

from tests.sim.silence import keep_silent


def test_of_a_silence_that_the_disk_does_not_hold_every_row_is_shown_or_named() -> None:
    # That the gateway shows what is true, hour by hour, and tombstones are exact, `keep_silent` checks.
    found = keep_silent(days=3.0, share_kb=260)
    assert found.full_after_days is not None
    assert found.summarised > found.taken / 4, found
    assert found.detail > 0
    assert found.dropped < found.summarised, found
