"""A real gateway process, its people, and trucks behind lossy relays: what the end-to-end tests are made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.client import Client
from gateway.demo.children import environment_for
from gateway.demo.linkmodel import DirectionProfile, LinkProfile
from gateway.demo.people import GROUP, People
from gateway.demo.relay import Relay, start_relay
from gateway.demo.server import DemoGateway, Ports, Site, choose_ports
from gateway.demo.trucks import DemoTruck


def lossy(name: str, *, loss: float, delay_s: float = 0.02, rate_bps: float = 2_000_000) -> LinkProfile:
    """Return a link that loses a share of what goes either way."""
    way = DirectionProfile(rate_bps=rate_bps, queue_bytes_max=64_000, delay_s=delay_s, jitter_s=0.002, loss=loss)
    return LinkProfile(name=name, up=way, down=way)


LINKS: Mapping[str, LinkProfile] = {
    "lte": lossy("lte", loss=0.05),
    "sat": lossy("sat", loss=0.08, delay_s=0.1, rate_bps=256_000),
}


@dataclass(frozen=True)
class Carried:
    """IP bytes of one link: left the truck, reached the gateway, left the gateway, reached the truck."""

    left_truck: int
    reached_gateway: int
    left_gateway: int
    reached_truck: int

    @property
    def at_truck(self) -> int:
        """What the truck pays for."""
        return self.left_truck + self.reached_truck


def carried(relay: Relay) -> Carried:
    """Return what a relay has carried so far."""
    return Carried(
        left_truck=relay.up.offered.bytes_ip,
        reached_gateway=relay.up.delivered.bytes_ip,
        left_gateway=relay.down.offered.bytes_ip,
        reached_truck=relay.down.delivered.bytes_ip,
    )


class Rig:
    """Use as an async context manager: everything that it started ends with it."""

    def __init__(self, folder: Path, *, seed: int, ports: Ports | None = None, site: Site | None = None) -> None:
        self.folder = folder
        self.seed = seed
        self.log: list[tuple[str, str, Mapping[str, object]]] = []
        # Beside the tests' folders: byte code is compiled once for all of them.
        self.environment = environment_for(folder.parent)
        self.gateway = DemoGateway(
            folder / "gateway", ports or choose_ports(), self.environment, self.noting("gateway"), site=site
        )
        self.people = People(folder / "people")
        self.trucks: list[DemoTruck] = []
        self.client: Client

    async def __aenter__(self) -> Self:
        try:
            await self.gateway.make()
            await self.gateway.start()
            self.client = Client(self.gateway.url, self.gateway.token)
            await self.client.__aenter__()
            await self.people.found_trust(self.client)
        except BaseException:
            await self.gateway.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(each.end() for each in self.trucks), return_exceptions=True)
        await self.client.__aexit__(None, None, None)
        await self.gateway.end()

    def noting(self, who: str) -> Callable[[str, Mapping[str, object]], None]:
        return lambda event, fields: self.log.append((who, event, fields))

    def told(self, who: str, event: str) -> list[Mapping[str, object]]:
        """Return the fields of every log line of one kind."""
        return [fields for name, told, fields in self.log if (name, told) == (who, event)]

    async def truck(self, name: str, config: str, links: Mapping[str, LinkProfile] = LINKS) -> DemoTruck:
        """Start a truck's relays, write its edge.toml (`config`, then its links) and enrol it; it does not run yet.

        `config` is formatted with the address of each link's relay.
        """
        relays = {
            link: await start_relay(self.gateway.coap, profile, seed=self.seed + number)
            for number, (link, profile) in enumerate(links.items())
        }
        addresses = {link: "{}:{}".format(*relay.address) for link, relay in relays.items()}
        truck = DemoTruck(name, self.folder / name, relays)
        return await self.enrol(truck, config.format(folder=truck.folder, **addresses))

    async def enrol(self, truck: DemoTruck, config: str) -> DemoTruck:
        """Write a truck's edge.toml and have it join by a one-time code."""
        truck.folder.mkdir()
        (truck.folder / "edge.toml").write_text(config)
        self.trucks.append(truck)
        code = await self.client.enrol(truck.name, group=GROUP)
        await truck.join(code.code, self.environment, self.noting(truck.name))
        return truck

    async def run(self, truck: DemoTruck) -> None:
        """Start a truck's daemon, also again."""
        await truck.run(self.environment, self.noting(truck.name))

    async def values(self, truck: str, channel: str) -> list[float]:
        """Return all values of a channel that are at the gateway, in the order of their times."""
        found: list[float] = []
        after: str | None = None
        while True:
            page = await self.client.samples(truck, channels=[channel], since_ms=0, after=after)
            found += [value for series in page.series for value in series.v]
            after = page.next
            if after is None:
                return found


async def until(reached: Callable[[], object], *, within_s: float, what: str) -> None:
    """Wait until something is so, as seen by `reached` (which may be a coroutine function)."""
    end = time.monotonic() + within_s
    while True:
        found = reached()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.2)
