"""What a session costs: bytes to establish one, overhead a request, handshakes and protected requests a second.

The bytes are counted by the kernel, in a network namespace where nothing else uses the loopback interface. A session is
EDHOC and the first request with its answer: what a truck does after a restart of the gateway or on a new link. The
rates are requests over the processor time of the gateway's own process, its database writes included, so that they
are those of one core whatever else the machine does. Needs `unshare` (root, or user namespaces).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aiocoap.numbers import codes

from edge.clock import boottime
from edge.config import ClassroomSettings, EdgeConfig, LinkSettings
from edge.daemon import Edge
from edge.identity import load_identity
from edge.joining import join
from edge.link import Link
from edge.link_errors import RefusedError
from edge.spending import Unmetered
from protocol.documents import ExchangeKey
from protocol.joincode import read_join_code
from protocol.messages import Ack, Upload
from protocol.numbers import PATH_UPLOAD, Precedence
from store.coapmeter import Tally
from tests.bench.gatewayprocess import GatewayProcess
from tests.bench.wire import loopback

NAME = "session"
HANDSHAKES, REQUESTS, AT_ONCE = 200, 4_000, 32
_UNSHARE = ("unshare", "--map-root-user", "--net")


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """Bytes are whole IPv4 packets; rates are per second of one core."""

    establish_up: int
    establish_down: int
    kernel_bytes: int
    request_up: int
    request_down: int
    overhead_up: int
    overhead_down: int
    handshakes_per_s: float
    fast_requests_per_s: float
    slow_requests_per_s: float


def run(args: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit)."""
    if shutil.which("unshare") is None or subprocess.run([*_UNSHARE, "true"], check=False).returncode:
        raise SystemExit("session: a network namespace is needed (root, or unprivileged user namespaces)")
    inside = [*_UNSHARE, sys.executable, "-m", "tests.bench.session", "--inside", *args]
    output = subprocess.run(inside, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = SessionFigures(**json.loads(output.splitlines()[-1]))
    return [
        (
            "bytes to establish a session, EDHOC and first request, both directions, kernel",
            f"{found.kernel_bytes} ({found.establish_up} up, {found.establish_down} down)",
            "DTLS 1.2 PSK 1,000 (463 up, 537 down); TLS 1.3 4,019",
            "300",
        ),
        (
            "bytes of a request that asks for the time, and its answer",
            f"{found.request_up} up, {found.request_down} down",
            "",
            "",
        ),
        (
            "overhead a request over its payload (IP and UDP headers included)",
            f"{found.overhead_up} up, {found.overhead_down} down",
            "aiocoap and OSCORE 51 up, 45 down",
            "51 up, 45 down",
        ),
        ("handshakes a second, one core, database included", f"{found.handshakes_per_s:.0f}", "", ""),
        (
            "protected requests a second, one core, fast lane (POST /u that asks for the time)",
            f"{found.fast_requests_per_s:.0f}",
            "a fast lane alone 53,500",
            "",
        ),
        (
            "protected requests a second, one core, through aiocoap (a method that is refused)",
            f"{found.slow_requests_per_s:.0f}",
            "aiocoap OSCORE alone 2,950",
            "",
        ),
    ]


async def measure(folder: Path) -> SessionFigures:
    """Measure everything against a gateway process."""
    with GatewayProcess(folder / "gateway", ["bench-truck"]) as gateway:
        code = replace_addresses(gateway.codes["bench-truck"], gateway.address)
        config = EdgeConfig(
            data=str(folder / "truck"),
            classroom=ClassroomSettings(listen="127.0.0.1:0"),
            link=(LinkSettings(name="lte"),),
            collector=(),
        )
        (folder / "truck").mkdir()
        await join(read_join_code(code), config, folder / "truck")
        await _settle(config, folder / "truck")
        found = await _measure_bytes(folder / "truck", gateway.address)
        handshakes = await _rate_of_handshakes(folder / "truck", gateway)
        fast = await _rate_of_requests(folder / "truck", gateway, _hello)
        slow = await _rate_of_requests(folder / "truck", gateway, _wrong_method)
    return replace(found, handshakes_per_s=handshakes, fast_requests_per_s=fast, slow_requests_per_s=slow)


async def _settle(config: EdgeConfig, truck: Path) -> None:
    """Run the truck's daemon until it has reported its desired state: a later session is told nothing of it again."""
    edge = Edge(config, truck)
    await edge.start()
    work = asyncio.create_task(edge.run())
    try:
        async with asyncio.timeout(30):
            while edge.downlink._reported is None or await edge.writer.run(edge.queue.bytes_queued):
                await asyncio.sleep(0.1)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await edge.close()


def replace_addresses(text: str, address: str) -> str:
    """Return an enrolment code that names the address which the gateway's port was given."""
    code = read_join_code(text)
    return type(code)(code.truck, (address,), code.secret, code.gateway_key, code.root).text()


def _link(truck: Path, address: str) -> Link:
    keys, enrolment = load_identity(truck / "identity")
    return Link(
        LinkSettings(name="lte"),
        keys=keys,
        gateways=(address,),
        gateway_keys=lambda: (ExchangeKey(enrolment.key_number, enrolment.gateway_key),),
        contexts=None,
        spending=Unmetered(),
        monotonic=boottime,
    )


async def _ask(link: Link, payload: bytes) -> bytes:
    answered = await link.request(
        codes.POST, PATH_UPLOAD, payload, precedence=Precedence.PRIORITY, cause="bench", timeout_s=10.0
    )
    return answered.payload


def _meters(link: Link) -> tuple[Tally, Tally]:
    assert link._coap is not None
    return link._coap.meter.sent, link._coap.meter.received


async def _measure_bytes(truck: Path, address: str) -> SessionFigures:
    link = _link(truck, address)
    hello = Upload(ask_time=True).encode()
    before = loopback()[0]
    await _ask(link, hello)
    kernel = loopback()[0] - before
    sent, received = _meters(link)
    if sent.bytes_ip + received.bytes_ip != kernel:
        raise AssertionError(f"the meter saw {sent.bytes_ip + received.bytes_ip} bytes, the kernel {kernel}")
    answer = await _ask(link, hello)
    sent_2, received_2 = _meters(link)
    up, down = sent_2.bytes_ip - sent.bytes_ip, received_2.bytes_ip - received.bytes_ip
    Ack.decode(answer)
    await link.close()
    overhead = up - len(hello), down - len(answer)
    return SessionFigures(sent.bytes_ip, received.bytes_ip, kernel, up, down, *overhead, 0.0, 0.0, 0.0)


async def _rate_of_handshakes(truck: Path, gateway: GatewayProcess) -> float:
    hello = Upload(ask_time=True).encode()
    link = _link(truck, gateway.address)
    await _ask(link, hello)
    before = gateway.processor_s
    for _ in range(HANDSHAKES):
        link._session = None
        await _ask(link, hello)
    used = gateway.processor_s - before
    await link.close()
    return HANDSHAKES / used


async def _hello(link: Link) -> None:
    await _ask(link, Upload(ask_time=True).encode())


async def _wrong_method(link: Link) -> None:
    """Ask what is refused with 4.05: what the messages cost, and nothing else."""
    with suppress(RefusedError):
        await link.request(codes.GET, PATH_UPLOAD, b"", precedence=Precedence.PRIORITY, cause="bench", timeout_s=10.0)


async def _rate_of_requests(truck: Path, gateway: GatewayProcess, ask: Callable[[Link], Awaitable[None]]) -> float:
    link = _link(truck, gateway.address)
    await _hello(link)
    left = REQUESTS

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await ask(link)

    before = gateway.processor_s
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    used = gateway.processor_s - before
    await link.close()
    return REQUESTS / used


def main() -> None:
    """Run inside the namespace and print the figures as JSON."""
    from tests.bench.wire import _bring_loopback_up

    _bring_loopback_up()
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as folder:
        print(json.dumps(asdict(asyncio.run(measure(Path(folder))))))


if __name__ == "__main__":
    main()
