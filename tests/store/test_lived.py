"""Lived time goes on over lives, falls behind at most, and never jumps."""

from __future__ import annotations

from store.lived import Lived
from store.settings import Settings


def test_lives_add_up_and_what_was_not_noted_is_only_missing(database) -> None:
    now = [5_000.0]
    first = Lived(database, lambda: now[0])
    now[0] += 700
    assert first.note() == 700
    now[0] += 300
    assert first.note() == 1_000  # not written down: too soon after the last
    now[0] = 3.0  # another boot
    second = Lived(database, lambda: now[0])
    assert second.now_s() == 700
    now[0] += 650
    assert second.note() == 1_350
    assert Lived(database, lambda: now[0]).now_s() == 1_350


def test_a_clock_that_runs_backwards_takes_nothing_away(database) -> None:
    now = [5_000.0]
    lived = Lived(database, lambda: now[0])
    now[0] -= 4_000
    assert lived.note() == 0
    assert Settings(database).get_int("lived_s") == 0
