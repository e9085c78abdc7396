"""Wall time is believed only from an authenticated answer; no jump of anybody's clock moves the floor back or far."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import clock as clock_module
from edge.clock import Clock, ClockState, boottime, kernel_boot_id, load_clock, save_clock, save_new_floor
from store.database import open_database
from store.schema import STATE
from store.settings import Settings

NOW_S = 1_795_000_000
YEAR_S, STEP_S = 365 * 86_400, 30 * 86_400


class Monotonic:
    """A monotonic clock that only moves when it is told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    database = open_database(tmp_path / "state.db", schema=STATE, share_bytes=16 << 20)
    yield Settings(database)
    database.close()


def make_clock(monotonic: Monotonic, *, floor_s: int = 0, offset_s: float | None = None) -> Clock:
    return Clock(boot=7, floor_s=floor_s, offset_s=offset_s, monotonic=monotonic)


def test_before_anybody_told_it_the_clock_is_unset_and_stamps_with_its_boot(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic)
    assert (clock.state, clock.wall_s(), clock.at_least_s()) == (ClockState.UNSET, None, 0)
    assert clock.stamp() == (100.0, 7)
    assert clock.wants_time


def test_a_floor_of_the_past_bounds_the_time_without_telling_it(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    assert (clock.state, clock.wall_s(), clock.at_least_s()) == (ClockState.FLOOR, None, NOW_S)


def test_an_answer_tells_the_time_at_the_middle_of_its_round_trip(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic)
    assert clock.learn(NOW_S, 2.0)
    assert clock.state is ClockState.SYNCED
    assert clock.stamp() == (NOW_S + 1.0, None)
    monotonic.now += 60
    assert clock.wall_s() == NOW_S + 61.0
    assert not clock.wants_time


def test_an_answer_that_agrees_changes_nothing(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic)
    clock.learn(NOW_S, 0.5)
    offset_s = clock.offset_s
    monotonic.now += 10
    assert not clock.learn(NOW_S + 11, 0.5)
    assert clock.offset_s == offset_s


def test_an_answer_that_differs_by_more_than_its_round_trip_corrects_the_clock(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic)
    clock.learn(NOW_S, 0.5)
    assert clock.learn(NOW_S + 30, 0.5)
    assert clock.wall_s() == pytest.approx(NOW_S + 30.25)


@pytest.mark.parametrize("wrong_s", [0, 86_400, NOW_S - 3 * YEAR_S, NOW_S - 10])
def test_a_gateway_that_fell_back_in_time_is_not_believed_at_once(monotonic: Monotonic, wrong_s: int) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    assert not clock.learn(wrong_s, 0.1)
    assert (clock.wall_s(), clock.floor_s) == (None, NOW_S)


def test_a_gateway_ten_years_ahead_is_not_believed_and_raises_no_floor(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    for _ in range(20):
        assert not clock.learn(NOW_S + 10 * YEAR_S, 0.1)
        monotonic.now += 100
    assert (clock.wall_s(), clock.at_least_s()) == (None, NOW_S)


def test_the_right_time_ends_a_doubt(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    clock.learn(NOW_S + 10 * YEAR_S, 0.1)
    assert clock.learn(NOW_S + 5, 0.1)
    monotonic.now += 4_000
    assert not clock.learn(NOW_S + 10 * YEAR_S, 0.1)  # a new doubt, not the old one grown old
    assert clock.wall_s() == pytest.approx(NOW_S + 4_005, abs=1)


def test_a_truck_that_lay_in_a_shed_for_years_follows_step_by_step(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    start, floors = monotonic.now, [clock.floor_s]
    while clock.wall_s() is None:
        clock.learn(NOW_S + 3 * YEAR_S + int(monotonic.now - start), 0.1)
        assert clock.floor_s - floors[-1] <= STEP_S + 100
        floors.append(clock.floor_s)
        monotonic.now += 600
        assert monotonic.now < 48 * 3_600, "an honest gateway is believed within two days"
    assert len(set(floors)) == 3 * YEAR_S // STEP_S + 2  # each contradiction repeated for an hour


def test_a_truck_that_was_off_for_a_month_knows_the_time_at_once(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    assert clock.learn(NOW_S + STEP_S - 1, 0.1)
    assert clock.state is ClockState.SYNCED


def test_what_one_boot_may_be_told_at_once_is_told_once(monotonic: Monotonic) -> None:
    """A gateway that lies again and again moves the floor no faster than a step an hour."""
    clock = make_clock(monotonic, floor_s=NOW_S)
    begun = monotonic.now
    while monotonic.now - begun < 86_400:
        clock.learn(clock.at_least_s() + STEP_S - 1, 0.1)
        monotonic.now += 60
    hours = 24
    assert clock.at_least_s() <= NOW_S + (hours + 1) * STEP_S + 86_400 + 60 * 24 * 61


def test_after_the_first_answer_a_jump_is_doubted(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    clock.learn(NOW_S, 0.1)
    assert not clock.learn(NOW_S + 3_600, 0.1)
    assert (clock.at_least_s(), clock.wants_time) == (NOW_S, True)
    monotonic.now += 3_700
    assert clock.learn(NOW_S + 3_600 + 3_700, 0.1)
    assert clock.wall_s() == pytest.approx(NOW_S + 7_300, abs=1)


def test_new_gateway_keys_take_back_the_time_that_the_old_ones_told(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S + 10 * YEAR_S)
    clock.learn(NOW_S + 10 * YEAR_S, 0.1)
    clock.begin_anew(NOW_S - 50)
    assert (clock.state, clock.at_least_s()) == (ClockState.FLOOR, NOW_S - 50)
    assert clock.learn(NOW_S, 0.1)
    assert clock.wall_s() == pytest.approx(NOW_S, abs=1)


def test_the_clock_outlives_a_restart_and_its_floor_only_rises(settings: Settings, monotonic: Monotonic) -> None:
    clock = Clock(boot=kernel_boot_id(), floor_s=NOW_S)
    clock.learn(NOW_S + 5, 0.0)
    save_clock(settings, clock)
    again = load_clock(settings)
    assert (again.floor_s, again.state) == (NOW_S + 5, ClockState.SYNCED)
    save_clock(settings, make_clock(monotonic, floor_s=NOW_S - 100))
    assert load_clock(settings).floor_s == NOW_S + 5


def test_only_a_new_floor_lowers_what_is_persisted(settings: Settings) -> None:
    save_clock(settings, Clock(boot=kernel_boot_id(), floor_s=NOW_S + YEAR_S, offset_s=NOW_S + YEAR_S))
    save_new_floor(settings, NOW_S)
    again = load_clock(settings)
    assert (again.floor_s, again.state) == (NOW_S, ClockState.FLOOR)


def test_a_floor_that_is_too_high_does_not_keep_the_time_away_for_ever(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S + 100 * 86_400)
    assert not clock.learn(NOW_S, 0.1)
    monotonic.now += 3_601
    assert clock.learn(NOW_S + 3_601, 0.1)
    assert clock.wall_s() == pytest.approx(NOW_S + 3_601, abs=1)
    assert clock.at_least_s() == NOW_S + 100 * 86_400


def test_contradictions_that_contradict_each_other_are_never_believed(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic, floor_s=NOW_S)
    for hour in range(48):
        assert not clock.learn(NOW_S + 5 * YEAR_S + hour * 86_400, 0.1)
        monotonic.now += 3_600
    assert clock.floor_s == NOW_S


def test_the_first_time_ever_is_taken_as_it_is(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic)
    assert clock.learn(NOW_S, 0.1)
    assert clock.floor_s == NOW_S


def test_the_floor_follows_the_trusted_time_and_never_falls(monotonic: Monotonic) -> None:
    clock = make_clock(monotonic)
    clock.learn(NOW_S, 0.0)
    monotonic.now += 1_000
    clock.raise_floor()
    assert clock.floor_s == NOW_S + 1_000
    clock.offset_s = 0.0  # whatever happens to the offset
    clock.raise_floor()
    assert clock.floor_s == NOW_S + 1_000


def test_a_boot_keeps_its_name_and_monotonic_time_moves() -> None:
    assert kernel_boot_id() == kernel_boot_id() < 1 << 63
    assert 0 < boottime() <= boottime()


def test_a_boot_has_a_name_without_procfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "_BOOT_ID_FILE", tmp_path / "absent")
    assert abs(kernel_boot_id() - kernel_boot_id()) <= 1
