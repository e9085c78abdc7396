"""What was begun and never ended is put aside, over any number of deaths; what ended is forgotten."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from store.attempts import ATTEMPTS_MAX, SLOTS, Attempts, PoisonError

POISON, OTHER = b"p" * 32, b"o" * 32


def die_in(path: Path, digest: bytes) -> None:
    """Begin something in a process that is killed before it ends."""
    child = os.fork()
    if child == 0:
        try:
            with Attempts(path).of(digest):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_what_kills_its_process_is_touched_five_times_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    for number in range(ATTEMPTS_MAX):
        assert Attempts(path).count(POISON) == number
        die_in(path, POISON)
    attempts = Attempts(path)
    assert attempts.used_up(POISON)
    with pytest.raises(PoisonError, match="begun 5 times"), attempts.of(POISON):
        raise AssertionError("it was touched")
    with attempts.of(OTHER):
        assert attempts.count(OTHER) == 1
    assert Attempts(path).used_up(POISON)


def test_an_end_of_any_kind_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    die_in(path, OTHER)
    attempts = Attempts(path)

    def fail() -> None:
        with attempts.of(OTHER):
            assert Attempts(path).count(OTHER) == 2
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    assert (attempts.count(OTHER), Attempts(path).count(OTHER)) == (0, 0)


def test_what_takes_too_long_is_overdue_until_it_ends() -> None:
    now = 0.0
    attempts = Attempts(monotonic=lambda: now)
    with attempts.of(POISON, within_s=10):
        now = 9.0
        assert not attempts.overdue()
        now = 11.0
        assert attempts.overdue()
    assert not attempts.overdue()


def test_more_deaths_than_there_is_room_for_forget_the_oldest(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "attempts")
    blocks = [attempts.of(number.to_bytes(32, "big")) for number in range(SLOTS + 1)]
    for block in blocks:
        block.__enter__()
    assert attempts.count(bytes(32)) == 0
    assert attempts.count(SLOTS.to_bytes(32, "big")) == 1
    for block in blocks:
        block.__exit__(None, None, None)
    assert not any(Attempts(tmp_path / "attempts").count(number.to_bytes(32, "big")) for number in range(SLOTS + 1))


@pytest.mark.parametrize("damage", [b"", b"\xff" * 100, bytes(SLOTS * 40), os.urandom(SLOTS * 40)])
def test_a_damaged_file_counts_nothing_and_serves_on(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "attempts"
    path.write_bytes(damage)
    assert not any(Attempts(path)._begun)
    die_in(path, POISON)
    assert Attempts(path).count(POISON) == 1


def test_where_no_file_can_be_made_counts_are_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "attempts").mkdir()
    attempts = Attempts(tmp_path / "attempts")
    with attempts.of(POISON):
        assert attempts.count(POISON) == 1
