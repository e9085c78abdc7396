"""The meter against the kernel: every IP byte of every link, both ways, in the ledgers of both sides."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from gateway.demo.linkmodel import DirectionProfile, GilbertElliott, LinkProfile
from gateway.demo.server import Ports, Site
from gateway.demo.trucks import DemoTruck
from store.links import open_links
from tests.netlab.lab import GATEWAY_ADDRESS, Lab, Place
from tests.rig.fleet import Rig, until
from tests.test_end_to_end import publish, write_trace

PORTS = Ports(coap=5683, http=8080)
CONFIG = """\
data = "data"
batch_age_s = 2
patience_s = 2
retry_s_max = 2

[classroom]
listen = "0.0.0.0:8080"
local_post_from = ["0.0.0.0/0"]

[[link]]
name = "lte"
interface = "lte"
price_per_mb = 0.01

[[link]]
name = "sat"
interface = "sat"
price_per_mb = 5.0
bulk = false

[[collector]]
kind = "replay"
name = "trace"
file = "{folder}/trace.csv"
speed = 4.0
"""

LTE = DirectionProfile(
    rate_bps=2_000_000,
    queue_bytes_max=64_000,
    delay_s=0.03,
    jitter_s=0.01,
    burst_loss=GilbertElliott.of_mean(loss=0.05, burst_packets=3),
    duplication=0.05,
    reordering=0.05,
)
_SAT = DirectionProfile(rate_bps=128_000, queue_bytes_max=32_000, delay_s=0.2, loss=0.08, duplication=0.05)
LINKS: Mapping[str, LinkProfile] = {
    "lte": LinkProfile(name="lte", up=LTE, down=LTE),
    "sat": LinkProfile(name="sat", up=_SAT, down=replace(_SAT, reordering=0.05, reordering_delay_s=0.3)),
}


@dataclass(frozen=True, slots=True)
class Paid:
    """IP bytes of one link: what left and reached the truck, and what reached and left the gateway."""

    truck_sent: int
    truck_received: int
    gateway_received: int
    gateway_sent: int


def paid(lab: Lab, place: Place) -> dict[str, Paid]:
    found = {}
    for link in place.ends:
        truck, gateway = lab.counted(place, link)
        found[link] = Paid(truck.sent_bytes, truck.received_bytes, gateway.received_bytes, gateway.sent_bytes)
    return found


def booked(truck: DemoTruck) -> dict[str, int]:
    """Return the IP bytes of each link by a stopped truck's own ledger."""
    links = open_links(truck.folder / "data" / "links.db", {}, now_s=0)
    try:
        sums: Counter[str] = Counter()
        for total in links.ledger.totals():
            sums[total.link] += total.bytes_ip
        return dict(sums)
    finally:
        links.close()


async def silence(lab: Lab, place: Place) -> dict[str, Paid]:
    """Wait until nothing is on the air any more; return what the kernel has counted."""
    while True:
        before = paid(lab, place)
        await asyncio.sleep(2)
        if paid(lab, place) == before:
            return before


async def test_both_ledgers_are_the_kernel_s_counters_to_the_byte(lab: Lab, tmp_path: Path) -> None:
    place = lab.truck("arrow", LINKS)
    site = Site(GATEWAY_ADDRESS, lab.gateway.address, lab.gateway.namespace.enter)
    async with Rig(tmp_path, seed=1, ports=PORTS, site=site) as rig, aiohttp.ClientSession() as http:
        truck = DemoTruck("ke-arrow", tmp_path / "ke-arrow", {}, host=place.address, enter=place.namespace.enter)
        await rig.enrol(truck, CONFIG.format(folder=truck.folder))
        write_trace(truck.folder, first=0, rows=40)
        # Joining is not on the truck's own account: it happens once, by a person, before there is a budget.
        joined = await silence(lab, place)
        await rig.run(truck)
        await publish(rig, 1)
        for host in (3, 4, 5):
            # As a provider does it: nothing that was sent to the old address comes any more.
            place.ends["lte"].model.set_outage(True)
            await asyncio.sleep(0.5)
            lab.change_address(place, "lte", host)
            place.ends["lte"].model.set_outage(False)
            await asyncio.sleep(1)
        await until(lambda: rig.told(truck.name, "bundle.activated"), within_s=180, what="the bundle is active")
        place.ends["lte"].model.set_outage(True)
        async with http.post(f"{truck.classroom}/v1/events", json={"name": "x", "precedence": "priority"}) as response:
            assert response.status == 201

        async def all_there() -> bool:
            await truck.ask(http)
            rows = len(await rig.values(truck.name, "n"))
            return rows == 40 and truck.says is not None and truck.says.queued == 0

        await until(all_there, within_s=180, what="all is at the gateway and nothing is queued")
        counted = await silence(lab, place)
        await truck.stop()
        assert (place.namespace.icmp_bytes(), lab.gateway.namespace.icmp_bytes()) == (0, 0)
        spent = booked(truck)
        for link, now in counted.items():
            before = joined[link]
            on_the_link = now.truck_sent + now.truck_received - before.truck_sent - before.truck_received
            assert on_the_link > 0, link
            assert spent[link] == on_the_link, link
        await rig.gateway.end()
        await rig.gateway.start()
        page = await rig.client.ledger()
        seen = Counter({way: sum(each.bytes for each in page.items if each.direction == way) for way in ("up", "down")})
        assert seen["up"] == sum(each.gateway_received for each in counted.values())
        assert seen["down"] == sum(each.gateway_sent for each in counted.values())
