"""What strangers and a broken network can do to a metered socket: ICMP errors, full buffers, junk."""

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiocoap
import pytest
from aiocoap import Message
from aiocoap.numbers.constants import Unreliable
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper

from store.coaplog import RECORDS_A_PERIOD
from store.coapmeter import Tally
from tests.store.coaprig import Echo, Hasty, Rig, open_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as rig:
        yield rig


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
        async with asyncio.timeout(60):
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
