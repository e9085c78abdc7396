"""Contexts: how their sockets are bound, and the meter against the kernel's own count of every packet and byte."""

import asyncio
import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiocoap
import pytest
from aiocoap import Message, resource
from aiocoap.credentials import CredentialsMap
from aiocoap.error import NetworkError
from aiocoap.numbers.constants import Unreliable
from aiocoap.transports.oscore import OSCOREAddress

from store.coapcontext import MeteredContext, client_context, raise_receive_buffer, server_context
from store.coapmeter import Datagram
from tests.store.coaprig import Keys

Open = Callable[..., Awaitable[MeteredContext]]
ROOT = Path(__file__).parents[2]


class Mirror(resource.Resource):  # type: ignore[misc]
    """Answers with the payload, or with several blocks if there is none."""

    async def render_fetch(self, request: Any) -> Any:
        return Message(payload=request.payload or bytes(3000))


def ignore(datagram: Datagram) -> None:
    """Take no notice of a datagram."""


@pytest.fixture
async def open_server() -> AsyncIterator[Open]:
    opened: list[MeteredContext] = []

    async def open_one(**options: Any) -> MeteredContext:
        site = resource.Site()
        site.add_resource(["m"], Mirror())
        options = {"bind": ("127.0.0.1", 0), "on_datagram": ignore, **options}
        opened.append(await server_context(site, **options))
        return opened[-1]

    yield open_one
    for context in opened:
        await context.shutdown()


@pytest.fixture
async def open_client() -> AsyncIterator[Open]:
    opened: list[MeteredContext] = []

    async def open_one(**options: Any) -> MeteredContext:
        opened.append(await client_context(**{"on_datagram": ignore, **options}))
        return opened[-1]

    yield open_one
    for context in opened:
        await context.shutdown()


async def fetch(client: MeteredContext, address: tuple[str, int], payload: bytes = b"x") -> Any:
    message = Message(code=aiocoap.FETCH, uri_path=("m",), payload=payload)
    message.remote = client.remote_at(address)
    async with asyncio.timeout(60):
        return await client.request(message).response


@pytest.mark.parametrize(
    ("server_host", "client_host", "to_host"),
    [("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::1", "::1", "::1"), ("::", "::", "127.0.0.1"), ("::", "::", "::1")],
)
async def test_both_families_are_reached(
    open_server: Open, open_client: Open, server_host: str, client_host: str, to_host: str
) -> None:
    server = await open_server(bind=(server_host, 0))
    client = await open_client(bind=(client_host, 0))
    assert (await fetch(client, (to_host, server.address[1]))).payload == b"x"
    header = 48 if ":" in to_host else 28
    assert client.meter.sent.bytes_ip == header + 4 + 1 + 2 + 2


async def test_a_second_server_cannot_take_the_port(open_server: Open) -> None:
    server = await open_server()
    with pytest.raises(OSError) as refused:
        await open_server(bind=server.address)
    assert refused.value.errno == errno.EADDRINUSE
    assert server.interface.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


async def test_a_failed_start_leaves_no_socket(open_server: Open) -> None:
    server = await open_server()
    before = len(os.listdir("/proc/self/fd"))
    for options in ({"bind": server.address}, {"exchange_lifetime_s": 1.0}, {"interface": "no-such-if"}):
        with pytest.raises((OSError, ValueError)):
            await open_server(**options)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_context_silences_the_loggers_that_aiocoap_takes_by_name(open_client: Open) -> None:
    logger = logging.getLogger("coap-server.oscore-site")
    logger.setLevel(logging.NOTSET)
    await open_client()
    assert not logger.isEnabledFor(logging.ERROR)


async def test_a_request_carries_no_uri_host(open_server: Open, open_client: Open) -> None:
    server, client = await open_server(), await open_client()
    answer = await fetch(client, server.address)
    assert answer.request.opt.uri_host is None
    assert client.address[1] != 0


async def test_an_interface_binds_the_socket(open_server: Open, open_client: Open) -> None:
    server = await open_server()
    client = await open_client(bind=("127.0.0.1", 0), interface="lo")
    bound = client.interface.sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
    assert bound.rstrip(b"\0") == b"lo"
    assert (await fetch(client, server.address)).payload == b"x"


async def test_the_receive_buffer_is_raised(open_client: Open) -> None:
    small = await open_client(receive_buffer_bytes=65_536)
    sock = small.interface.sock
    before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    granted = raise_receive_buffer(sock, 150_000)
    assert granted == 150_000
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > before


async def test_an_empty_map_of_credentials_is_kept(open_server: Open, open_client: Open) -> None:
    at_server, at_client = CredentialsMap(), CredentialsMap()
    server = await open_server(credentials=at_server)
    client = await open_client(credentials=at_client)
    assert server.server_credentials is at_server
    assert client.client_credentials is at_client


async def test_an_account_is_that_of_the_message_and_ends_with_it(open_server: Open, open_client: Open) -> None:
    seen: list[Datagram] = []
    server = await open_server()
    client = await open_client(on_datagram=seen.append)
    for account in ("one", None, "two", 0):
        seen.clear()
        message = Message(code=aiocoap.FETCH, uri_path=("m",))
        message.remote = client.remote_at(server.address)
        message.account = account
        assert len((await client.request(message).response).payload) == 3000
        assert len(seen) == 6
        assert {datagram.account for datagram in seen} == {account}


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """The address of somebody who never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.mark.parametrize("protected", [True, False])
async def test_a_request_that_nobody_waits_for_any_more_leaves_nothing_behind(
    silent: tuple[str, int], caplog: pytest.LogCaptureFixture, protected: bool
) -> None:
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    client = await client_context(on_datagram=ignore)
    keys = Keys(b"\1", b"\2")

    async def ask() -> None:
        message = Message(code=aiocoap.POST, uri_path=("u",), transport_tuning=Unreliable())
        remote = client.remote_at(silent)
        message.remote = OSCOREAddress(keys, remote) if protected else remote
        async with asyncio.timeout(0.05):
            await client.request(message, handle_blockwise=False).response

    results = await asyncio.gather(*(ask() for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {TimeoutError}
    assert client.meter.sent.datagrams == 20
    for _ in range(3):
        await asyncio.sleep(0)
    oscore, tokens = client.request_interfaces
    assert (len(oscore._tasks), len(tokens.outgoing_requests)) == (0, 0)
    await client.shutdown()
    assert raised == []
    assert caplog.records == []


async def test_an_answer_in_the_very_turn_in_which_it_was_given_up_breaks_nothing(
    open_client: Open, silent: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    client = await open_client()
    message = Message(code=aiocoap.POST, uri_path=("u",), transport_tuning=Unreliable())
    message.remote = client.remote_at(silent)
    request = client.request(message, handle_blockwise=False)
    while not client.request_interfaces[-1].outgoing_requests:
        await asyncio.sleep(0)
    (pipe,) = client.request_interfaces[-1].outgoing_requests.values()
    request.response.cancel()
    pipe.add_response(Message(code=aiocoap.CHANGED), is_last=True)
    assert request.response.cancelled()
    assert caplog.records == []


async def drive_every_kind(host: str) -> tuple[int, int]:
    """Exchange all kinds of datagrams on `host`; return the packets and IP bytes that both meters counted."""
    seen: list[Datagram] = []
    site = resource.Site()
    site.add_resource(["m"], Mirror())
    server = await server_context(site, bind=(host, 0), on_datagram=seen.append)
    client = await client_context(bind=(host, 0), on_datagram=seen.append)
    for size in (1, 500, 1000, 0):
        await fetch(client, server.address, bytes(size))
    for number in range(50):
        message = Message(code=aiocoap.FETCH, uri_path=("m",), payload=bytes(number), transport_tuning=Unreliable())
        message.remote = client.remote_at(server.address)
        await client.request(message).response
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((host, 0))
        nobody = stranger.getsockname()[1]
    # Unreachable: short ones and one that the ICMP error quotes only the beginning of.
    for size in (10, 100, 1100):
        message = Message(code=aiocoap.FETCH, uri_path=("m",), payload=bytes(size))
        message.remote = client.remote_at((host, nobody))
        try:
            await client.request(message, handle_blockwise=False).response
        except NetworkError:
            continue
    await asyncio.sleep(0.1)
    packets = [datagram for datagram in seen if datagram.direction == "sent" or datagram.is_icmp]
    assert sum(datagram.is_icmp for datagram in packets) == 3
    assert client.interface.faults == server.interface.faults == 0
    await client.shutdown()
    await server.shutdown()
    return len(packets), sum(datagram.bytes_ip for datagram in packets)


def loopback_counts() -> tuple[int, int]:
    """The kernel's count of packets and bytes sent through lo; it counts them without a link header."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            fields = numbers.split()
            return int(fields[9]), int(fields[8])
    raise AssertionError("there is no lo")


def bring_loopback_up() -> None:
    """Set IFF_UP, in a network namespace of our own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))


UNSHARE = ("unshare", "--map-root-user", "--net")


@pytest.fixture
def own_network() -> tuple[str, ...]:
    """The command that runs another one in a network namespace of its own."""
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], check=False).returncode:
        pytest.skip("a network namespace of its own is not allowed here")
    return UNSHARE


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_meters_equal_the_kernels_counters_byte_for_byte(own_network: tuple[str, ...], host: str) -> None:
    command = [*own_network, sys.executable, __file__, host]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["metered"] == counted["kernel"]
    assert counted["metered"][0] > 100


if __name__ == "__main__":
    bring_loopback_up()
    metered = asyncio.run(drive_every_kind(sys.argv[1]))
    json.dump({"metered": metered, "kernel": loopback_counts()}, sys.stdout)
