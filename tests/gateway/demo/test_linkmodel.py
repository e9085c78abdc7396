"""The link model: rate, queue, loss, outages and order, each as a fact."""

import random
import statistics
from dataclasses import replace
from itertools import pairwise

import pytest

from gateway.demo.linkmodel import (
    DEPOT,
    LTE,
    SATELLITE,
    Direction,
    DirectionProfile,
    GilbertElliott,
    Link,
    LinkProfile,
    OutageProfile,
    Outages,
)

PLAIN = DirectionProfile(rate_bps=80_000, queue_bytes_max=10_000, delay_s=0.1)


def direction_of(
    profile: DirectionProfile, *, outages: OutageProfile | None = None, seed: int = 1, start: float = 0.0
) -> Direction:
    dead = Outages(outages or OutageProfile(), random.Random(seed), start)
    return Direction(profile, random.Random(seed), dead, start)


def assert_every_packet_has_one_fate(direction: Direction) -> None:
    counts = direction.counts
    fates = (counts.delivered, counts.oversize, counts.outage, counts.queue_full, counts.loss, counts.burst_loss)
    assert counts.offered.packets == sum(fate.packets for fate in fates)
    assert counts.offered.bytes_ip == sum(fate.bytes_ip for fate in fates)


def test_a_packet_takes_serialisation_plus_propagation() -> None:
    assert direction_of(PLAIN).offer(1000, 0.0) == (pytest.approx(0.1 + 0.1),)


def test_packets_wait_for_those_before_them() -> None:
    direction = direction_of(PLAIN)
    arrivals = [direction.offer(1000, 0.0)[0] for _ in range(5)]
    assert arrivals == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])


def test_an_idle_link_does_not_save_up_time() -> None:
    direction = direction_of(PLAIN)
    direction.offer(1000, 0.0)
    assert direction.offer(1000, 50.0) == (pytest.approx(50.2),)


def test_throughput_is_the_rate() -> None:
    direction = direction_of(PLAIN)
    now, last = 0.0, 0.0
    for _ in range(2000):
        for arrival in direction.offer(500, now):
            last = arrival
        now += 0.01  # five times what the link carries
    delivered = direction.counts.delivered.bytes_ip
    assert delivered * 8 / (last - 0.1) == pytest.approx(80_000, rel=0.001)
    assert direction.counts.queue_full.packets > 0


def test_the_queue_drops_its_tail_and_never_holds_more_than_its_limit() -> None:
    direction = direction_of(PLAIN)
    fates = [len(direction.offer(1000, 0.0)) for _ in range(12)]
    assert fates == [1] * 10 + [0] * 2
    assert direction.queued_bytes(0.0) == 10_000
    assert direction.counts.queue_full.packets == 2
    assert direction.queued_bytes(0.5) == 5_000
    assert len(direction.offer(1000, 0.5)) == 1


def test_a_packet_over_the_mtu_is_dropped_and_costs_no_time() -> None:
    direction = direction_of(replace(PLAIN, mtu_bytes=1280))
    assert direction.offer(1281, 0.0) == ()
    assert direction.offer(1280, 0.0) == (pytest.approx(0.1 + 0.128),)
    assert direction.counts.oversize.bytes_ip == 1281


def test_a_rate_change_in_the_middle_of_a_packet_counts_for_its_rest() -> None:
    direction = direction_of(replace(PLAIN, rate_changes=((0.05, 8_000.0), (10.0, 800_000.0))), start=0.0)
    # 4,000 bits at 80 kbit/s until 0.05 s, the other 4,000 at 8 kbit/s.
    assert direction.offer(1000, 0.0) == (pytest.approx(0.05 + 0.5 + 0.1),)
    assert direction.offer(1000, 20.0) == (pytest.approx(20.0 + 0.01 + 0.1),)


def test_rate_changes_count_from_the_start() -> None:
    direction = direction_of(replace(PLAIN, rate_changes=((5.0, 8_000.0),)), start=1000.0)
    assert direction.offer(1000, 1004.0) == (pytest.approx(1004.2),)
    assert direction.offer(1000, 1006.0) == (pytest.approx(1007.1),)


def test_random_loss_has_its_share_and_uses_the_link() -> None:
    direction = direction_of(replace(PLAIN, loss=0.2, rate_bps=8e9, queue_bytes_max=1 << 40))
    for number in range(20_000):
        direction.offer(100, number * 0.001)
    assert direction.counts.loss.packets / 20_000 == pytest.approx(0.2, abs=0.01)
    always = direction_of(replace(PLAIN, loss=1.0))
    assert always.offer(1000, 0.0) == ()
    assert always.queued_bytes(0.0) == 1000


def test_burst_loss_has_its_mean_and_its_burst_length() -> None:
    model = GilbertElliott.of_mean(loss=0.1, burst_packets=8)
    direction = direction_of(replace(PLAIN, burst_loss=model, rate_bps=8e9, queue_bytes_max=1 << 40))
    lost = [direction.offer(100, number * 0.001) == () for number in range(60_000)]
    bursts = []
    run = 0
    for gone in lost:
        if gone:
            run += 1
        elif run:
            bursts.append(run)
            run = 0
    assert sum(lost) / len(lost) == pytest.approx(0.1, abs=0.015)
    assert statistics.mean(bursts) == pytest.approx(8, rel=0.1)
    assert direction.counts.burst_loss.packets == sum(lost)


def test_jitter_alone_keeps_the_order() -> None:
    direction = direction_of(replace(PLAIN, jitter_s=0.5, rate_bps=8e6))
    arrivals = [direction.offer(100, number * 0.01)[0] for number in range(500)]
    assert arrivals == sorted(arrivals)
    assert len({round(arrival - number * 0.01, 2) for number, arrival in enumerate(arrivals)}) > 10


def test_reordering_lets_later_packets_overtake() -> None:
    direction = direction_of(replace(PLAIN, reordering=0.1, reordering_delay_s=0.2, rate_bps=8e6))
    arrivals = [direction.offer(100, number * 0.01)[0] for number in range(1000)]
    overtaken = sum(1 for earlier, later in pairwise(arrivals) if later < earlier)
    assert 50 < overtaken < 150
    direct = [arrival for number, arrival in enumerate(arrivals) if arrival < number * 0.01 + 0.2]
    assert direct == sorted(direct)


def test_a_duplicate_comes_out_twice_and_is_counted_apart() -> None:
    direction = direction_of(replace(PLAIN, duplication=1.0))
    first, second = direction.offer(700, 0.0)
    assert second >= first
    assert direction.counts.delivered.packets == 1
    assert direction.counts.duplicated.bytes_ip == 700
    assert_every_packet_has_one_fate(direction)


def test_a_scheduled_outage_takes_what_is_offered_and_what_would_leave_in_it() -> None:
    direction = direction_of(PLAIN, outages=OutageProfile(scheduled_s=((10.0, 20.0),)), start=100.0)
    assert len(direction.offer(1000, 109.0)) == 1
    assert direction.offer(1000, 109.95) == ()  # its last bit would leave at 110.05
    assert direction.offer(1000, 110.0) == ()
    assert direction.offer(1000, 119.9) == ()
    assert len(direction.offer(1000, 120.0)) == 1
    assert direction.counts.outage.packets == 3


def test_random_outages_have_their_share_of_time_and_hit_both_directions_alike() -> None:
    profile = LinkProfile("x", PLAIN, PLAIN, OutageProfile(mean_up_s=30.0, mean_down_s=10.0))
    link = Link(profile, seed=3, start=0.0)
    up, down = [], []
    for number in range(40_000):
        up.append(link.up.offer(10, number * 1.0) == ())
        down.append(link.down.offer(10, number * 1.0) == ())
    assert up == down
    assert sum(up) / len(up) == pytest.approx(0.25, abs=0.02)
    assert len(link.outages._drawn) < 10


def test_a_forced_outage_ends_when_it_is_lifted() -> None:
    link = Link(DEPOT, seed=1, start=0.0)
    link.set_outage(True)
    assert link.up.offer(100, 1.0) == link.down.offer(100, 1.0) == ()
    link.set_outage(False)
    assert len(link.up.offer(100, 1.0)) == 1


def wild_link(seed: int) -> Link:
    wild = DirectionProfile(
        rate_bps=200_000,
        queue_bytes_max=5_000,
        delay_s=0.05,
        jitter_s=0.02,
        loss=0.05,
        burst_loss=GilbertElliott.of_mean(loss=0.05, burst_packets=4),
        duplication=0.02,
        reordering=0.05,
        mtu_bytes=1280,
        rate_changes=((5.0, 50_000.0), (15.0, 1_000_000.0)),
    )
    return Link(LinkProfile("wild", wild, wild, OutageProfile(mean_up_s=8, mean_down_s=2)), seed=seed, start=7.0)


def offers(seed: int) -> list[tuple[int, float]]:
    rng = random.Random(seed)
    now = 7.0
    result = []
    for _ in range(3000):
        now += rng.expovariate(100.0)
        result.append((rng.randint(28, 1400), now))
    return result


def test_a_seed_replays_a_link_bit_for_bit() -> None:
    first, second, other = wild_link(5), wild_link(5), wild_link(6)
    one = [first.up.offer(size, now) for size, now in offers(1)]
    assert one == [second.up.offer(size, now) for size, now in offers(1)]
    assert one != [other.up.offer(size, now) for size, now in offers(1)]
    assert first.up.counts == second.up.counts


def test_traffic_down_does_not_change_the_fate_of_traffic_up() -> None:
    quiet, busy = wild_link(5), wild_link(5)
    for size, now in offers(1):
        busy.down.offer(999, now)
        assert quiet.up.offer(size, now) == busy.up.offer(size, now)


@pytest.mark.parametrize("seed", range(5))
def test_every_packet_has_one_fate_and_none_comes_before_it_could(seed: int) -> None:
    link = wild_link(seed)
    copies = 0
    for size, now in offers(seed):
        arrivals = link.up.offer(size, now)
        copies += len(arrivals)
        assert all(arrival >= now + 0.05 + size * 8 / 1_000_000 for arrival in arrivals)
        assert link.up.queued_bytes(now) <= 5_000
    assert_every_packet_has_one_fate(link.up)
    counts = link.up.counts
    assert copies == counts.delivered.packets + counts.duplicated.packets
    assert min(counts.outage.packets, counts.loss.packets, counts.burst_loss.packets, counts.oversize.packets) > 0


@pytest.mark.parametrize(("profile", "rtt_s", "loss"), [(SATELLITE, 0.6, 0.05), (LTE, 0.08, 0.02), (DEPOT, 0.01, 0.0)])
def test_presets_have_the_round_trip_and_the_loss_they_name(profile: LinkProfile, rtt_s: float, loss: float) -> None:
    link = Link(replace(profile, outages=OutageProfile()), seed=1, start=0.0)
    trips = []
    for number in range(5000):
        now = float(number)
        for there in link.up.offer(1, now):
            trips += [back - now for back in link.down.offer(1, there)]
    assert statistics.mean(trips) == pytest.approx(rtt_s, rel=0.01)
    assert link.up.counts.loss.packets / 5000 == pytest.approx(loss, abs=0.01)


def test_presets_have_the_rates_they_name() -> None:
    assert (SATELLITE.up.rate_bps, SATELLITE.down.rate_bps) == (64_000, 64_000)
    assert (LTE.up.rate_bps, LTE.down.rate_bps) == (2_000_000, 2_000_000)
    assert LTE.outages.mean_down_s > 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: replace(PLAIN, loss=1.5),
        lambda: replace(PLAIN, duplication=-0.1),
        lambda: replace(PLAIN, rate_bps=0),
        lambda: replace(PLAIN, delay_s=-1),
        lambda: replace(PLAIN, rate_changes=((5.0, 1.0), (4.0, 1.0))),
        lambda: replace(PLAIN, rate_changes=((5.0, 0.0),)),
        lambda: OutageProfile(scheduled_s=((5.0, 4.0),)),
        lambda: OutageProfile(scheduled_s=((1.0, 4.0), (3.0, 5.0))),
        lambda: OutageProfile(mean_up_s=5.0),
        lambda: GilbertElliott(good_to_bad=2.0, bad_to_good=0.5),
        lambda: GilbertElliott.of_mean(loss=0.9, burst_packets=1),
    ],
)
def test_an_impossible_profile_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError):
        wrong()  # type: ignore[operator]
