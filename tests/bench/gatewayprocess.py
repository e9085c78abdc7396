"""A real gateway in a process of its own, for benchmarks that load it from outside and want its own figures.

`GatewayProcess` starts it on loopback with a root and enrolment codes for some trucks. Everything it logs goes to a
file. `figures` asks it for processor time, memory, bytes of logs and exceptions that nothing caught.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog

from gateway.config import CoapSettings, GatewayConfig, HttpSettings
from gateway.daemon import Gateway, initialise, load_keys, now_ms
from protocol.cose import SigningKey, digest
from protocol.documents import RoleKeys, Root, sign_document
from protocol.numbers import DocumentKind

_YEARS_S = 4 * 10**9


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """What a gateway process has used and seen since its start. Bytes are whole IP packets."""

    processor_s: float
    memory_bytes: int
    log_bytes: int
    uncaught: int
    sent_bytes: int
    received_bytes: int
    turned_away: int


class GatewayProcess:
    """A gateway in a child process; a context manager."""

    def __init__(self, folder: Path, trucks: Sequence[str], *, processor: int | None = None) -> None:
        """`processor` pins it to one core."""
        self._log = folder / "gateway.log"
        folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.gatewayprocess", str(folder / "data"), *trucks],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        if processor is not None:
            os.sched_setaffinity(self._child.pid, {processor})
        started = json.loads(self._line())
        self.address: str = started["address"]
        self.http: str = started["http"]
        self.codes: dict[str, str] = started["codes"]

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stdin.close()  # type: ignore[union-attr]
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()  # type: ignore[union-attr]

    @property
    def processor_s(self) -> float:
        """Processor time used so far, of all threads."""
        times = psutil.Process(self._child.pid).cpu_times()
        return float(times.user + times.system)

    def figures(self) -> GatewayFigures:
        """Ask for the figures; it answers between two datagrams."""
        self._child.stdin.write("figures\n")  # type: ignore[union-attr]
        self._child.stdin.flush()  # type: ignore[union-attr]
        told = json.loads(self._line())
        return GatewayFigures(processor_s=self.processor_s, log_bytes=self._log.stat().st_size, **told)

    def _line(self) -> str:
        line = self._child.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(f"the gateway ended: {self._log.read_text()[-2000:]}")
        return line


async def _serve(folder: Path, trucks: Sequence[str]) -> None:
    uncaught = 0

    def count(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal uncaught
        uncaught += 1
        logging.getLogger("bench").error("uncaught: %s %r", context.get("message"), context.get("exception"))

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(count)
    await initialise(folder, coap="127.0.0.1:0", http="127.0.0.1:0")
    gateway = Gateway(
        GatewayConfig(
            coap=CoapSettings(listen="127.0.0.1:0", public=("127.0.0.1:1",)), http=HttpSettings(listen="127.0.0.1:0")
        ),
        folder,
    )
    await gateway.start()
    await _publish_root(gateway, folder)
    codes = {}
    for truck in trucks:
        secret = os.urandom(16)
        now = now_ms()
        await gateway.fleet.create_enrolment(truck, "bench", digest(secret), now + 3_600_000, "bench", now_ms=now)
        codes[truck] = gateway.join_code(truck, secret)
    http = f"{gateway.api.address}:{gateway.api.port}"
    print(json.dumps({"address": gateway.coap_address, "http": http, "codes": codes}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        meter, interface = gateway.context.meter, gateway.context.interface
        told = {
            "memory_bytes": psutil.Process().memory_info().rss,
            "uncaught": uncaught + interface.faults,
            "sent_bytes": meter.sent.bytes_ip,
            "received_bytes": meter.received.bytes_ip,
            "turned_away": getattr(getattr(interface.admit, "__self__", None), "turned_away", 0),
        }
        print(json.dumps(told), flush=True)
    await gateway.close()


async def _publish_root(gateway: Gateway, folder: Path) -> None:
    key = SigningKey(digest(b"bench"))
    freshness = load_keys(folder / "keys").freshness
    root = Root(
        document=DocumentKind.ROOT,
        version=1,
        issued_s=0,
        expires_s=_YEARS_S,
        root=RoleKeys(1, (key.public,)),
        gateway=RoleKeys(1, (freshness.public,)),
    )
    await gateway.documents.accept(sign_document(root, [key]), "bench")


def main() -> None:
    """Serve until stdin ends; arguments are a folder and names of trucks."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
