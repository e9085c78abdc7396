"""The meter at aiocoap's socket against a plain UDP proxy that counts every datagram between client and server.

The last tests hold fingerprints of the aiocoap internals that `store.coapinterface` replaces or relies on. When one
of them fails after an upgrade: read what changed in aiocoap, adapt the module, then take over the new fingerprint.
"""

import asyncio
import hashlib
import inspect
import logging
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

import aiocoap
import pytest
from aiocoap import Message, messagemanager, oscore, pipe, resource, tokenmanager
from aiocoap.numbers.constants import TransportTuning, Unreliable
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper
from aiocoap.protocol import Context
from aiocoap.transports import udp6
from aiocoap.util import socknumbers
from aiocoap.util.asyncio import recvmsg

from protocol.errors import BudgetExceededError
from store.coapcontext import MeteredContext, client_context, server_context
from store.coapinterface import DATAGRAM_BYTES_MAX, short_memory
from store.coaplog import RECORDS_A_PERIOD
from store.coapmeter import Address, Attribution, Datagram, Direction, Tally


class Hasty(TransportTuning):  # type: ignore[misc]
    """Confirmable, retransmitted soon."""

    ACK_TIMEOUT = 0.05
    ACK_RANDOM_FACTOR = 1.0
    MAX_RETRANSMIT = 3
    reliability = True


class Proxy(asyncio.DatagramProtocol):
    """Carries datagrams between one client and the server, drops those it is told to, and counts both sides of it."""

    transport: asyncio.DatagramTransport

    def __init__(self, server: Address) -> None:
        self.server = server
        self.client: Address | None = None
        self.from_client, self.to_client = Tally(), Tally()
        self.from_server, self.to_server = Tally(), Tally()
        self.drop: Callable[[bytes, bool], bool] = lambda data, upwards: False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        size = len(data) + 28
        upwards = addr != self.server
        if upwards:
            self.client = addr
            self.from_client = self.from_client.plus(size)
        else:
            self.from_server = self.from_server.plus(size)
        if self.drop(data, upwards):
            return
        if upwards:
            self.to_server = self.to_server.plus(size)
            self.transport.sendto(data, self.server)
        elif self.client is not None:
            self.to_client = self.to_client.plus(size)
            self.transport.sendto(data, self.client)

    @property
    def address(self) -> Address:
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port


class Echo(resource.Resource):  # type: ignore[misc]
    """Answers with the payload; charges the request to it."""

    def __init__(self, rig: "Rig") -> None:
        super().__init__()
        self.rig = rig

    async def render_post(self, request: Any) -> Any:
        self.rig.server.meter.attribute("truck")
        return Message(payload=request.payload)


class Slow(Echo):
    """Answers after the empty acknowledgement had to be sent."""

    async def render_post(self, request: Any) -> Any:
        self.rig.server.meter.attribute("truck")
        await asyncio.sleep(0.6)
        return Message(payload=b"late")


class Big(Echo):
    """A document of several blocks."""

    async def render_get(self, request: Any) -> Any:
        return Message(payload=bytes(5000))


class Burst(Echo):
    """Answers one request with many non-confirmable responses."""

    async def needs_blockwise_assembly(self, request: Any) -> bool:
        return False

    async def render_to_pipe(self, pipe: Any) -> None:
        self.rig.server.meter.attribute("truck")
        for number in range(20):
            answer = Message(code=aiocoap.CONTENT, payload=bytes(500 + number), transport_tuning=Unreliable())
            answer.opt.observe = number
            pipe.add_response(answer, is_last=number == 19)


class ChargingSite(resource.Site):  # type: ignore[misc]
    """Charges each request before any resource sees it, as a server does that knows its peers by their keys."""

    meter: Any = None

    async def render_to_pipe(self, pipe: Any) -> None:
        if self.meter is not None:
            self.meter.attribute("truck")
        await super().render_to_pipe(pipe)


class Gate:
    """The client's budget: open until told what to refuse."""

    def __init__(self) -> None:
        self.refuse: Callable[[Datagram], bool] = lambda datagram: False

    def __call__(self, datagram: Datagram) -> None:
        if self.refuse(datagram):
            raise BudgetExceededError("nothing is left")


@dataclass
class Rig:
    """A client, a proxy and a server, with all that the two meters reported."""

    client: MeteredContext
    server: MeteredContext
    proxy: Proxy
    site: ChargingSite
    gate: Gate
    at_client: list[Datagram]
    at_server: list[Datagram]
    attributions: list[Attribution]

    def message(self, path: str, *, code: Any = aiocoap.POST, account: object = "a", **options: Any) -> Any:
        message = Message(code=code, uri_path=(path,), **options)
        message.remote = self.client.remote_at(self.proxy.address)
        message.account = account
        return message

    async def ask(self, message: Any) -> Any:
        async with asyncio.timeout(3):
            return await self.client.request(message).response

    async def settle(self) -> None:
        """Wait until nothing has moved for a while."""
        last = None
        while last != (last := (self.proxy.from_client, self.proxy.from_server)):
            await asyncio.sleep(0.03)

    def assert_counted_exactly(self) -> None:
        assert self.client.meter.sent == self.proxy.from_client
        assert self.client.meter.received == self.proxy.to_client
        assert self.server.meter.received == self.proxy.to_server
        assert self.server.meter.sent == self.proxy.from_server
        for meter, reported in ((self.client.meter, self.at_client), (self.server.meter, self.at_server)):
            assert sum_of(reported, Direction.SENT) == meter.sent
            assert sum_of(reported, Direction.RECEIVED) == meter.received
        assert self.client.interface.faults == self.server.interface.faults == 0

    def client_accounts(self) -> set[object]:
        return {datagram.account for datagram in self.at_client}

    def server_sums(self) -> Counter[object]:
        sums: Counter[object] = Counter()
        for datagram in self.at_server:
            sums[datagram.account] += datagram.bytes_ip
        for moved in self.attributions:
            sums[moved.account] += moved.sent.bytes_ip + moved.received.bytes_ip
            sums[None] -= moved.sent.bytes_ip + moved.received.bytes_ip
        return +sums


def sum_of(datagrams: list[Datagram], direction: Direction) -> Tally:
    sizes = [datagram.bytes_ip for datagram in datagrams if datagram.direction is direction]
    return Tally(len(sizes), sum(sizes))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    at_client: list[Datagram] = []
    at_server: list[Datagram] = []
    attributions: list[Attribution] = []
    site, gate = ChargingSite(), Gate()
    server = await server_context(
        site, bind=("127.0.0.1", 0), on_datagram=at_server.append, on_attribution=attributions.append
    )
    client = await client_context(bind=("127.0.0.1", 0), on_datagram=at_client.append, before_send=gate)
    transport, proxy = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Proxy(server.address), local_addr=("127.0.0.1", 0)
    )
    rig = Rig(client, server, proxy, site, gate, at_client, at_server, attributions)
    for path, kind in (("echo", Echo), ("slow", Slow), ("big", Big), ("burst", Burst)):
        site.add_resource([path], kind(rig))
    yield rig
    await rig.client.shutdown()
    await rig.server.shutdown()
    transport.close()


async def test_a_confirmable_exchange_is_counted(rig: Rig) -> None:
    answer = await rig.ask(rig.message("echo", payload=b"x" * 100))
    assert answer.payload == b"x" * 100
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    total = rig.proxy.to_server.bytes_ip + rig.proxy.from_server.bytes_ip
    assert rig.server_sums() == {"truck": total}


async def test_a_non_confirmable_exchange_is_counted(rig: Rig) -> None:
    await rig.ask(rig.message("echo", payload=b"x", transport_tuning=Unreliable()))
    rig.assert_counted_exactly()
    assert rig.proxy.from_client.datagrams == rig.proxy.from_server.datagrams == 1
    assert rig.client_accounts() == {"a"}


async def test_retransmissions_of_both_sides_are_counted_and_charged(rig: Rig) -> None:
    rig.proxy.drop = lambda data, upwards: rig.proxy.from_client.datagrams < 3
    await rig.ask(rig.message("echo", transport_tuning=Hasty()))
    assert rig.proxy.from_client.datagrams == 3
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}


async def test_an_answer_that_is_repeated_to_a_duplicate_is_counted(rig: Rig) -> None:
    rig.proxy.drop = lambda data, upwards: not upwards and rig.proxy.from_server.datagrams == 1
    await rig.ask(rig.message("echo", payload=b"x", transport_tuning=Hasty()))
    await rig.settle()
    assert rig.proxy.from_server.datagrams == 2
    rig.assert_counted_exactly()
    assert set(rig.server_sums()) == {"truck"}


async def test_a_separate_response_and_its_acknowledgements_are_counted_and_charged(rig: Rig) -> None:
    assert (await rig.ask(rig.message("slow"))).payload == b"late"
    await rig.settle()
    # Request, empty acknowledgement, response, acknowledgement of that.
    assert rig.proxy.from_client.datagrams == rig.proxy.from_server.datagrams == 2
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_a_block_wise_transfer_is_counted_and_charged_to_the_end(rig: Rig) -> None:
    rig.site.meter = rig.server.meter
    answer = await rig.ask(rig.message("big", code=aiocoap.GET))
    assert len(answer.payload) == 5000
    assert rig.proxy.from_client.datagrams == 5
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_a_block_wise_upload_is_counted_and_charged_to_the_end(rig: Rig) -> None:
    rig.site.meter = rig.server.meter
    await rig.ask(rig.message("echo", payload=bytes(4000)))
    assert rig.proxy.from_client.datagrams >= 4
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_parallel_requests_keep_their_accounts_apart(rig: Rig) -> None:
    accounts = [f"account-{number}" for number in range(12)]
    asked = [rig.message("big", code=aiocoap.GET, account=account) for account in accounts]
    await asyncio.gather(*(rig.ask(message) for message in asked))
    rig.assert_counted_exactly()
    shares = Counter(dict.fromkeys(accounts, 0))
    for datagram in rig.at_client:
        shares[cast("str", datagram.account)] += datagram.bytes_ip
    assert set(shares) == set(accounts)
    # Each has fetched the same; only a token or a message id may be a byte longer.
    assert max(shares.values()) - min(shares.values()) <= 5 * 8


async def test_a_burst_is_counted_and_charged(rig: Rig) -> None:
    got: list[Any] = []
    request = rig.message("burst", transport_tuning=Unreliable(), observe=0)
    under = pipe.Pipe(request, rig.client.log)

    def on_event(event: Any) -> bool:
        got.append(event)
        return not event.is_last

    under.on_event(on_event)
    (interface,) = (each for each in rig.client.request_interfaces if isinstance(each, tokenmanager.TokenManager))
    interface.request(under)
    # All 20 carry observe, so aiocoap's client goes on waiting for more.
    async with asyncio.timeout(3):
        while len(got) < 20:
            await asyncio.sleep(0.005)
    rig.assert_counted_exactly()
    assert rig.proxy.to_client.datagrams == 20
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


async def test_a_reset_of_an_unexpected_response_is_counted(rig: Rig) -> None:
    await rig.ask(rig.message("echo"))
    assert rig.proxy.client is not None
    before = rig.proxy.from_client.datagrams
    data = b"\x42\x45\x12\x34\xee\xee"
    rig.proxy.to_client = rig.proxy.to_client.plus(len(data) + 28)
    rig.proxy.transport.sendto(data, rig.proxy.client)
    await rig.settle()
    assert rig.proxy.from_client.datagrams == before + 1
    rig.assert_counted_exactly()
    assert rig.at_client[-1].account is None


async def test_a_ping_is_answered_and_counted(rig: Rig) -> None:
    rig.proxy.client = ("127.0.0.1", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.bind(("127.0.0.1", 0))
        stranger.sendto(b"\x40\x00\x12\x34", rig.server.address)
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, 100), 3)
    assert answer == b"\x70\x00\x12\x34"
    assert (rig.server.meter.received, rig.server.meter.sent) == (Tally(1, 32), Tally(1, 32))


async def test_oscore_requests_are_charged_without_help_from_their_outer_message(rig: Rig) -> None:
    client_keys, server_keys = Keys(b"\x01", b"\x02"), Keys(b"\x02", b"\x01")
    rig.site.meter = rig.server.meter
    inner = resource.Site()
    inner.add_resource(["big"], Big(rig))
    rig.server.server_credentials[":a"] = server_keys
    wrapper = OscoreSiteWrapper(inner, rig.server.server_credentials)

    async def charge_and_render(each: Any) -> None:
        rig.server.meter.attribute("truck")
        await wrapper.render_to_pipe(each)

    rig.server.serversite = type("Outer", (), {"render_to_pipe": staticmethod(charge_and_render)})()
    rig.client.client_credentials["coap://*"] = client_keys
    answer = await rig.ask(rig.message("big", code=aiocoap.GET))
    assert len(answer.payload) == 5000
    assert client_keys.sender_sequence_number == 5
    rig.assert_counted_exactly()
    assert rig.client_accounts() == {"a"}
    assert set(rig.server_sums()) == {"truck"}


class Keys(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc]
    """An OSCORE context in memory."""

    is_signing = False
    responses_send_kid = False
    echo_recovery = None
    authenticated_claims = ()

    def __init__(self, sender_id: bytes, recipient_id: bytes) -> None:
        self.alg_aead = oscore.algorithms[oscore.DEFAULT_ALGORITHM]
        self.hashfun = oscore.hashfunctions[oscore.DEFAULT_HASHFUNCTION]
        self.sender_id, self.recipient_id, self.id_context = sender_id, recipient_id, None
        self.sender_sequence_number = 0
        self.derive_keys(b"salt", b"secret")
        self.recipient_replay_window = oscore.ReplayWindow(64, lambda: None)
        self.recipient_replay_window.initialize_empty()

    def post_seqnoincrease(self) -> None:
        """Nothing is kept."""


async def test_a_refused_request_fails_with_the_refusal_and_leaves_nothing_behind(rig: Rig) -> None:
    rig.gate.refuse = lambda datagram: True
    for tuning in (Hasty(), Unreliable()):
        with pytest.raises(BudgetExceededError):
            await rig.ask(rig.message("echo", transport_tuning=tuning))
    await asyncio.sleep(0.15)  # longer than a retransmission would take
    assert rig.proxy.from_client == rig.client.meter.sent == Tally()
    assert rig.client.meter.refused.datagrams == 2
    manager = rig.client.interface._ctx
    assert not manager._active_exchanges
    assert not manager._backlogs
    assert not manager.token_manager.outgoing_requests
    rig.gate.refuse = lambda datagram: False
    await rig.ask(rig.message("echo", transport_tuning=Hasty()))
    rig.assert_counted_exactly()


async def test_refused_requests_that_wait_in_line_fail_too(rig: Rig) -> None:
    rig.proxy.drop = lambda data, upwards: True
    waiting = [asyncio.create_task(rig.ask(rig.message("echo", transport_tuning=Hasty()))) for _ in range(30)]
    await asyncio.sleep(0.02)  # one is on its way, the others are in aiocoap's backlog
    assert rig.proxy.from_client.datagrams == 1
    rig.gate.refuse = lambda datagram: rig.proxy.from_client.datagrams >= 1
    rig.proxy.drop = lambda data, upwards: False
    # A reset of the first lets aiocoap go on with the next.
    ((_, first_id),) = rig.client.interface._ctx._active_exchanges
    assert rig.proxy.client is not None
    rig.proxy.transport.sendto(b"\x70\x00" + first_id.to_bytes(2, "big"), rig.proxy.client)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(result, BudgetExceededError) for result in results) == 29
    assert rig.proxy.from_client.datagrams == 1
    assert not rig.client.interface._ctx._backlogs


async def test_the_gate_holds_for_retransmissions_and_acknowledgements(rig: Rig) -> None:
    cap = 60  # one request of about 40, and not another datagram of at least 32

    def over_cap(datagram: Datagram) -> bool:
        return rig.client.meter.sent.bytes_ip + datagram.bytes_ip > cap

    rig.gate.refuse = over_cap
    rig.proxy.drop = lambda data, upwards: upwards
    with pytest.raises(aiocoap.error.NetworkError):
        await rig.ask(rig.message("echo", transport_tuning=Hasty()))
    assert 0 < rig.proxy.from_client.bytes_ip <= cap
    assert rig.client.meter.refused.datagrams >= 2
    rig.assert_counted_exactly()
    rig.proxy.drop = lambda data, upwards: False
    assert rig.proxy.client is not None
    rig.proxy.to_client = rig.proxy.to_client.plus(32)
    rig.proxy.transport.sendto(b"\x40\x00\x12\x34", rig.proxy.client)  # a ping wants a reset
    before = rig.client.meter.refused.datagrams
    await rig.settle()
    assert rig.proxy.from_client.bytes_ip <= cap
    assert rig.client.meter.refused.datagrams == before + 1


async def test_a_callback_that_fails_does_not_stop_the_exchange(rig: Rig) -> None:
    def fail(datagram: Datagram) -> None:
        raise RuntimeError("the ledger is closed")

    rig.client.meter._on_datagram = fail
    assert (await rig.ask(rig.message("echo", payload=b"x"))).payload == b"x"
    assert rig.client.interface.faults == 2
    assert rig.client.meter.sent == rig.proxy.from_client


async def test_an_icmp_error_is_counted_and_fails_only_its_own_peer(rig: Rig) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    dead = rig.message("echo", account="dead")
    dead.remote = rig.client.remote_at(nobody)
    with pytest.raises(aiocoap.error.NetworkError):
        await rig.ask(dead)
    (sent, error) = (each for each in rig.at_client if each.account == "dead")
    assert error.is_icmp
    assert error.bytes_ip == sent.bytes_ip + 28
    assert rig.client.interface.faults == rig.client.meter.unsent == 0


async def test_the_pending_error_of_a_dead_peer_costs_another_peer_nothing(rig: Rig) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    # Both before the loop reads the error queue: the kernel reports the first's error instead of sending the second.
    rig.client.interface.sock.sendto(b"\x50\x01\x00\x01", ("::ffff:127.0.0.1", nobody[1]))
    message = Message(_mtype=aiocoap.NON, _mid=1, code=aiocoap.POST)
    message.remote = rig.client.remote_at(rig.proxy.address)
    rig.client.interface.send(message)
    await rig.settle()
    assert rig.proxy.from_client == rig.client.meter.sent == Tally(1, 32)
    assert rig.client.meter.unsent == 0


async def test_a_full_socket_buffer_is_a_loss_and_not_the_end_of_all_requests(rig: Rig) -> None:
    class FullFor:
        def __init__(self, sock: socket.socket, times: int) -> None:
            self.sock, self.times = sock, times

        def sendmsg(self, *arguments: Any) -> int:
            self.times -= 1
            if self.times >= 0:
                raise BlockingIOError(11, "full")
            return self.sock.sendmsg(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

    full = FullFor(rig.client.interface.sock, 2)
    kind = type(rig.client.interface)
    rig.client.interface.__class__ = type("Full", (kind,), {"sock": property(lambda _: full)})
    assert (await rig.ask(rig.message("echo", payload=b"x", transport_tuning=Hasty()))).payload == b"x"
    assert rig.client.meter.unsent == 2
    assert rig.client.meter.sent == rig.proxy.from_client
    assert rig.proxy.from_client.datagrams == 1


async def test_a_datagram_longer_than_aiocoap_reads_is_counted_whole(rig: Rig) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"\x50\x02\x00\x01\xff" + bytes(60_000), rig.server.address)
        await rig.settle()
    assert rig.server.meter.received == Tally(1, 60_005 + 28)


def junk_datagrams(count: int) -> list[bytes]:
    rng = random.Random(1)
    heads = [b"", b"\x40", b"\x4f\x01\x00\x00", b"\x40\x01\x12\x34\xff", b"\x60\x00\x00\x01", b"\x50\x1f\x00\x02"]
    result = []
    for number in range(count):
        head = rng.choice(heads) if number % 2 else bytes([rng.choice((0x40, 0x50, 0x60, 0x70)) | rng.randrange(10)])
        result.append(head + rng.randbytes(rng.randrange(60)))
    # Requests that reach the site: bad UTF-8 in a path, an unknown critical option, a hostile OSCORE option.
    result[::10] = [b"\x50\x01" + rng.randbytes(2) + b"\xb4\xff\xfe\xfd\xfc" for _ in result[::10]]
    result[1::10] = [b"\x40\x02" + rng.randbytes(2) + b"\x99" + rng.randbytes(9) for _ in result[1::10]]
    return result


async def test_junk_writes_little_to_the_log_and_raises_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    rig.server.serversite = OscoreSiteWrapper(rig.site, rig.server.server_credentials)
    junk = junk_datagrams(2000)
    with caplog.at_level(logging.WARNING), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        for number, data in enumerate(junk):
            stranger.sendto(data, rig.server.address)
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            while rig.server.meter.received.datagrams < 2000:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    assert rig.server.meter.received == Tally(2000, sum(map(len, junk)) + 2000 * 28)
    assert rig.server.meter.malformed > 200
    assert raised == []
    assert len(caplog.text) < 20_000
    rig.at_server.clear()
    assert (await rig.ask(rig.message("echo", payload=b"alive"))).payload == b"alive"


class Broken(Echo):
    """A resource with a fault, which anybody who finds it can trigger."""

    async def render_post(self, request: Any) -> Any:
        raise RuntimeError("x" * 2000)


async def test_a_broken_resource_is_logged_a_few_times_without_tracebacks(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.site.add_resource(["broken"], Broken(rig))
    for _ in range(60):
        answer = await rig.ask(rig.message("broken", transport_tuning=Unreliable()))
        assert answer.code == aiocoap.INTERNAL_SERVER_ERROR
    lines = caplog.text.splitlines()
    assert len(lines) == RECORDS_A_PERIOD
    assert all("coap.library_error" in line and len(line) < 500 for line in lines)


async def test_junk_at_a_client_is_as_quiet(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    with caplog.at_level(logging.WARNING), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in junk_datagrams(300):
            stranger.sendto(data, rig.client.address)
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
    assert raised == []
    assert len(caplog.text) < 20_000
    assert (await rig.ask(rig.message("echo", payload=b"alive"))).payload == b"alive"


async def test_an_error_while_dispatching_is_counted_and_logged_once(rig: Rig) -> None:
    def fail(message: Any) -> None:
        raise RuntimeError("aiocoap has a fault")

    dispatch = rig.server.interface._ctx.dispatch_message
    rig.server.interface._ctx.dispatch_message = fail
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"\x40\x00\x12\x34", rig.server.address)
        await rig.settle()
    assert rig.server.interface.faults == 1
    rig.server.interface._ctx.dispatch_message = dispatch
    assert (await rig.ask(rig.message("echo", payload=b"x"))).payload == b"x"


async def test_a_received_message_id_is_remembered_for_the_tuned_lifetime(rig: Rig) -> None:
    manager = rig.server.interface._ctx
    delays: list[float] = []

    class Recorder:
        def call_later(self, delay: float, *arguments: Any) -> Any:
            delays.append(delay)
            return asyncio.get_running_loop().call_later(delay, *arguments)

    manager.loop = Recorder()
    await rig.ask(rig.message("echo", transport_tuning=Unreliable()))
    assert delays == [60.0]


def test_a_lifetime_shorter_than_the_retransmissions_is_refused() -> None:
    assert short_memory(exchange_lifetime_s=46.0).EXCHANGE_LIFETIME == 46.0
    with pytest.raises(ValueError):
        short_memory(exchange_lifetime_s=45.0)


async def test_shutdown_in_the_middle_of_requests_is_quiet(rig: Rig) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    rig.proxy.drop = lambda data, upwards: True
    waiting = [asyncio.create_task(rig.ask(rig.message("echo", transport_tuning=Hasty()))) for _ in range(5)]
    await asyncio.sleep(0.01)
    await rig.client.shutdown()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, Exception) for result in results)
    await asyncio.sleep(0.1)
    assert raised == []
    rig.client = await client_context(on_datagram=rig.at_client.append)


# (what is replaced or relied on, SHA-256 of its source in aiocoap 0.4.17)
FINGERPRINTS: dict[str, tuple[Any, str]] = {
    "replaced: send": (udp6.MessageInterfaceUDP6.send, "b2401cf3f80c3085"),
    "replaced: datagram_msg_received": (udp6.MessageInterfaceUDP6.datagram_msg_received, "b24499ce829025ac"),
    "replaced: error_received": (udp6.MessageInterfaceUDP6.error_received, "328feca15a9ff24e"),
    "replaced: _create_transport_endpoint": (
        udp6.MessageInterfaceUDP6._create_transport_endpoint.__func__,
        "e60ca75c72a55370",
    ),
    "replaced: create_server_transport_endpoint": (
        udp6.MessageInterfaceUDP6.create_server_transport_endpoint.__func__,
        "3c5ce45592f17911",
    ),
    "extended: __init__": (udp6.MessageInterfaceUDP6.__init__, "6b368bddf58f4b28"),
    "extended: datagram_errqueue_received": (udp6.MessageInterfaceUDP6.datagram_errqueue_received, "7cbf41ed5f729f5d"),
    "used: shutdown": (udp6.MessageInterfaceUDP6.shutdown, "caf5b7fdb637eaa9"),
    "used: transport": (recvmsg.RecvmsgSelectorDatagramTransport, "de73cb97c0492283"),
    "used: context assembly": (Context._append_tokenmanaged_messagemanaged_transport, "264f399a8467a37c"),
    "used: remove_exchange": (messagemanager.MessageManager._remove_exchange, "a8ef9c56a6015e63"),
    "used: send_initially": (messagemanager.MessageManager._send_initially, "87b047727148d080"),
    "used: retransmit": (messagemanager.MessageManager._retransmit, "6e88f16f0f816e49"),
    "used: deduplicate": (messagemanager.MessageManager._deduplicate_message, "c1bd664fd011cac1"),
    "used: token request": (tokenmanager.TokenManager.request, "5194acd3547e4caf"),
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_the_internals_are_those_that_were_read(name: str) -> None:
    thing, expected = FINGERPRINTS[name]
    found = hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:16]
    assert found == expected, f"{name} changed in aiocoap {aiocoap.meta.version}: read it, then adapt"


def test_recverr_is_there() -> None:
    assert socknumbers.HAS_RECVERR
    assert recvmsg.RecvmsgSelectorDatagramTransport.max_size < DATAGRAM_BYTES_MAX
