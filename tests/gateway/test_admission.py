"""Who is let in, and how much an unproven address gets back: whatever is forgotten, never more."""

from __future__ import annotations

import pytest

from gateway import admission
from gateway.admission import (
    ANSWER_FACTOR_MAX,
    KNOWN_BURST,
    PREFIX_BURST,
    PREFIX_PER_S,
    STRANGERS_BURST,
    Admission,
    UnprovenAddressError,
)
from store.coapmeter import Address, Datagram, Direction
from tests.gateway.coapside import Clock


@pytest.fixture
def gate(clock: Clock) -> Admission:
    return Admission(monotonic=clock.monotonic)


GET = b"\x40\x01\x00\x01"


def answer(gate: Admission, remote: Address, size: int) -> bool:
    try:
        gate.check_answer(Datagram(Direction.SENT, size, remote))
    except UnprovenAddressError:
        return False
    return True


def test_a_prefix_has_a_burst_and_then_a_rate(gate: Admission, clock: Clock) -> None:
    asked = int(PREFIX_BURST) + 50
    assert sum(gate.admit(GET, 60, (f"10.0.0.{n % 250}", n)) for n in range(asked)) == PREFIX_BURST
    clock.pass_s(1.0)
    assert sum(gate.admit(GET, 60, ("10.0.0.9", n)) for n in range(asked)) == PREFIX_PER_S
    assert gate.turned_away == asked - PREFIX_BURST + asked - PREFIX_PER_S


def test_an_ipv6_sender_is_its_48_bits(gate: Admission) -> None:
    hosts = [f"2001:db8:1:{n:x}::{n:x}" for n in range(int(PREFIX_BURST))]
    assert all(gate.admit(GET, 60, (host, 1)) for host in hosts)
    assert not gate.admit(GET, 60, ("2001:db8:1:ffff::1", 1))
    assert gate.admit(GET, 60, ("2001:db8:2::1", 1))


def test_all_strangers_together_are_bounded(gate: Admission) -> None:
    admitted = sum(gate.admit(GET, 60, (f"10.{n // 250}.{n % 250}.1", 1)) for n in range(5_000))
    assert admitted == STRANGERS_BURST


def test_a_proven_address_is_served_through_a_flood_and_another_port_of_it_is_not_proven(gate: Admission) -> None:
    gate.proven(("10.0.0.1", 7))
    for n in range(2_000):
        gate.admit(GET, 60, ("10.0.0.1", 1_000 + n))
    assert gate.admit(GET, 60, ("10.0.0.1", 7))
    assert not gate.admit(GET, 60, ("10.0.0.1", 8))


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x40\x01", b"\xc0\x01\x00\x01", b"\x60\x00\x00\x01", b"\x50\x45\x00\x01", b"junk", b"\x40\xe1\x00\x01"],
)
def test_what_is_no_request_is_turned_away_and_takes_nothing_from_who_asks(gate: Admission, junk: bytes) -> None:
    assert not any(gate.admit(junk, 60, ("10.0.0.1", n)) for n in range(1_000))
    assert sum(gate.admit(GET, 60, ("10.0.0.1", n)) for n in range(1_000)) == PREFIX_BURST


def protected(kid: bytes) -> bytes:
    return b"\x51\x02\x00\x01t" + bytes([0x90 + 2 + len(kid), 0x09, 7]) + kid + b"\xff" + bytes(20)


def test_a_kid_that_is_known_here_is_let_in_through_a_flood_until_its_own_bucket_is_empty(clock: Clock) -> None:
    gate = Admission(monotonic=clock.monotonic, knows={b"abc"}.__contains__)
    for n in range(2_000):
        gate.admit(GET, 60, (f"10.0.{n % 250}.1", n))
    assert not gate.admit(protected(b"xyz"), 60, ("10.0.0.1", 1))
    assert sum(gate.admit(protected(b"abc"), 60, ("10.0.0.1", n)) for n in range(1_000)) == KNOWN_BURST


def test_while_much_waits_only_strangers_are_turned_away(clock: Clock) -> None:
    gate = Admission(monotonic=clock.monotonic, knows={b"abc"}.__contains__)
    gate.proven(("10.0.0.1", 7))
    assert not gate.admit(GET, 60, ("10.0.0.2", 7), True)
    assert gate.admit(GET, 60, ("10.0.0.1", 7), True)
    assert not gate.admit(protected(b"abc"), 60, ("10.0.0.2", 7), True)
    assert gate.admit(GET, 60, ("10.0.0.2", 7), False)


def test_what_verifies_is_let_in_from_anywhere_whatever_else_comes(clock: Clock) -> None:
    genuine = protected(b"abc")
    gate = Admission(monotonic=clock.monotonic, knows={b"abc"}.__contains__, verifies=genuine.__eq__)
    for n in range(2_000):
        gate.admit(protected(b"abc") + b"junk", 60, (f"10.0.{n % 250}.1", n), n % 2 == 0)
    assert not gate.admit(protected(b"abc") + b"junk", 60, ("10.0.0.1", 1))
    assert all(gate.admit(genuine, 60, ("10.0.0.1", n), True) for n in range(1_000))


def test_one_prefix_does_not_empty_the_bucket_of_all(gate: Admission) -> None:
    for n in range(5_000):
        gate.admit(GET, 60, ("10.0.0.1", n))
    assert gate.admit(GET, 60, ("10.0.1.1", 1))


def test_a_proof_is_forgotten_after_a_while(gate: Admission, clock: Clock) -> None:
    gate.proven(("10.0.0.1", 7))
    assert answer(gate, ("10.0.0.1", 7), 10_000)
    clock.pass_s(admission.TRUCK_MEMORY_S)
    assert not answer(gate, ("10.0.0.1", 7), 1)


def test_an_address_that_sent_nothing_gets_nothing(gate: Admission) -> None:
    assert not answer(gate, ("10.0.0.1", 7), 1)
    assert gate.held_back == 1


def test_three_times_the_bytes_and_not_one_more_over_all_ports(gate: Admission) -> None:
    for port in (1, 2, 3):
        gate.admit(GET, 100, ("10.0.0.1", port))
    assert answer(gate, ("10.0.0.1", 9), ANSWER_FACTOR_MAX * 300)
    assert not answer(gate, ("10.0.0.1", 1), 1)


def test_what_is_not_answered_is_not_saved_up_without_end(gate: Admission, clock: Clock) -> None:
    for _ in range(200):
        gate.admit(GET, 1_400, ("10.0.0.1", 1))
        clock.pass_s(0.1)
    assert not answer(gate, ("10.0.0.1", 1), 20_000)
    clock.pass_s(admission.CREDIT_MEMORY_S)
    assert not answer(gate, ("10.0.0.1", 1), 1)


def test_tables_are_bounded_and_forgetting_gives_nothing_away(
    gate: Admission, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PREFIXES_MAX", "_TRUCKS_MAX", "_CREDITS_MAX"):
        monkeypatch.setattr(admission, name, 4)
    for n in range(20):
        gate.admit(GET, 100, (f"10.0.{n}.1", 1))
        gate.proven((f"10.1.{n}.1", 1))
    assert (len(gate._prefixes), len(gate._trucks), len(gate._credits)) == (4, 4, 4)
    assert not answer(gate, ("10.0.0.1", 1), 1)
