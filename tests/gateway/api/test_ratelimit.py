"""Token buckets refill by time, go into debt by charges, and never number more than allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.ratelimit import TokenBuckets, address_key


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    buckets = TokenBuckets(rate=2.0, burst=3.0, keys_max=10)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a", 0.0) == pytest.approx(0.5)
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.take("b", 0.0) == 0.0


def test_a_charge_is_paid_back_before_anything_passes() -> None:
    buckets = TokenBuckets(rate=1.0, burst=5.0, keys_max=10)
    buckets.charge("a", 0.0, 100.0)
    assert buckets.take("a", 5.0) == pytest.approx(1.0)  # at most one burst of debt
    assert buckets.take("a", 6.0) == 0.0


def test_a_clock_that_steps_back_gives_nothing() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0, keys_max=10)
    buckets.take("a", 100.0)
    assert buckets.take("a", 50.0) > 0


def test_a_flood_of_keys_is_forgotten_least_recent_first() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0, keys_max=3)
    for key in ("a", "b", "c"):
        buckets.take(key, 0.0)
    buckets.take("a", 0.0)
    buckets.take("d", 0.0)
    assert len(buckets) == 3
    assert buckets.take("a", 0.0) > 0  # still remembered
    assert buckets.take("b", 0.0) == 0.0  # forgotten


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 3)), max_size=50))
def test_no_sequence_of_requests_gets_more_than_burst_plus_rate(steps: list[tuple[float, float]]) -> None:
    buckets = TokenBuckets(rate=1.0, burst=4.0, keys_max=2)
    now, taken = 0.0, 0.0
    for wait, cost in steps:
        now += wait
        if buckets.take("a", now, cost) == 0.0:
            taken += cost
    assert taken <= 4.0 + now + 1e-6


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("not an address", "unknown"),
    ],
)
def test_one_host_is_one_key(address: str | None, key: str) -> None:
    assert address_key(address) == key
