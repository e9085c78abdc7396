"""Weeks of queued parcels over a long, thin, lossy link: a real truck and a real gateway in namespaces.

The truck was silent and holds a queue of parcels of about 1,000 bytes; then its link is there. Goodput is bytes of
sealed parcels over the time from the first packets that carry them to the last; the kernel counts what it took. The
limit is what a perfect protocol with our datagrams could do. Needs root.

    make bench ARGS="backlog [--mb 3] [--case satellite-20 ...]"
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from edge.config import load_config
from edge.daemon import Edge
from gateway.demo.server import Site
from gateway.demo.trucks import DemoTruck
from protocol.numbers import Precedence
from tests.bench.goodput import CASES, PORTS, Carried, Case, Stopwatch
from tests.netlab.lab import GATEWAY_ADDRESS, Lab
from tests.netlab.namespaces import why_not
from tests.rig.fleet import Rig, until

NAME = "backlog"
_LINK = "sat"
_GOAL = 0.9
_WITHIN_S = 3_600.0
_OF_A_RUN = ("satellite-0", "satellite-5", "satellite-20")
# The prototype of the design, in kbit/s, and one confirmable request at a time.
_ANCHORS = {"satellite-0": "prototype 741, one CON 13", "satellite-20": "prototype 495, one CON 2.5"}
_TEXTS, _TEXT_CHARS = 4, 230
_CONFIG = """\
data = "data"
state_mb_max = 512

[classroom]
listen = "0.0.0.0:0"

[[link]]
name = "sat"
interface = "sat"
"""


async def fill(folder: Path, size: int) -> int:
    """Queue events of about `size` bytes in all, as a daemon that has no link does; return their sealed bytes."""
    edge = Edge(load_config(folder / "edge.toml"), folder / "data")
    await edge.start()
    try:
        draw = random.Random(1)
        for _ in range(size // (_TEXTS * _TEXT_CHARS)):
            values: dict[str, int | bool | str] = {
                f"t{n}": draw.randbytes(_TEXT_CHARS // 2).hex() for n in range(_TEXTS)
            }
            await edge.recorder.event("backlog", Precedence.NORMAL, values)
        counts = await edge.writer.run(edge.queue.counts)
        return sum(each.sealed_bytes for each in counts)
    finally:
        await edge.close()


async def up(case: Case, size: int, folder: Path) -> Carried:
    """Bring the backlog of a real truck up."""
    with Lab() as lab:
        place = lab.truck("arrow", {_LINK: case.profile()})
        site = Site(GATEWAY_ADDRESS, lab.gateway.address, lab.gateway.namespace.enter)
        async with Rig(folder, seed=1, ports=PORTS, site=site) as rig, aiohttp.ClientSession() as http:
            truck = DemoTruck("ke-arrow", folder / "ke-arrow", {}, host=place.address, enter=place.namespace.enter)
            await rig.enrol(truck, _CONFIG)
            useful = await fill(truck.folder, size)
            watch = Stopwatch(lab, place, upwards=True)
            waiting = asyncio.create_task(watch.wait_for_content())
            await rig.run(truck)
            await waiting

            async def is_empty() -> bool:
                await truck.ask(http)
                return truck.says is not None and truck.says.queued == 0

            await until(is_empty, within_s=_WITHIN_S, what="the queue is empty")
            return watch.read(useful)


def run(args: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit)."""
    reason = why_not()
    if reason:
        raise SystemExit(reason)
    parser = argparse.ArgumentParser(prog="backlog")
    parser.add_argument("--mb", type=float, default=3.0, help="million bytes of parcels")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    chosen = parser.parse_args(list(args))
    rows = []
    for case in CASES:
        if case.name not in (chosen.case or _OF_A_RUN):
            continue
        print(f"{case.name}: backlog ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            carried = asyncio.run(up(case, int(chosen.mb * 1_000_000), Path(folder)))
        who, measured, _, _ = carried.row("backlog up", case, "", "")
        rows.append((who.replace("goodput ", ""), measured, _ANCHORS.get(case.name, ""), f">= {_GOAL} of the limit"))
    return rows
