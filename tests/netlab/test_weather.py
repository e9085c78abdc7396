"""Both ledgers through weather from a seed: rate, delay, jitter, loss, doubles, disorder, outages and new addresses."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from gateway.demo.linkmodel import LinkProfile
from gateway.demo.linktrace import Trace, random_trace
from gateway.demo.server import Site
from gateway.demo.trucks import DemoTruck
from tests.netlab.lab import GATEWAY_ADDRESS, Lab, Place
from tests.netlab.test_meter import CONFIG, LINKS, LTE, PORTS, booked, silence
from tests.rig.fleet import Rig, until
from tests.test_end_to_end import publish, write_trace


async def move(lab: Lab, place: Place, trace: Trace) -> None:
    """Change the addresses when the trace says so; nothing is on the way to the old one, since the link is out then."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for at, host in trace.addresses:
        await asyncio.sleep(max(0.0, started + at - loop.time()))
        place.ends["lte"].model.set_outage(True)
        await asyncio.sleep(0.5)
        lab.change_address(place, "lte", host)
        place.ends["lte"].model.set_outage(False)


@pytest.mark.parametrize("seed", [3])
async def test_both_ledgers_are_the_kernel_s_counters_in_any_weather(lab: Lab, tmp_path: Path, seed: int) -> None:
    trace = random_trace(seed, seconds=60, rate_bps=2_000_000, delay_s=0.05)
    assert trace.outages_s
    assert trace.addresses
    base = replace(LTE, burst_loss=None)
    links = {"lte": LinkProfile("lte", base, base), "sat": LINKS["sat"]}
    place = lab.truck("arrow", links)
    site = Site(GATEWAY_ADDRESS, lab.gateway.address, lab.gateway.namespace.enter)
    async with Rig(tmp_path, seed=1, ports=PORTS, site=site) as rig, aiohttp.ClientSession() as http:
        truck = DemoTruck("ke-arrow", tmp_path / "ke-arrow", {}, host=place.address, enter=place.namespace.enter)
        await rig.enrol(truck, CONFIG.format(folder=truck.folder))
        write_trace(truck.folder, first=0, rows=40)
        joined = await silence(lab, place)
        lab.follow(place, "lte", trace.profile("lte", base))
        moving = asyncio.create_task(move(lab, place, trace))
        await rig.run(truck)
        await publish(rig, 1)
        await until(lambda: rig.told(truck.name, "bundle.activated"), within_s=180, what="the bundle is active")
        await moving

        async def all_there() -> bool:
            await truck.ask(http)
            rows = len(await rig.values(truck.name, "n"))
            return rows == 40 and truck.says is not None and truck.says.queued == 0

        await until(all_there, within_s=180, what="all is at the gateway and nothing is queued")
        counted = await silence(lab, place)
        await truck.stop()
        spent = booked(truck)
        for link, now in counted.items():
            before = joined[link]
            carried = now.truck_sent + now.truck_received - before.truck_sent - before.truck_received
            assert spent.get(link, 0) == carried, link
        await rig.gateway.end()
        await rig.gateway.start()
        page = await rig.client.ledger()
        seen = Counter({way: sum(each.bytes for each in page.items if each.direction == way) for way in ("up", "down")})
        assert seen["up"] == sum(each.gateway_received for each in counted.values())
        assert seen["down"] == sum(each.gateway_sent for each in counted.values())
