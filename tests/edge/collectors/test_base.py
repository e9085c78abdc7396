from __future__ import annotations

import pytest

from edge.collectors.base import ChannelSpec, each_period, is_decimal_scale, round_ratio
from protocol.schema import Schema


def test_a_spec_becomes_a_channel_that_a_schema_takes():
    spec = ChannelSpec("solar.battery_v", "V", scale=100, nominal=1300, typical_change=2)
    channel = spec.to_channel()
    assert Schema(channels=(channel,)).channels[0].nominal == 1300
    assert (channel.name, channel.unit, channel.scale, channel.typical) == ("solar.battery_v", "V", 100, 2)


@pytest.mark.parametrize("name", ["", ".x", "a b", "ä", "a" * 65, "x,y", "a\n"])
def test_a_name_that_senml_forbids_is_refused(name: str):
    with pytest.raises(ValueError, match="SenML name"):
        ChannelSpec(name)


def test_a_unit_that_is_not_registered_is_refused():
    with pytest.raises(ValueError, match="furlong"):
        ChannelSpec("x", "furlong")


@pytest.mark.parametrize(
    ("scale", "holds"),
    [(1, True), (10, True), (10**9, True), (0, False), (20, False), (-10, False), (10**10, False), (101, False)],
)
def test_only_powers_of_ten_are_decimal_scales(scale: int, holds: bool):
    assert is_decimal_scale(scale) is holds


def test_round_ratio_rounds_to_nearest_without_floats():
    assert [round_ratio(value, 1, 10) for value in (12534, 12535, -7626, -4, 0)] == [1253, 1254, -763, 0, 0]
    assert round_ratio(10**18 + 6, 1, 10) == 10**17 + 1


async def test_missed_periods_are_skipped_and_the_grid_is_kept(instant_clock):
    ticks = []
    periods = each_period(instant_clock, 60.0)
    for busy_s in (5.0, 130.0, 0.0):
        await anext(periods)
        ticks.append(instant_clock.monotonic())
        instant_clock.passed_s += busy_s
    await anext(periods)
    assert [*ticks, instant_clock.monotonic()] == [0.0, 60.0, 240.0, 300.0]
