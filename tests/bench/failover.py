"""How long a truck is without a link when its best one goes: a real truck and a real gateway in namespaces.

The truck has 4G and a satellite link. An urgent event is recorded every 0.2 s. Then the 4G's device goes down, which
the kernel tells (`carrier`), or its link carries nothing any more, which nobody tells (`silence`). The figure is how
much longer than usual an event that was recorded around that instant takes until the gateway has it.
Needs root.

    make bench ARGS="failover [--runs 3]"
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from gateway.demo.linkmodel import DirectionProfile, LinkProfile
from gateway.demo.server import Site
from gateway.demo.trucks import DemoTruck
from tests.bench.goodput import PORTS
from tests.netlab.lab import GATEWAY_ADDRESS, Lab, Place
from tests.netlab.namespaces import why_not
from tests.rig.fleet import Rig, until

NAME = "failover"
_GOAL_S = 3.0
_EVERY_S = 0.2
_BEFORE, _AFTER = 10, 40
_CONFIG = """\
data = "data"
patience_s = 2
batch_age_s = 600

[classroom]
listen = "0.0.0.0:8080"

[[link]]
name = "lte"
interface = "lte"
price_per_mb = 0.01

[[link]]
name = "sat"
interface = "sat"
price_per_mb = 5.0
"""


def _profile(name: str, rate_bps: int, delay_s: float) -> LinkProfile:
    way = DirectionProfile(rate_bps=rate_bps, queue_bytes_max=max(16_000, rate_bps // 8), delay_s=delay_s)
    return LinkProfile(name=name, up=way, down=way)


LINKS = {"lte": _profile("lte", 2_000_000, 0.04), "sat": _profile("sat", 64_000, 0.3)}


async def events_seen(rig: Rig, truck: str) -> set[int]:
    """Return the numbers of the events that the gateway has."""
    return {int(each.values["n"]) for each in await rig.client.events(truck) if each.name == "beat"}


async def measure(rig: Rig, truck: DemoTruck, lab: Lab, place: Place, how: str) -> tuple[float, int]:
    """Return the longest wait of an event in seconds, less the usual one, and how many were lost."""
    recorded: dict[int, float] = {}
    arrived: dict[int, float] = {}

    async def watch() -> None:
        while len(arrived) < _BEFORE + _AFTER:
            for number in await events_seen(rig, truck.name):
                arrived.setdefault(number, time.monotonic())
            await asyncio.sleep(0.05)

    async with aiohttp.ClientSession() as http:
        watching = asyncio.create_task(watch())
        for number in range(_BEFORE + _AFTER):
            if number == _BEFORE:
                if how == "carrier":
                    place.namespace.ip("link", "set", "dev", "lte", "down")
                else:
                    place.ends["lte"].model.set_outage(True)
            recorded[number] = time.monotonic()
            body = {"name": "beat", "precedence": "priority", "values": {"n": number}}
            async with http.post(f"{truck.classroom}/v1/events", json=body) as answer:
                answer.raise_for_status()
            await asyncio.sleep(max(0.0, recorded[number] + _EVERY_S - time.monotonic()))
        try:
            async with asyncio.timeout(60):
                await watching
        except TimeoutError:
            watching.cancel()
    waits = {number: at - recorded[number] for number, at in arrived.items()}
    usual = statistics.median(waits[number] for number in waits if number >= _BEFORE + _AFTER // 2)
    around = max(wait for number, wait in waits.items() if number >= _BEFORE - 2)
    return around - usual, len(recorded) - len(arrived)


async def once(how: str, folder: Path) -> tuple[float, int]:
    """Run one fail-over."""
    with Lab() as lab:
        place = lab.truck("arrow", LINKS)
        site = Site(GATEWAY_ADDRESS, lab.gateway.address, lab.gateway.namespace.enter)
        async with Rig(folder, seed=1, ports=PORTS, site=site) as rig:
            config = _CONFIG.replace('listen = "0.0.0.0:8080"', f'listen = "{place.address}:8080"')
            config = config.replace("[[link]]", 'local_post_from = ["198.18.0.0/15"]\n\n[[link]]', 1)
            truck = DemoTruck("ke-arrow", folder / "ke-arrow", {}, host=place.address, enter=place.namespace.enter)
            await rig.enrol(truck, config)
            await rig.run(truck)
            await until(lambda: rig.told(truck.name, "clock.synced"), within_s=60, what="the truck is in contact")
            return await measure(rig, truck, lab, place, how)


def run(args: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """Return (figure, measured, anchor, limit)."""
    reason = why_not()
    if reason:
        raise SystemExit(reason)
    parser = argparse.ArgumentParser(prog="failover")
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args(list(args))
    rows = []
    for how in ("carrier", "silence"):
        found = []
        for number in range(chosen.runs):
            print(f"failover, {how}: {number + 1} of {chosen.runs} ...", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                found.append(asyncio.run(once(how, Path(folder))))
        waits = sorted(wait for wait, _ in found)
        lost = sum(count for _, count in found)
        measured = f"{statistics.median(waits):.1f} s (at most {waits[-1]:.1f} s), {lost} events lost"
        rows.append((f"fail-over from 4G to satellite, {how}", measured, "", f"< {_GOAL_S:.0f} s, 0 lost"))
    return rows
