"""Traces: recorded ones are read, or refused by line; seeded ones are the same each time; links follow them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.demo.linkmodel import Condition, DirectionProfile, Link
from gateway.demo.linktrace import Trace, random_trace, read_trace

BASE = DirectionProfile(rate_bps=1_000_000, queue_bytes_max=1 << 20, delay_s=0.1)


def read(tmp_path: Path, text: str) -> Trace:
    (tmp_path / "trace").write_text(text)
    return read_trace(tmp_path / "trace")


def test_a_recorded_trace_has_conditions_outages_and_addresses(tmp_path: Path) -> None:
    trace = read(tmp_path, "t_s,rate_bps,delay_s,loss,address\n0,1000000,0.1,0,2\n5,0,,,\n7,500000,0.3,0.2,9\n")
    assert trace.conditions == (Condition(0, 1e6, 0.1, None, 0.0), Condition(7, 5e5, 0.3, None, 0.2))
    assert (trace.outages_s, trace.addresses, trace.seconds) == (((5.0, 7.0),), ((0.0, 2), (7.0, 9)), 7.0)


def test_a_trace_of_mahimahi_is_read_as_rates(tmp_path: Path) -> None:
    trace = read(tmp_path, "\n".join(str(at) for at in [*range(0, 100, 10), *range(100, 200, 50)]))
    assert [(each.at_s, each.rate_bps) for each in trace.conditions] == [(0.0, 1_200_000.0), (0.1, 240_000.0)]


@pytest.mark.parametrize("text", ["t_s,rate_bps\n0,fast\n", "t_s\n0\n", "12\nx\n", "t_s,rate_bps,loss\n0,1000,7\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError):
        read(tmp_path, text)


def test_a_seed_is_the_same_weather_each_time_and_another_seed_another() -> None:
    one = random_trace(1, seconds=60, rate_bps=1e6, delay_s=0.1)
    assert one == random_trace(1, seconds=60, rate_bps=1e6, delay_s=0.1)
    assert one != random_trace(2, seconds=60, rate_bps=1e6, delay_s=0.1)
    assert len(one.conditions) > 8
    one.profile("lte", BASE)


def test_a_link_is_as_its_trace_says_from_each_instant_on() -> None:
    trace = Trace((Condition(0, 1e6, 0.1), Condition(10, 1e5, 0.5), Condition(20, 1e6, 0.1, loss=1.0)), ((30, 40),))
    link = Link(trace.profile("lte", BASE), seed=1, start=100.0)
    assert link.down.offer(1_000, 101.0) == (pytest.approx(101.108),)
    assert link.down.offer(1_000, 111.0) == (pytest.approx(111.58),)
    assert link.down.offer(1_000, 121.0) == ()
    assert link.down.counts.loss.packets == 1
    assert link.down.offer(1_000, 131.0) == ()
    assert link.down.counts.outage.packets == 1
