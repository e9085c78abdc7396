"""The meter's accounts, without a socket: what belongs to whom, what is bounded, what the sums are."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

import pytest

from protocol.errors import BudgetExceededError
from store.coapmeter import Attribution, CoapHeader, Datagram, Direction, Meter, Tally, handling, plain_host

PEER = ("192.0.2.1", 5683)
OTHER = ("192.0.2.2", 5683)
CON, NON, ACK, RST = range(4)
GET, CONTENT, EMPTY = 0x01, 0x45, 0x00


def coap(kind: int, code: int, message_id: int, token: bytes = b"", payload: bytes = b"") -> bytes:
    return bytes([0x40 | kind << 4 | len(token), code]) + message_id.to_bytes(2, "big") + token + payload


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A meter, its clock, and all that it reported."""

    meter: Meter
    clock: Clock
    datagrams: list[Datagram]
    attributions: list[Attribution]

    def send(self, data: bytes, remote: tuple[str, int] = PEER, account: object | None = None) -> Datagram:
        outgoing = self.meter.outgoing(data, remote, 20, account)
        self.meter.admit(outgoing)
        self.meter.record(outgoing)
        return self.datagrams[-1]

    def receive(self, data: bytes, remote: tuple[str, int] = PEER) -> Datagram:
        self.meter.incoming(data, remote, 20)
        return self.datagrams[-1]

    def sums(self) -> Counter[object]:
        """Bytes by account, by the rule of the module's docstring."""
        sums: Counter[object] = Counter()
        for datagram in self.datagrams:
            sums[datagram.account] += datagram.bytes_ip
        for attribution in self.attributions:
            moved = attribution.sent.bytes_ip + attribution.received.bytes_ip
            sums[attribution.account] += moved
            sums[None] -= moved
        return sums


@pytest.fixture
def bench() -> Bench:
    clock = Clock()
    datagrams: list[Datagram] = []
    attributions: list[Attribution] = []
    meter = Meter(
        on_datagram=datagrams.append,
        on_attribution=attributions.append,
        lifetime_s=60.0,
        monotonic=clock,
        keys_max=40,
        pending_keys_max=10,
    )
    return Bench(meter, clock, datagrams, attributions)


def test_a_datagram_costs_its_payload_and_its_headers(bench: Bench) -> None:
    assert bench.send(coap(NON, GET, 1, b"t", b"x" * 95)).bytes_ip == 100 + 28
    bench.meter.incoming(b"x" * 100, ("2001:db8::1", 1), 40)
    assert bench.datagrams[-1].bytes_ip == 100 + 48
    assert bench.meter.sent == Tally(1, 128)
    assert bench.meter.received == Tally(1, 148)


def test_all_of_an_exchange_belongs_to_its_account(bench: Bench) -> None:
    request = coap(CON, GET, 7, b"tok")
    steps = [
        bench.send(request, account="a"),
        bench.send(request),  # a retransmission
        bench.receive(coap(ACK, EMPTY, 7)),
        bench.receive(coap(CON, CONTENT, 900, b"tok")),  # the separate response
        bench.send(coap(ACK, EMPTY, 900)),
        bench.receive(coap(NON, CONTENT, 901, b"tok")),  # a burst goes on
    ]
    assert [step.account for step in steps] == ["a"] * 6
    assert [step.direction for step in steps] == [
        Direction.SENT,
        Direction.SENT,
        Direction.RECEIVED,
        Direction.RECEIVED,
        Direction.SENT,
        Direction.RECEIVED,
    ]


def test_a_reset_belongs_to_the_request_that_it_answers(bench: Bench) -> None:
    bench.send(coap(NON, GET, 7, b"tok"), account="a")
    assert bench.receive(coap(RST, EMPTY, 7)).account == "a"
    assert bench.receive(coap(RST, EMPTY, 8)).account is None


def test_the_same_token_or_id_of_another_peer_is_another_exchange(bench: Bench) -> None:
    bench.send(coap(CON, GET, 7, b"tok"), account="a")
    assert bench.receive(coap(ACK, EMPTY, 7), OTHER).account is None
    assert bench.receive(coap(NON, CONTENT, 1, b"tok"), OTHER).account is None
    assert bench.receive(coap(NON, CONTENT, 1, b"tok"), (PEER[0], 99)).account is None


def test_ids_of_both_sides_are_apart(bench: Bench) -> None:
    bench.send(coap(CON, GET, 7, b"tok"), account="a")
    bench.receive(coap(CON, GET, 7, b"kot"))
    assert bench.send(coap(ACK, EMPTY, 7)).account is None
    assert bench.receive(coap(ACK, EMPTY, 7)).account == "a"


def test_a_reused_message_id_opens_a_new_exchange(bench: Bench) -> None:
    bench.send(coap(NON, GET, 7, b"one"), account="a")
    assert bench.send(coap(NON, GET, 7, b"two"), account="b").account == "b"
    assert bench.receive(coap(NON, CONTENT, 1, b"one")).account == "a"
    assert bench.receive(coap(RST, EMPTY, 7)).account == "b"


def test_a_received_request_finds_its_account_afterwards(bench: Bench) -> None:
    exchange = bench.meter.incoming(coap(CON, GET, 7, b"tok"), PEER, 20)
    assert bench.datagrams[-1].account is None
    bench.send(coap(ACK, EMPTY, 7))
    with handling(exchange):
        assert bench.meter.attribute("truck")
    assert bench.attributions == [Attribution(PEER, "truck", sent=Tally(1, 32), received=Tally(1, 35))]
    assert bench.send(coap(CON, CONTENT, 50, b"tok")).account == "truck"
    assert bench.receive(coap(ACK, EMPTY, 50)).account == "truck"
    assert bench.receive(coap(CON, GET, 7, b"tok")).account == "truck"  # a duplicate
    assert bench.sums() == {"truck": 35 + 32 + 35 + 32 + 35, None: 0}


def test_the_same_token_again_is_a_new_request_that_waits_for_its_account(bench: Bench) -> None:
    bench.receive(coap(NON, GET, 7, b"tok"))
    assert bench.meter.attribute_token(PEER, b"tok", "one")
    assert bench.receive(coap(NON, GET, 8, b"tok")).account is None
    assert bench.meter.attribute_token(PEER, b"tok", "two")
    assert bench.send(coap(NON, CONTENT, 1, b"tok")).account == "two"
    assert bench.sums() == {"one": 35, "two": 70, None: 0}


def test_attributing_twice_moves_nothing_twice(bench: Bench) -> None:
    bench.receive(coap(NON, GET, 7, b"tok"))
    bench.meter.attribute_token(PEER, b"tok", "truck")
    bench.meter.attribute_token(PEER, b"tok", "truck")
    assert len(bench.attributions) == 1


def test_a_response_with_an_account_charges_its_exchange(bench: Bench) -> None:
    bench.receive(coap(NON, GET, 7, b"tok"))
    assert bench.send(coap(NON, CONTENT, 1, b"tok"), account="truck").account == "truck"
    assert bench.sums() == {"truck": 70, None: 0}


def test_nothing_is_attributed_outside_of_a_request(bench: Bench) -> None:
    assert not bench.meter.attribute("truck")
    assert not bench.meter.attribute_token(PEER, b"none", "truck")
    stranger = Meter(on_datagram=lambda _: None, lifetime_s=1.0).incoming(coap(NON, GET, 1, b"t"), PEER, 20)
    with handling(stranger):
        assert not bench.meter.attribute("truck")


async def test_a_task_of_the_handler_knows_the_request(bench: Bench) -> None:
    async def handler() -> None:
        await asyncio.sleep(0)
        assert bench.meter.attribute("truck")

    with handling(bench.meter.incoming(coap(NON, GET, 7, b"tok"), PEER, 20)):
        task = asyncio.create_task(handler())
    bench.meter.incoming(coap(NON, GET, 8, b"other"), PEER, 20)
    await task
    assert bench.sums() == {"truck": 35, None: 37}


def test_an_exchange_is_forgotten_after_its_lifetime_without_use(bench: Bench) -> None:
    bench.send(coap(NON, GET, 7, b"tok"), account="a")
    for _ in range(5):
        bench.clock.now += 59
        assert bench.receive(coap(NON, CONTENT, 1, b"tok")).account == "a"
    bench.clock.now += 60
    assert bench.receive(coap(NON, CONTENT, 1, b"tok")).account is None


def test_tables_are_bounded(bench: Bench) -> None:
    for number in range(500):
        bench.send(coap(NON, GET, number, b"%d" % number), account="a")
        bench.receive(coap(NON, GET, number, b"%d" % number), OTHER)
    assert len(bench.meter._known) == 40
    assert len(bench.meter._pending) == 10
    assert bench.meter.sent.datagrams == bench.meter.received.datagrams == 500


def test_a_long_burst_of_unattributed_responses_is_bounded(bench: Bench) -> None:
    exchange = bench.meter.incoming(coap(NON, GET, 7, b"tok"), PEER, 20)
    assert exchange is not None
    for number in range(100):
        bench.send(coap(NON, CONTENT, number, b"tok"))
    assert len(exchange.keys) <= 8
    bench.meter.attribute_token(PEER, b"tok", "truck")
    assert bench.sums() == {"truck": 101 * 35, None: 0}


def test_a_flood_of_strangers_pushes_out_no_exchange_that_has_an_account(bench: Bench) -> None:
    bench.receive(coap(NON, GET, 7, b"tok"))
    bench.meter.attribute_token(PEER, b"tok", "truck")
    for number in range(1000):
        bench.receive(coap(CON, GET, number, b"%d" % number), OTHER)
    assert bench.send(coap(NON, CONTENT, 1, b"tok")).account == "truck"


def test_an_icmp_error_is_charged_to_the_datagram_that_it_quotes(bench: Bench) -> None:
    request = coap(CON, GET, 7, b"tok", b"x" * 10)
    bench.send(request, account="a")
    bench.meter.incoming_icmp(request, PEER, 20)
    # IP and ICMP headers, and the quoted IP header, UDP header and payload.
    assert bench.datagrams[-1] == Datagram(Direction.RECEIVED, 20 + 8 + 20 + 8 + 17, PEER, "a", is_icmp=True)
    bench.meter.incoming_icmp(b"", PEER, 40)
    assert bench.datagrams[-1].bytes_ip == 40 + 8 + 40 + 8
    assert bench.datagrams[-1].account is None


def test_a_refused_datagram_is_counted_apart() -> None:
    def refuse(datagram: Datagram) -> None:
        raise BudgetExceededError(f"{datagram.bytes_ip} bytes more than there are")

    seen: list[Datagram] = []
    meter = Meter(on_datagram=seen.append, before_send=refuse, lifetime_s=60.0)
    outgoing = meter.outgoing(coap(NON, GET, 7, b"tok"), PEER, 20, "a")
    assert outgoing.datagram.account == "a"
    with pytest.raises(BudgetExceededError):
        meter.admit(outgoing)
    assert (meter.refused, meter.sent, seen) == (Tally(1, 35), Tally(), [])


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x40",
        b"\x40\x01\x00",
        b"\x00\x01\x00\x00",
        b"\xc0\x01\x00\x00",
        b"\x49\x01\x00\x00" + bytes(20),
        b"\x44\x01\x00\x00abc",
    ],
)
def test_junk_is_counted_and_belongs_to_nobody(bench: Bench, junk: bytes) -> None:
    assert CoapHeader.parse(junk) is None
    assert bench.receive(junk) == Datagram(Direction.RECEIVED, len(junk) + 28, PEER)
    assert len(bench.meter._pending) == 0


@pytest.mark.parametrize("seed", range(4))
def test_under_any_traffic_the_sums_by_account_are_the_total(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(3000):
        bench.clock.now += rng.random()
        token = b"%d" % rng.randrange(8)
        data = coap(rng.randrange(4), rng.choice((GET, CONTENT, EMPTY)), rng.randrange(20), token, rng.randbytes(3))
        remote = rng.choice((PEER, OTHER))
        act = rng.randrange(4)
        if act == 0:
            bench.send(data, remote, rng.choice((None, "a", "b")))
        elif act == 1:
            bench.receive(data if rng.random() < 0.9 else rng.randbytes(6), remote)
        elif act == 2:
            bench.meter.attribute_token(remote, token, rng.choice("abc"))
        else:
            bench.meter.incoming_icmp(data, remote, 20)
    sums = bench.sums()
    assert sum(sums.values()) == bench.meter.sent.bytes_ip + bench.meter.received.bytes_ip
    assert sums[None] >= 0
    assert all(sums[account] > 0 for account in "abc")


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("::ffff:192.0.2.1", ("192.0.2.1", 20)),
        ("::ffff:c000:201", ("192.0.2.1", 20)),
        ("2001:db8::1", ("2001:db8::1", 40)),
        ("fe80::1%eth0", ("fe80::1%eth0", 40)),
        ("::1", ("::1", 40)),
    ],
)
def test_mapped_addresses_are_ipv4(host: str, plain: tuple[str, int]) -> None:
    assert plain_host(host) == plain
