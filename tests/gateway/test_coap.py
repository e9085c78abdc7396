"""The site over real exchanges: what strangers get, what peers get, and what an unproven address gets at most."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiocoap import oscore
from aiocoap.message import Message
from aiocoap.numbers import codes
from aiocoap.numbers.constants import Reliable, Unreliable

from gateway import admission
from gateway.coap import Answer, Request
from protocol import edhoc
from protocol.errors import PeerError
from protocol.messages import Ack, Upload
from protocol.numbers import PATH_EDHOC, PATH_ENROL, PATH_EXCHANGE, PATH_UPLOAD
from store.fleet.fleet import FleetStore
from tests.gateway.coapside import (
    GATEWAY_KEY,
    Clock,
    ScriptedTruck,
    Side,
    enrol_directly,
    make_code,
    open_side,
    open_truck,
    rows_from,
    unprotected,
)
from tests.gateway.fleets import NOW_S
from tests.gateway.test_fastlane import encoded_options

HEADERS = 28  # IPv4 and UDP


class Stranger(asyncio.DatagramProtocol):
    """A plain socket: what it sends and gets, byte for byte."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.datagrams: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received += HEADERS + len(data)
        self.datagrams.append(data)

    def send(self, data: bytes) -> None:
        self.sent += HEADERS + len(data)
        self.transport.sendto(data)

    async def settle(self) -> None:
        await asyncio.sleep(0.05)


@asynccontextmanager
async def open_stranger(side: Side) -> AsyncIterator[Stranger]:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(Stranger, remote_addr=side.address)
    yield protocol
    protocol.transport.close()


@pytest.fixture
async def stranger(side: Side) -> AsyncIterator[Stranger]:
    async with open_stranger(side) as opened:
        yield opened


def datagram(
    code: int, options: bytes = b"", payload: bytes = b"", *, mid: int = 1, kind: int = 0, token: bytes = b"t"
) -> bytes:
    body = options + (b"\xff" + payload if payload else b"")
    return bytes([0x40 | kind << 4 | len(token), code, mid >> 8, mid & 0xFF]) + token + body


GET, POST, FETCH = 1, 2, 5
WELL_KNOWN = b"\xbb.well-known"
FIRST_MESSAGE = edhoc.Initiator(edhoc.generate_key(), GATEWAY_KEY.public, link="sat", joining=False).message_1()
PLAIN = {
    "get of the root": datagram(GET),
    "upload without protection": datagram(POST, b"\xb1u", b"\xa0"),
    "discovery": datagram(GET, WELL_KNOWN + b"\x04core"),
    "observe": datagram(GET, b"\x60\x51d"),
    "observe, non-confirmable": datagram(GET, b"\x60\x51d", kind=1),
    "block1": datagram(POST, b"\xb1u\xd1\x03\x0e", bytes(1024)),
    "block2": datagram(GET, b"\xb1d\xc1\x06"),
    "the longest token": datagram(GET, token=b"12345678"),
    "an unknown kid": datagram(POST, b"\x99\x09\x00abc", bytes(20)),
    "no kid at all": datagram(POST, b"\x90", bytes(20)),
    "an unknown kid with message_3": datagram(POST, b"\x99\x09\x00abc\xc0", b"\x49" + bytes(9) + bytes(20)),
    "an unknown critical option": datagram(GET, b"\xd1\x0c\x00"),
    "a proxy request": datagram(GET, b"\xd9\x16coap://x/"),
    "message_1 by the long path": datagram(POST, WELL_KNOWN + b"\x05edhoc", FIRST_MESSAGE),
    "message_1 by the short path": datagram(POST, b"\xb1x", FIRST_MESSAGE),
    "a broken message_1": datagram(POST, b"\xb1x", b"\xf5\x03\x02\x58\x20" + (7).to_bytes(32, "big") + b"\x00"),
    "ping": bytes([0x40, 0, 0, 9]),
    "a response out of nowhere": datagram(69, payload=b"hello"),
    "an acknowledgement out of nowhere": datagram(0, kind=2, token=b""),
}
JUNK = {
    "nothing": b"",
    "one byte": b"\x40",
    "version 3": b"\xc0\x01\x00\x01",
    "an extended token (RFC 8974)": bytes([0x4D, 1, 0, 1, 240]) + bytes(253),
    "a token that is cut short": bytes([0x48, 1, 0, 1]) + b"abc",
    "options that are cut short": datagram(GET, b"\xbf"),
    "a path that is not UTF-8": datagram(GET, b"\xb2\xff\xfe"),
    "an OSCORE option of nonsense": datagram(POST, b"\x9d\x10" + b"\xff" * 29, bytes(30)),
    "random bytes": os.urandom(900),
}


@pytest.mark.parametrize("name", PLAIN)
async def test_before_authentication_no_answer_is_over_three_times_its_request(
    side: Side, stranger: Stranger, name: str
) -> None:
    stranger.send(PLAIN[name])
    await stranger.settle()
    assert stranger.received <= 3 * stranger.sent
    assert side.context.meter.sent.bytes_ip == stranger.received
    assert side.context.meter.received.bytes_ip == stranger.sent
    assert side.context.interface.faults == 0


@pytest.mark.parametrize("name", [*PLAIN, *JUNK])
async def test_hostile_datagrams_are_no_fault_and_the_next_truck_is_served(
    side: Side, stranger: Stranger, truck: ScriptedTruck, name: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        stranger.send((PLAIN | JUNK)[name])
        await stranger.settle()
    assert side.context.interface.faults == 0
    assert [entry for entry in logs if entry["log_level"] in ("warning", "error")] == []
    assert await truck.handshake()
    assert (await truck.upload()).cumulative == 0


@pytest.mark.parametrize(
    "name",
    [
        "get of the root",
        "discovery",
        "an unknown kid",
        "no kid at all",
        "an unknown kid with message_3",
        "block1",
        "observe",
    ],
)
async def test_every_refusal_looks_the_same(stranger: Stranger, name: str) -> None:
    stranger.send(PLAIN[name])
    await stranger.settle()
    assert stranger.datagrams == [datagram(codes.UNAUTHORIZED, kind=2)]


@pytest.mark.parametrize("option", [25, 35, 39, 2049])
@pytest.mark.parametrize("protected", [True, False])
async def test_a_critical_option_that_is_not_known_is_answered_if_confirmable_and_else_ignored(
    stranger: Stranger, option: int, protected: bool
) -> None:
    """Proxy-Uri and Proxy-Scheme among them: nobody is a proxy here (RFC 7252 section 5.4.1)."""
    numbered = [(9, b"\x09\x00abc"), (option, b"x")] if protected else [(option, b"x")]
    for kind in (1, 0):
        stranger.send(datagram(POST, encoded_options(numbered), bytes(20), kind=kind, mid=kind + 1))
    await stranger.settle()
    assert stranger.datagrams == [datagram(codes.BAD_OPTION, kind=2, mid=1)]


async def test_a_bad_mac_looks_like_an_unknown_kid(side: Side, stranger: Stranger, truck: ScriptedTruck) -> None:
    session = await truck.handshake()
    await truck.upload()
    known = PLAIN["an unknown kid"].replace(b"abc", session.sender_id)
    stranger.send(known)
    await stranger.settle()
    assert stranger.datagrams == [datagram(codes.UNAUTHORIZED, kind=2)]


async def test_a_spoofed_source_gets_three_times_its_bytes_in_all_whatever_it_asks(side: Side, clock: Clock) -> None:
    """Message_1 and everything else, over and over from one host for 120 s, on as many ports as it likes."""
    sent = received = 0
    for round_ in range(12):
        async with open_stranger(side) as stranger:
            for mid, data in enumerate(PLAIN.values()):
                stranger.send(data[:2] + (round_ * 100 + mid).to_bytes(2, "big") + data[4:])
            await stranger.settle()
            sent, received = sent + stranger.sent, received + stranger.received
        clock.pass_s(10.0)
    assert received > 0
    assert received <= 3 * sent


async def test_a_spoofed_source_that_replays_a_truck_gets_three_times_its_bytes_whether_the_window_is_open_or_not(
    fleet: FleetStore, tmp_path: Path, clock: Clock
) -> None:
    captured: list[bytes] = []
    async with open_side(fleet, tmp_path, clock) as side, open_truck(side.address) as truck:
        await enrol_directly(fleet, truck)
        await truck.handshake()
        await truck.upload()
        send = truck.coap.interface.send
        truck.coap.interface.send = lambda message: (captured.append(message.encode()), send(message))[1]  # type: ignore[method-assign]
        await truck.upload()
        async with open_stranger(side) as stranger:
            await replay(stranger, captured[0], clock)
            assert 0 < stranger.received <= 3 * stranger.sent
    async with open_side(fleet, tmp_path, clock) as side, open_stranger(side) as stranger:
        await replay(stranger, captured[0], clock)
        assert 0 < stranger.received <= 3 * stranger.sent, "an Echo challenge for each"


async def replay(stranger: Stranger, captured: bytes, clock: Clock) -> None:
    """Send a datagram over and over for 120 s, each time as another exchange, confirmable or not."""
    for round_ in range(12):
        for kind in (0x40, 0x50):
            stranger.send(bytes([captured[0] & 0xCF | kind & 0x30, captured[1], round_, kind]) + captured[4:])
        await stranger.settle()
        clock.pass_s(10.0)


@pytest.fixture
def small_burst(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many datagrams of one prefix are looked at, while the clock stands still."""
    monkeypatch.setattr(admission, "PREFIX_BURST", 100)
    return 100


async def test_a_flood_from_one_prefix_is_turned_away_unread_and_counted(
    small_burst: int, side: Side, stranger: Stranger
) -> None:
    for mid in range(2 * small_burst):
        stranger.send(datagram(GET, mid=mid))
    async with asyncio.timeout(60):
        while side.context.meter.received.datagrams < 2 * small_burst or len(stranger.datagrams) < small_burst:
            await asyncio.sleep(0.02)
    await stranger.settle()
    assert side.admission.turned_away == len(stranger.datagrams) == small_burst
    assert side.context.meter.received.bytes_ip == stranger.sent


async def test_a_truck_is_served_through_a_flood_of_its_own_prefix(
    small_burst: int, side: Side, stranger: Stranger, truck: ScriptedTruck
) -> None:
    await truck.handshake()
    await truck.upload()
    for mid in range(2 * small_burst):
        stranger.send(datagram(GET, mid=mid))
    async with asyncio.timeout(60):
        while not side.admission.turned_away:
            await asyncio.sleep(0.02)
    assert (await truck.upload(truck.offer())).cumulative == 1


async def test_a_replayed_request_is_refused(side: Side, truck: ScriptedTruck, stranger: Stranger) -> None:
    await truck.handshake()
    await truck.upload()
    captured: list[bytes] = []
    send = truck.coap.interface.send

    def capture(message: Any) -> None:
        captured.append(message.encode())
        send(message)

    truck.coap.interface.send = capture  # type: ignore[method-assign]
    await truck.upload(truck.offer())
    replay = captured[0][:2] + b"\x77\x77" + captured[0][4:]
    stranger.send(replay)
    await stranger.settle()
    (answer,) = stranger.datagrams
    assert answer[1] == codes.UNAUTHORIZED
    state = await side.fleet.epoch_state(truck.name)
    assert state is not None
    assert state.cumulative == 1


async def test_after_a_restart_the_first_request_is_challenged_and_none_is_lost(
    fleet: FleetStore, tmp_path: Path, clock: Clock
) -> None:
    async with open_side(fleet, tmp_path, clock) as side, open_truck(side.address) as truck:
        await enrol_directly(fleet, truck)
        await truck.handshake()
        await truck.upload(truck.offer())
        session = truck.session
        address = side.address
    async with open_side(fleet, tmp_path, clock) as side, open_truck(side.address) as again:
        again.session, again.sequence = session, 1
        assert address != side.address
        assert (await again.upload(again.batch(rows_from(NOW_S)))).cumulative == 2
        assert side.context.meter.sent.datagrams == 2, "a challenge, then the acknowledgement"
        await again.upload()
        assert side.context.meter.sent.datagrams == 3, "once is enough"


async def test_a_request_captured_before_a_restart_is_not_believed_after_it(
    fleet: FleetStore, tmp_path: Path, clock: Clock
) -> None:
    captured: list[bytes] = []
    async with open_side(fleet, tmp_path, clock) as side, open_truck(side.address) as truck:
        await enrol_directly(fleet, truck)
        await truck.handshake()
        await truck.upload()
        send = truck.coap.interface.send
        truck.coap.interface.send = lambda message: (captured.append(message.encode()), send(message))[1]  # type: ignore[method-assign]
        await truck.upload(truck.offer())
    async with open_side(fleet, tmp_path, clock) as side, open_stranger(side) as stranger:
        seen: list[Request] = []
        side.site._handlers = {key: _noting(seen) for key in side.site._handlers}
        stranger.send(captured[0])
        await stranger.settle()
        assert seen == []
        assert stranger.received <= 3 * stranger.sent


def _noting(seen: list[Request]) -> Any:
    async def handler(request: Request) -> Answer:
        seen.append(request)
        return Answer(b"", "batch")

    return handler


async def test_a_burst_after_a_restart_ends_no_session(fleet: FleetStore, tmp_path: Path, clock: Clock) -> None:
    """The request that answers the challenge overtakes others: those are lost, as on any link, and go again."""
    async with open_side(fleet, tmp_path, clock) as side, open_truck(side.address) as truck:
        await enrol_directly(fleet, truck)
        await truck.handshake()
        await truck.upload()
        session = truck.session
    async with open_side(fleet, tmp_path, clock) as side, open_truck(side.address) as again:
        again.session = session
        burst = [again.offer(number=n) for n in range(1, 21)]
        answers = await asyncio.gather(*(again.upload(each, answer_s=1.5) for each in burst), return_exceptions=True)
        assert {type(answer) for answer in answers} <= {Ack, TimeoutError}
        assert any(isinstance(answer, Ack) for answer in answers)
        assert (await again.upload(*burst)).cumulative == 20


async def test_a_truck_that_moves_to_another_port_goes_on(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake()
    before = side.context.meter.received.datagrams
    await truck.upload(truck.offer())
    await truck.move()
    assert (await truck.upload(truck.batch(rows_from(NOW_S)))).cumulative == 2
    assert side.context.meter.received.datagrams == before + 2


async def test_two_links_of_one_truck_have_a_session_each(side: Side, truck: ScriptedTruck) -> None:
    lte = await truck.handshake("lte")
    await truck.upload(truck.offer())
    sat = await truck.handshake("sat")
    await truck.upload(truck.batch(rows_from(NOW_S)))
    assert (await truck.upload(session=lte)).version == (await truck.upload(session=sat)).version
    assert {each.link for each in await side.fleet.contexts_of(truck.name)} == {"lte", "sat"}
    record = await side.fleet.truck(truck.name)
    assert record is not None
    assert record.last_link == "sat"


async def test_a_new_session_of_a_link_ends_the_old_one(side: Side, truck: ScriptedTruck) -> None:
    old = await truck.handshake()
    await truck.upload()
    await truck.handshake()
    await truck.upload()
    assert await unprotected(truck.upload(session=old))


async def test_a_revoked_truck_is_refused_within_a_second(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake()
    await truck.upload(truck.offer())
    await side.fleet.revoke_truck(truck.name, side.clock.ms)
    await asyncio.sleep(0.5)
    assert await unprotected(truck.upload())
    truck.session = None
    await truck.handshake()
    assert await unprotected(truck.upload()), "nor does a new handshake help"


async def test_an_unknown_truck_is_refused(side: Side) -> None:
    async with open_truck(side.address, "ke-unknown") as truck:
        await truck.handshake()
        assert await unprotected(truck.upload())


async def test_an_echo_of_message_3_from_another_truck_is_refused(side: Side, truck: ScriptedTruck) -> None:
    """Message_3 of one handshake under the kid of another proves nothing."""
    first = await truck.handshake("lte")
    other = await truck.handshake("sat")
    other.message_3 = first.message_3
    assert await unprotected(truck.upload(session=other))
    assert (await truck.upload(session=first)).cumulative == 0


async def test_a_burst_of_first_requests_all_with_message_3_is_served(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake()
    acks = await asyncio.gather(*(truck.upload(truck.offer(number=n)) for n in range(1, 9)))
    assert {ack.cumulative for ack in acks} <= set(range(1, 9))
    assert max(ack.cumulative for ack in acks) == 8


async def test_message_3_again_after_a_lost_answer_goes_on_with_the_same_session(
    side: Side, truck: ScriptedTruck
) -> None:
    session = await truck.handshake()
    message_3 = session.message_3
    await truck.upload()
    session.message_3 = message_3
    assert (await truck.upload(truck.offer())).cumulative == 1
    assert len(await side.fleet.contexts_of(truck.name)) == 1


async def test_a_joining_peer_may_only_enrol(side: Side) -> None:
    async with open_truck(side.address) as truck:
        await truck.handshake(joining=True)
        for path, code in (
            ("u", codes.POST),
            ("d", codes.GET),
            ("p", codes.FETCH),
            ("k", codes.FETCH),
            ("e", codes.GET),
        ):
            assert (await truck.ask(path, code=code)).code == codes.NOT_FOUND
        assert (await truck.ask(PATH_ENROL)).code == codes.BAD_REQUEST
        assert await side.fleet.all_contexts() == []


async def test_joining_peers_are_few_and_push_out_no_truck(
    side: Side, truck: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.peers._JOINING_MAX", 4)
    monkeypatch.setattr("gateway.peers._CACHED_MAX", 1)
    await truck.handshake()
    await truck.upload()
    async with open_truck(side.address, "ke-stranger") as stranger:
        for _ in range(6):
            await stranger.handshake(joining=True)
            await stranger.ask("e")
    assert len(side.peers._joining) == 4
    before = side.context.meter.sent.datagrams
    await truck.upload()
    assert side.context.meter.sent.datagrams == before + 1, "no challenge: its window was never forgotten"


async def test_what_is_not_there_and_what_is_not_understood(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake()
    assert (await truck.ask("nowhere")).code == codes.NOT_FOUND
    assert (await truck.ask(PATH_UPLOAD, code=codes.GET)).code == codes.METHOD_NOT_ALLOWED
    assert (await truck.ask(PATH_UPLOAD, Upload().encode(), if_none_match=True)).code == codes.BAD_OPTION
    assert (await truck.ask(PATH_UPLOAD, b"\xff")).code == codes.BAD_REQUEST


async def test_a_confirmable_request_is_answered_in_its_acknowledgement(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake()
    answer = await truck.ask(PATH_UPLOAD, Upload().encode(), tuning=Reliable)
    assert Ack.decode(answer.payload).cumulative == 0
    assert side.context.meter.sent.datagrams == 2


async def test_a_confirmable_request_that_takes_long_is_answered_separately(
    side: Side, truck: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 7252 section 5.2.2: an empty acknowledgement, and the answer as a confirmable message of its own."""
    arrived: list[tuple[int, int]] = []
    dispatch = truck.coap.interface._ctx.dispatch_message
    truck.coap.interface._ctx.dispatch_message = lambda m: (arrived.append((int(m.mtype), int(m.code))), dispatch(m))[1]
    await truck.handshake()
    await truck.upload()
    acknowledged = asyncio.Event()
    upload = side.ingest.upload

    async def slow(*arguments: Any) -> Any:
        await acknowledged.wait()
        return await upload(*arguments)

    monkeypatch.setattr(side.ingest, "upload", slow)
    arrived.clear()
    asked = asyncio.create_task(truck.ask(PATH_UPLOAD, Upload().encode(), tuning=Reliable, answer_s=60.0))
    async with asyncio.timeout(60):
        while not arrived:
            await asyncio.sleep(0.02)
    acknowledged.set()
    assert Ack.decode((await asked).payload).cumulative == 0
    assert arrived == [(2, 0), (0, codes.CHANGED)]


async def test_an_error_of_ours_is_answered_with_its_code_alone(side: Side, truck: ScriptedTruck) -> None:
    async def broken(request: Request) -> Answer:
        raise KeyError("a secret of ours")

    async def refusing(request: Request) -> Answer:
        raise PeerError("ü" * 100)

    await truck.handshake()
    await truck.upload()
    side.site._handlers[(int(codes.POST), "u")] = broken
    answer = await truck.ask("u")
    assert (answer.code, answer.payload) == (codes.INTERNAL_SERVER_ERROR, b"")
    side.site._handlers[(int(codes.POST), "u")] = refusing
    answer = await truck.ask("u")
    assert (answer.code, answer.payload.decode()) == (codes.BAD_REQUEST, "ü" * 64)


async def test_while_the_database_is_away_a_truck_hears_nothing_and_keeps_its_session(
    side: Side, truck: ScriptedTruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    await truck.handshake()
    await truck.upload()
    side.peers.forget_truck(truck.name)

    async def away(*_: object) -> None:
        raise OSError("no database")

    with monkeypatch.context() as patched:
        patched.setattr(side.fleet, "context", away)
        with pytest.raises(TimeoutError):
            await truck.upload(answer_s=0.2)
    assert (await truck.upload(truck.offer())).cumulative == 1


async def test_bytes_of_a_request_are_booked_on_its_truck_link_and_cause(side: Side, truck: ScriptedTruck) -> None:
    await truck.handshake("sat")
    await truck.upload(truck.offer())
    await side.ledger.flush()
    lines = {(line.truck, line.link, line.cause) for line in await side.fleet.ledger()}
    assert ("ke-arrow", "sat", "schema") in lines


@pytest.mark.parametrize("path", [(PATH_EXCHANGE,), PATH_EDHOC])
async def test_edhoc_is_answered_on_both_of_its_paths(side: Side, truck: ScriptedTruck, path: tuple[str, ...]) -> None:
    message = Message(code=codes.POST, transport_tuning=Unreliable, uri_path=path, payload=FIRST_MESSAGE)
    assert (await truck.raw(message)).code == codes.CHANGED


async def test_the_code_makes_a_truck_of_a_joining_peer(side: Side) -> None:
    async with open_truck(side.address) as truck:
        enrolled = await truck.enrol(await make_code(side.fleet))
        assert (enrolled.group, enrolled.root) == ("kenya", side.documents.root_digest)
        assert (await truck.upload(truck.offer())).cumulative == 1


async def test_ipv6_is_served_and_counted_with_its_longer_header(
    fleet: FleetStore, tmp_path: Path, clock: Clock
) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        opened = open_side(fleet, tmp_path, clock, host="::1")
        async with opened as side, open_stranger(side) as stranger:
            stranger.send(datagram(GET))
            await stranger.settle()
            assert len(stranger.datagrams) == 1
            assert side.context.meter.received.bytes_ip == 48 + len(datagram(GET))
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")


async def test_a_context_that_ended_elsewhere_is_not_used_on(side: Side, truck: ScriptedTruck) -> None:
    """Another process revoked or replaced it: the next reservation finds out, and nothing is sent under it."""
    session = await truck.handshake()
    await truck.upload()
    peer = await side.peers.find(session.sender_id)
    assert peer is not None
    await side.fleet.delete_contexts(truck.name)
    peer.context.sender_sequence_number = peer.context.reserved_below - 1
    assert await unprotected(truck.upload())
    with pytest.raises(oscore.NotAProtectedMessage):
        await truck.upload()
