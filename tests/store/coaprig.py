"""A metered client and a metered server on loopback, with a plain UDP proxy between them that counts for itself."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiocoap
from aiocoap import Message, oscore, resource
from aiocoap.numbers.constants import TransportTuning, Unreliable

from protocol.errors import BudgetExceededError
from store.coapcontext import MeteredContext, client_context, server_context
from store.coapmeter import Address, Attribution, Datagram, Direction, Tally


class Hasty(TransportTuning):  # type: ignore[misc]
    """Confirmable, retransmitted soon."""

    ACK_TIMEOUT = 0.05
    ACK_RANDOM_FACTOR = 1.0
    MAX_RETRANSMIT = 3
    reliability = True


class Patient(Hasty):
    """Confirmable, and not retransmitted while a test looks."""

    ACK_TIMEOUT = 60.0


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
        async with asyncio.timeout(60):
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


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    """Start a server, a proxy before it and a client, all on loopback."""
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
