"""Wire bytes a row and a truck-month: a real truck and a real gateway on loopback, counted by the kernel.

The whole run happens in a network namespace of its own, where nothing else uses the loopback interface, so that its
counters are the bytes of this protocol alone: headers, handshake, acknowledgements, schema and clock included. Rows are
given to the recorder as fast as it takes them, but for a closed batch, which is waited for until it is acknowledged:
a row a minute leaves time for that. Batches close when they fill a datagram. The schema is the one that
`digitruck-edge schema suggest` fits to the trace. Needs `unshare` (root, or user namespaces).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edge.config import ClassroomSettings, EdgeConfig, LinkSettings
from edge.daemon import Edge
from edge.joining import join
from edge.measure import fit
from gateway.config import CoapSettings, GatewayConfig, HttpSettings
from gateway.daemon import Gateway, initialise, load_keys, now_ms
from protocol.cose import SigningKey, digest
from protocol.documents import RoleKeys, Root, sign_document
from protocol.joincode import read_join_code
from protocol.numbers import DocumentKind
from protocol.schema import Schema
from tests.bench.traces import load_trace

NAME = "wire"
MONTH_ROWS = 43_200
_YEARS_S = 4 * 10**9
_UNSHARE = ("unshare", "--map-root-user", "--net")


@dataclass(frozen=True, slots=True)
class WireFigures:
    """What one run cost, in kernel bytes: once (handshake, clock, schema), and for the rows and their answers."""

    rows: int
    setup_bytes: int
    wire_bytes: int
    packets: int
    batches: int

    @property
    def per_row(self) -> float:
        """Wire bytes a row, both directions."""
        return self.wire_bytes / self.rows

    @property
    def per_month(self) -> int:
        """Wire bytes of a month at one row a minute, both directions, one session and one schema included."""
        return round(self.per_row * MONTH_ROWS) + self.setup_bytes


def run(args: list[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit); `args` may name a trace (CSV or CSV.gz) and a number of rows."""
    if shutil.which("unshare") is None or subprocess.run([*_UNSHARE, "true"], check=False).returncode:
        raise SystemExit("wire: a network namespace is needed (root, or unprivileged user namespaces)")
    inside = [*_UNSHARE, sys.executable, "-m", "tests.bench.wire", "--inside", *args]
    output = subprocess.run(inside, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = WireFigures(**json.loads(output.splitlines()[-1]))
    return [
        ("rows through the real stack", f"{figures.rows}", "", ""),
        ("wire bytes once: session, clock, schema", f"{figures.setup_bytes}", "", ""),
        ("rows a batch", f"{figures.rows / figures.batches:.0f}", "about 160", ""),
        ("wire bytes a row, kernel", f"{figures.per_row:.2f}", "design 7.5", "6.9"),
        (
            "wire bytes a truck-month",
            f"{figures.per_month / 1000:.0f} kB",
            "MQTT+TLS+JSON 19,800 kB; LwM2M 17,600 kB; JSON+zstd batches 1,100 kB; design 325 kB",
            "300 kB",
        ),
    ]


async def measure(trace: Path | None, rows_max: int) -> WireFigures:
    """Send a trace through a real truck and gateway in this process and return what the kernel counted."""
    recording = load_trace(trace)
    rows = recording.rows[:rows_max]
    schema = fit(recording, rows)
    with tempfile.TemporaryDirectory(prefix="digitruck-bench-") as folder:
        gateway, edge = await start_pair(Path(folder))
        before = loopback()
        daemon = asyncio.create_task(edge.run())
        feeding = asyncio.create_task(_send(edge, schema, rows))
        try:
            await asyncio.wait({daemon, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if daemon.done():
                daemon.result()  # raises what ended it
            sent, ready = feeding.result()
        finally:
            daemon.cancel()
            feeding.cancel()
            await asyncio.gather(daemon, feeding, return_exceptions=True)
        after = loopback()
        await edge.close()
        await gateway.close()
    return WireFigures(len(rows), ready[0] - before[0], after[0] - ready[0], after[1] - ready[1], sent)


async def start_pair(folder: Path) -> tuple[Gateway, Edge]:
    """Return a running gateway and a truck that has joined it and is open, not yet running."""
    await initialise(folder / "gateway", coap="127.0.0.1:0", http="127.0.0.1:0")
    port = _free_port()
    address = f"127.0.0.1:{port}"
    config = GatewayConfig(
        coap=CoapSettings(listen=address, public=(address,)), http=HttpSettings(listen="127.0.0.1:0")
    )
    gateway = Gateway(config, folder / "gateway")
    await gateway.start()
    root_key = SigningKey(digest(b"bench"))
    freshness = load_keys(folder / "gateway" / "keys").freshness
    root = Root(
        document=DocumentKind.ROOT,
        version=1,
        issued_s=0,
        expires_s=_YEARS_S,
        root=RoleKeys(1, (root_key.public,)),
        gateway=RoleKeys(1, (freshness.public,)),
    )
    await gateway.documents.accept(sign_document(root, [root_key]), "bench")
    secret = os.urandom(16)
    now = now_ms()
    await gateway.fleet.create_enrolment("bench-truck", "bench", digest(secret), now + 60_000, "bench", now_ms=now)
    code = gateway.join_code("bench-truck", secret)
    edge_config = EdgeConfig(
        data=str(folder / "truck"),
        batch_age_s=7 * 86_400,
        classroom=ClassroomSettings(listen="127.0.0.1:0"),
        link=(LinkSettings(name="lte"),),
        collector=(),
    )
    (folder / "truck").mkdir()
    await join(read_join_code(code), edge_config, folder / "truck")
    edge = Edge(edge_config, folder / "truck")
    await edge.start()
    return gateway, edge


async def _send(edge: Edge, schema: Schema, rows: object) -> tuple[int, tuple[int, int]]:
    """Return how many batches it took, and the counters when everything but rows had been sent."""
    await edge.recorder.open_series("trace", schema)
    while edge.clock.offset_s is None or await edge.writer.run(edge.queue.bytes_queued):
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    ready = loopback()
    for time_s, cells in rows:  # type: ignore[attr-defined]
        closed = edge.recorder.batches
        await edge.recorder.on_row("trace", time_s - edge.clock.offset_s, cells)
        while edge.recorder.batches > closed and await edge.writer.run(edge.queue.bytes_queued):
            await asyncio.sleep(0.002)
    await edge.recorder.close_all()
    while await edge.writer.run(edge.queue.bytes_queued):
        await asyncio.sleep(0.1)
    return edge.recorder.batches, ready


def loopback() -> tuple[int, int]:
    """Return the kernel's count of bytes and packets sent through lo; it counts IP packets, without a link header."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            fields = counts.split()
            return int(fields[8]), int(fields[9])
    raise AssertionError("there is no lo")


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Run inside the namespace: arguments are `--inside`, then a trace and a number of rows, if any."""
    args = [each for each in sys.argv[1:] if each != "--inside"]
    _bring_loopback_up()
    trace = Path(args[0]) if args else None
    rows = int(args[1]) if len(args) > 1 else 5_000
    figures = asyncio.run(measure(trace, rows))
    print(
        json.dumps(
            {
                "rows": figures.rows,
                "setup_bytes": figures.setup_bytes,
                "wire_bytes": figures.wire_bytes,
                "packets": figures.packets,
                "batches": figures.batches,
            }
        )
    )


if __name__ == "__main__":
    main()
