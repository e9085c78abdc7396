"""Wrong clocks: 1970 and ten years ahead neither brick a truck nor open a hole."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge.clock import Clock, ClockState
from protocol.documents import Desired, parse_document
from tests.attacks.rig import (
    DAY,
    GATEWAY,
    NOW,
    OPERATOR,
    ROOTS,
    Gateway,
    Good,
    Truck,
    config,
    delegation,
    root,
    sign,
)

TEN_YEARS = 10 * 365 * DAY


@pytest.fixture(params=["1970", "ten years ahead"])
def system_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The machine's own wall clock is wrong."""
    wrong = 60.0 if request.param == "1970" else float(NOW + TEN_YEARS)
    monkeypatch.setattr(time, "time", lambda: wrong)
    monkeypatch.setattr(time, "time_ns", lambda: int(wrong * 1e9))
    return str(request.param)


async def test_a_machine_with_a_wrong_clock_takes_what_is_valid_and_nothing_older(
    tmp_path: Path, gateway: Gateway, system_clock: str
) -> None:
    """The floor is what counts: what is valid by it is taken, what it says is expired is not."""
    truck = Truck(tmp_path, gateway, floor_s=NOW)
    good = Good.make(2)
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert await truck.install()
    assert (truck.config_version(), truck.active()) == (2, "v2")
    gateway.want(*good.all, sign(config(3, expires_s=NOW - 1), OPERATOR), sign(config(1), OPERATOR))
    await truck.sync()
    assert truck.config_version() == 2
    await truck.close()


async def test_a_truck_that_knows_no_time_at_all_still_refuses_older_versions(tmp_path: Path, gateway: Gateway) -> None:
    """Never synced, floor 0: expiry proves nothing then, versions and signatures do."""
    truck = Truck(tmp_path, gateway, floor_s=0)
    assert truck.clock.state is ClockState.UNSET
    good = Good.make(2)
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert await truck.install()
    gateway.want(sign(delegation(), *ROOTS[:2]), sign(config(1), OPERATOR), sign(config(3), GATEWAY))
    await truck.sync()
    assert (truck.config_version(), truck.active()) == (2, "v2")
    await truck.close()


async def test_a_restart_in_1970_does_not_bring_back_what_has_expired(
    truck: Truck, gateway: Gateway, served: Good
) -> None:
    """The floor is durable and only rises: a clock that begins again does not make an expired document valid."""
    truck.clock.learn(NOW + 3 * DAY, 0.1)
    old_desired = gateway.desired
    again = await truck.restarted()
    assert again.clock.state is ClockState.FLOOR
    gateway.desired = old_desired
    assert "expired" in str(await again.sync())
    assert (await again.downlink.wanted()).config is not None
    await again.close()
    truck.state, truck.writer = again.state, again.writer


def _told(clock: Clock, at: list[float], time_s: int, *, for_s: float, every_s: float = 60.0) -> None:
    """Have a gateway tell the time steadily for so long (its clock runs on with ours)."""
    begun = at[0]
    while at[0] - begun <= for_s:
        clock.learn(int(time_s + at[0] - begun), 0.0)
        at[0] += every_s


def _clock() -> tuple[Clock, list[float]]:
    at = [1000.0]
    clock = Clock(boot=1, floor_s=NOW, monotonic=lambda: at[0])
    clock.learn(NOW, 0.0)
    return clock, at


def test_a_gateway_ten_years_ahead_is_not_believed_at_once() -> None:
    clock, at = _clock()
    _told(clock, at, NOW + TEN_YEARS, for_s=1800)
    assert clock.at_least_s() < NOW + DAY
    assert clock.wants_time


def test_a_gateway_in_1970_never_lowers_what_expiry_is_judged_by() -> None:
    clock, at = _clock()
    _told(clock, at, 60, for_s=7200)
    assert clock.at_least_s() >= NOW


def test_a_gateway_ten_years_ahead_for_hours_moves_the_floor_by_steps() -> None:
    """What a gateway with stolen keys can do to the clock in a day is bounded; documents of the day outlive an hour."""
    clock, at = _clock()
    _told(clock, at, NOW + TEN_YEARS, for_s=3700)
    assert clock.at_least_s() <= NOW + 31 * DAY


async def test_after_years_ahead_the_last_good_stays_and_newly_signed_documents_heal_it(
    truck: Truck, gateway: Gateway, served: Good
) -> None:
    """A floor that a gateway pushed ahead bricks nothing: what is applied stays, and longer validity is taken."""
    truck.clock.floor_s = NOW + TEN_YEARS
    assert "expired" in str(await truck.sync())
    await truck.work(lambda: truck.active() != "v1", within_s=0.05)
    again = await truck.restarted()
    wanted = await again.downlink.wanted()
    assert wanted.config is not None
    assert again.active() == "v1"
    valid = NOW + 2 * TEN_YEARS
    gateway.want(
        sign(root(2, expires_s=valid), *ROOTS[:2]),
        sign(delegation(2, expires_s=valid), *ROOTS[:2]),
        sign(config(2, expires_s=valid), OPERATOR),
    )
    gateway.state(*parse_document(gateway.desired, Desired)[0].entries, expires_s=valid)
    assert await again.sync() is None
    assert again.config_version() == 2
    await again.close()
    truck.state, truck.writer = again.state, again.writer
