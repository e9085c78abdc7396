"""Bulk goodput over a long, thin, lossy link: a real gateway and a real daemon in namespaces, beside TCP and Block2.

A bundle of random bytes comes down over a link of the net lab; curl fetches the same bytes from an HTTP server by TCP
with BBR and with CUBIC, and aiocoap's own Block2 runs for a minute. Goodput is useful bytes over the time from the
first packet of content to the last; the kernel counts what it took at the truck's device. The limit is what a perfect
protocol with our datagrams could do: 0.947 x rate x (1 - loss). Needs root.

    make bench ARGS="goodput [--mb 3] [--case satellite-5 ...]"
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.demo.linkmodel import DirectionProfile, GilbertElliott, LinkProfile
from gateway.demo.server import Ports, Site
from gateway.demo.trucks import DemoTruck
from tests.netlab.lab import GATEWAY_ADDRESS, Lab, Place
from tests.netlab.namespaces import run as command
from tests.netlab.namespaces import why_not
from tests.rig.fleet import Rig, until

NAME = "goodput"
_LINK = "sat"
_USEFUL_SHARE = 0.947  # of the link's bytes: 1,024 of a piece in a datagram with its headers
_GOAL = 0.95
_WITHIN_S = 3_600.0
_BLOCK2_S = 60.0
_PIECE_AT_LEAST_BYTES = 500
PORTS = Ports(coap=5683, http=8080)
_CONFIG = """\
data = "data"
batch_age_s = 5

[classroom]
listen = "0.0.0.0:8080"

[[link]]
name = "sat"
interface = "sat"

[[collector]]
kind = "host"
name = "host"
period_s = 5
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A link: its rate in bit/s, the delay of one way, its loss, in bursts or not, and TCP's anchors in kbit/s."""

    name: str
    rate_bps: int
    delay_s: float
    loss: float
    burst_packets: float = 0.0

    def profile(self) -> LinkProfile:
        """Return both directions: they lose alike, the queue holds a second."""
        burst = GilbertElliott.of_mean(loss=self.loss, burst_packets=self.burst_packets) if self.burst_packets else None
        way = DirectionProfile(
            rate_bps=self.rate_bps,
            queue_bytes_max=max(32_000, self.rate_bps // 8),
            delay_s=self.delay_s,
            loss=0.0 if burst else self.loss,
            burst_loss=burst,
        )
        return LinkProfile(name=_LINK, up=way, down=way)

    @property
    def limit_bps(self) -> float:
        """What a perfect protocol with our datagrams could carry, in useful bit/s."""
        return _USEFUL_SHARE * self.rate_bps * (1 - self.loss)


CASES = (
    Case("satellite-0", 1_000_000, 0.3, 0.0),
    Case("satellite-5", 1_000_000, 0.3, 0.05),
    Case("satellite-20", 1_000_000, 0.3, 0.20),
    Case("satellite-5-bursts", 1_000_000, 0.3, 0.05, 5.0),
    Case("thin-5", 64_000, 0.3, 0.05),
    Case("lte-2", 10_000_000, 0.04, 0.02),
)
# Of the design, in kbit/s: the prototype that was told the rate, and others beside it.
_ANCHORS = {
    "satellite-0": "prototype 879, BBR 763, CUBIC 769, Block2 13",
    "satellite-5": "prototype 760, BBR 509-646, CUBIC 170, Block2 10",
    "satellite-20": "prototype 719, BBR 370-446, CUBIC 34, Block2 3.5",
}
_OF_A_RUN = ("satellite-0", "satellite-5", "satellite-20")


@dataclass(frozen=True, slots=True)
class Carried:
    """Useful bytes, the time they took, and what the kernel counted at the truck meanwhile."""

    useful_bytes: int
    seconds: float
    sent_bytes: int
    received_bytes: int

    def row(self, who: str, case: Case, anchor: str, limit: str) -> tuple[str, str, str, str]:
        """Return the row of the table."""
        rate = self.useful_bytes * 8 / self.seconds
        up, down = self.sent_bytes / self.useful_bytes, self.received_bytes / self.useful_bytes
        measured = (
            f"{rate / 1000:.0f} kbit/s = {rate / case.limit_bps:.3f} of the limit; {up:.3f} B up, {down:.3f} B down"
        )
        return f"goodput {case.name}, {who}", measured, anchor, limit


class Stopwatch:
    """Counts at the truck's device from the first content to the last: what is installed after that costs no link."""

    def __init__(self, lab: Lab, place: Place, *, upwards: bool = False) -> None:
        self._lab, self._place = lab, place
        self._way = 0 if upwards else 1
        self._begun = time.monotonic()
        self._before = self._counted()
        self._last = self._begun, self._before
        self._watching: asyncio.Task[None] | None = None

    def _counted(self) -> tuple[int, int]:
        at_truck, _ = self._lab.counted(self._place, _LINK)
        return at_truck.sent_bytes, at_truck.received_bytes

    async def wait_for_content(self) -> None:
        """Start when more than a few small answers have come."""
        idle = self._counted()
        while True:
            now = self._counted()
            if now[self._way] - idle[self._way] > 5_000:
                self._begun, self._before = time.monotonic(), now
                self._watching = asyncio.create_task(self._watch())
                return
            await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        """Note when content came last: acknowledgements and other small talk are shorter than a piece."""
        seen = self._before
        while True:
            await asyncio.sleep(0.1)
            now = self._counted()
            if now[self._way] - seen[self._way] > _PIECE_AT_LEAST_BYTES:
                self._last = time.monotonic(), now
            seen = now

    def read(self, useful_bytes: int) -> Carried:
        """Return what was carried until now."""
        if self._watching is not None:
            self._watching.cancel()
        ended, (sent, received) = self._last
        seconds = ended - self._begun
        return Carried(useful_bytes, seconds, sent - self._before[0], received - self._before[1])


async def ours(case: Case, size: int, folder: Path) -> Carried:
    """Bring a bundle of `size` random bytes to a real truck."""
    with Lab() as lab:
        place = lab.truck("arrow", {_LINK: case.profile()})
        site = Site(GATEWAY_ADDRESS, lab.gateway.address, lab.gateway.namespace.enter)
        async with Rig(folder, seed=1, ports=PORTS, site=site) as rig:
            truck = DemoTruck("ke-arrow", folder / "ke-arrow", {}, host=place.address, enter=place.namespace.enter)
            await rig.enrol(truck, _CONFIG)
            await rig.run(truck)
            await asyncio.sleep(8)  # the first hello and its documents are over
            bundle = folder / "bundle"
            bundle.mkdir()
            (bundle / "film.mp4").write_bytes(os.urandom(size))
            pushed = await rig.people.publish(rig.client, bundle, name="film", label="1", version=1, title="Film")
            await rig.people.roll_out(rig.client, bundle="film", manifest=pushed.digest, version=1)
            watch = Stopwatch(lab, place)
            await watch.wait_for_content()
            await until(lambda: rig.told(truck.name, "bundle.activated"), within_s=_WITHIN_S, what="it is active")
            return watch.read(size)


async def tcp(case: Case, size: int, folder: Path, control: str) -> Carried:
    """Fetch the same with curl over TCP; the sender's congestion control is `control`."""
    (folder / "film.mp4").write_bytes(os.urandom(size))
    with Lab() as lab:
        place = lab.truck("arrow", {_LINK: case.profile()})
        command(*lab.gateway.namespace.enter, "sysctl", "-qw", f"net.ipv4.tcp_congestion_control={control}")
        serve = [sys.executable, "-m", "http.server", "-d", str(folder), "-b", GATEWAY_ADDRESS, "8081"]
        server = subprocess.Popen([*lab.gateway.namespace.enter, *serve], stderr=subprocess.DEVNULL)
        try:
            await asyncio.sleep(1.5)
            watch = Stopwatch(lab, place)
            url = f"http://{GATEWAY_ADDRESS}:8081/film.mp4"
            fetch = ("curl", "-sS", "--interface", _LINK, "-o", "/dev/null", "--retry", "5", url)
            done = await asyncio.create_subprocess_exec(*place.namespace.enter, *fetch)
            waiting = asyncio.create_task(done.wait())
            await watch.wait_for_content()
            if await waiting:
                raise SystemExit(f"curl ended with {done.returncode}")
            return watch.read(size)
        finally:
            server.kill()
            server.wait()


async def block2(case: Case, folder: Path) -> Carried:
    """Let aiocoap fetch a resource by its own block-wise transfer for a minute; what came is estimated by packets."""
    with Lab() as lab:
        place = lab.truck("arrow", {_LINK: case.profile()})
        server = subprocess.Popen([*lab.gateway.namespace.enter, sys.executable, "-c", _BLOCK2_SERVER])
        client = subprocess.Popen([*place.namespace.enter, sys.executable, "-c", _BLOCK2_CLIENT])
        try:
            watch = Stopwatch(lab, place)
            await watch.wait_for_content()
            await asyncio.sleep(_BLOCK2_S)
            carried = watch.read(1)
            packets = carried.received_bytes // _BLOCK2_DATAGRAM_BYTES
            return Carried(packets * 1_024, carried.seconds, carried.sent_bytes, carried.received_bytes)
        finally:
            for process in (client, server):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()


_BLOCK2_DATAGRAM_BYTES = 1_024 + 28 + 14
_BLOCK2_SERVER = f"""
import asyncio, os, aiocoap, aiocoap.resource as resource
class Film(resource.Resource):
    data = os.urandom(4 << 20)
    async def render_get(self, request):
        return aiocoap.Message(payload=self.data)
async def main():
    site = resource.Site()
    site.add_resource(["film"], Film())
    await aiocoap.Context.create_server_context(site, bind=({GATEWAY_ADDRESS!r}, 5683))
    await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""
_BLOCK2_CLIENT = f"""
import asyncio, aiocoap
async def main():
    await asyncio.sleep(1)
    context = await aiocoap.Context.create_client_context()
    while True:
        try:
            await context.request(aiocoap.Message(code=aiocoap.GET, uri="coap://{GATEWAY_ADDRESS}/film")).response
        except aiocoap.error.Error:
            pass
asyncio.run(main())
"""


def run(args: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit)."""
    reason = why_not()
    if reason:
        raise SystemExit(reason)
    parser = argparse.ArgumentParser(prog="goodput")
    parser.add_argument("--mb", type=float, default=3.0, help="million bytes of content (the goal is stated for 10)")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--only", choices=("ours", "bbr", "cubic", "block2"))
    chosen = parser.parse_args(list(args))
    size = int(chosen.mb * 1_000_000)
    rows = []
    for case in CASES:
        if case.name not in (chosen.case or _OF_A_RUN):
            continue
        runs = {
            "ours": lambda folder, case=case: ours(case, size, folder),
            "bbr": lambda folder, case=case: tcp(case, size, folder, "bbr"),
            "cubic": lambda folder, case=case: tcp(case, min(size, 1_000_000), folder, "cubic"),
            "block2": lambda folder, case=case: block2(case, folder),
        }
        for who, measure in runs.items():
            if chosen.only not in (None, who):
                continue
            print(f"{case.name}: {who} ...", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                carried = asyncio.run(measure(Path(folder)))
            anchor, limit = (_ANCHORS.get(case.name, ""), f">= {_GOAL} of the limit") if who == "ours" else ("", "")
            rows.append(carried.row(who, case, anchor, limit))
    return rows
