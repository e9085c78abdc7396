"""One truck of the demo: a data folder, two emulated links, a real edge daemon in a process of its own.

What the truck says of itself comes from its own local API, as a person beside it would ask; the structs here read only
what the demo shows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import aiohttp
import msgspec

from gateway.demo.children import Child, OnLog, start_child
from gateway.demo.linkmodel import LTE, SATELLITE, LinkProfile, OutageProfile
from gateway.demo.relay import Relay, start_relay
from protocol.errors import LocalError

_READY_S = 60.0
_JOIN_TRIES = 4
_STATUS_S = 2.0
LTE_PRICE_PER_MB, SAT_PRICE_PER_MB = 0.01, 5.0

_EDGE_TOML = """\
# A truck of the demo: two links through emulated ones, batches that close within seconds instead of hours.
data = "data"
state_mb_max = 64
content_mb_max = 256
batch_age_s = 2
patience_s = 3
retry_s_max = 2

[classroom]
listen = "127.0.0.1:0"

[[link]]
name = "lte"
gateways = ["{lte}"]
price_per_mb = {lte_price}

[[link]]
name = "sat"
gateways = ["{sat}"]
price_per_mb = {sat_price}
bulk = false

[[collector]]
kind = "host"
name = "host"
period_s = 1
"""
_PLACE_TOML = """
[[collector]]
kind = "place"
name = "home"
latitude = {latitude}
longitude = {longitude}
period_s = 60
"""
_SOLAR_TOML = """
[[collector]]
kind = "vedirect"
name = "solar"
file = "{file}"
product = "{product}"
text_dump = true
period_s = 1
"""


class LinkSays(msgspec.Struct, frozen=True):
    """One link, as the truck sees it; `usable` is None before the first contact."""

    name: str
    usable: bool | None
    spent_bytes: int
    rtt_s: float | None = None


class QueueSays(msgspec.Struct, frozen=True):
    """What of one precedence waits."""

    precedence: str
    parcels: int
    bytes: int


class VersionSays(msgspec.Struct, frozen=True):
    """A configuration or a bundle: wanted, active, and how much of it has arrived."""

    name: str
    desired: str | None
    active: str | None
    received_bytes: int = 0
    wanted_bytes: int = 0


class CollectorSays(msgspec.Struct, frozen=True):
    """How many rows a source gave since its start."""

    name: str
    rows: int


class TruckSays(msgspec.Struct, frozen=True):
    """What `GET /v1/status` of a truck answers, as far as the demo shows it."""

    truck: str
    queues: tuple[QueueSays, ...]
    links: tuple[LinkSays, ...]
    versions: tuple[VersionSays, ...]
    collectors: tuple[CollectorSays, ...]

    @property
    def queued(self) -> int:
        """Parcels that wait to be acknowledged."""
        return sum(each.parcels for each in self.queues)

    @property
    def rows(self) -> int:
        """Rows taken since the collectors were last started."""
        return sum(each.rows for each in self.collectors)

    def active(self, name: str) -> str | None:
        """Return the active version of a configuration or bundle."""
        return next((each.active for each in self.versions if each.name == name), None)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording of real solar hardware, and which product it is of."""

    file: Path
    product: str


def find_recordings() -> tuple[Recording, ...]:
    """Return the recordings that come with the package vedirect-m8; none if it is not installed."""
    found = find_spec("vedirect_m8")
    if found is None or not found.submodule_search_locations:
        return ()
    files = sorted((Path(next(iter(found.submodule_search_locations))) / "sim_data").glob("*.dump"))
    return tuple(Recording(file, "bmv" if file.stem.startswith("bmv") else "mppt") for file in files)


class DemoTruck:
    """A truck with its emulated links, whose edge.toml lies in `folder`."""

    def __init__(
        self, name: str, folder: Path, relays: Mapping[str, Relay], *, host: str = "", enter: tuple[str, ...] = ()
    ) -> None:
        """`enter` puts its processes where its links are; `host` is the address of the classroom there."""
        self.name = name
        self._host = host
        self._enter = enter
        self.folder = folder
        self.relays = dict(relays)
        self.says: TruckSays | None = None
        self.rows_before = 0
        self._classroom = ""
        self._child: Child | None = None

    @property
    def rows(self) -> int:
        """Rows that this truck has recorded since it was started."""
        return self.rows_before + (self.says.rows if self.says is not None else 0)

    @property
    def classroom(self) -> str:
        """Where the classroom's page is served, empty before the daemon runs."""
        return self._classroom

    async def join(self, code: str, environment: Mapping[str, str], on_log: OnLog) -> None:
        """Enrol with a one-time code, as `digitruck-edge join CODE`; raise `LocalError`."""
        for _ in range(_JOIN_TRIES):
            child = await self._start("join", code, environment=environment, on_log=on_log)
            try:
                if await child.wait() == 0:
                    return
            finally:
                await child.end()
        raise LocalError(f"{self.name} could not join: {child.last_words}")

    async def run(self, environment: Mapping[str, str], on_log: OnLog) -> None:
        """Start the daemon and wait until it runs."""
        self._child = await self._start("run", environment=environment, on_log=on_log)
        words = await self._child.first_words(_READY_S)
        host, port = words["classroom"]
        self._classroom = f"http://{self._host or host}:{port}"

    async def ask(self, http: aiohttp.ClientSession) -> None:
        """Ask the daemon how it does; what it said last stays when it does not answer."""
        if not self._classroom:
            return
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            async with asyncio.timeout(_STATUS_S), http.get(f"{self._classroom}/v1/status") as response:
                says = msgspec.json.decode(await response.read(), type=TruckSays)
                if self.says is not None and says.rows < self.says.rows:
                    # A new configuration starts the collectors anew, and their count with them.
                    self.rows_before += self.says.rows
                self.says = says

    async def kill(self) -> None:
        """Kill the daemon with SIGKILL; `run` starts it again."""
        if self._child is not None:
            await self._child.kill()

    async def stop(self) -> None:
        """Stop the daemon in order; its links stay."""
        if self._child is not None:
            await self._child.end()

    async def end(self) -> None:
        """Stop the daemon and the links."""
        await self.stop()
        for relay in self.relays.values():
            await relay.close()

    async def _start(self, command: str, *words: str, environment: Mapping[str, str], on_log: OnLog) -> Child:
        return await start_child(
            self.name,
            "edge",
            command,
            *words,
            "--config",
            str(self.folder / "edge.toml"),
            environment=environment,
            log=self.folder / "edge.log",
            on_log=on_log,
            enter=self._enter,
        )


async def prepare_truck(
    name: str,
    folder: Path,
    gateway: tuple[str, int],
    *,
    recording: Recording | None,
    seed: int,
    place: tuple[float, float] | None = None,
) -> DemoTruck:
    """Start a truck's two links to the gateway's CoAP address, and write its folder (which must not be there).

    `seed` decides what the links lose and when lte is out; `place` is where it stands (degrees north and east).
    """
    # Hours of a truck's life in a minute: outages are as frequent, and as much shorter.
    outages = OutageProfile(mean_up_s=90.0, mean_down_s=5.0)
    profiles: dict[str, LinkProfile] = {"lte": replace(LTE, outages=outages), "sat": SATELLITE}
    relays = {
        link: await start_relay(gateway, profile, seed=seed * 10 + number)
        for number, (link, profile) in enumerate(profiles.items())
    }
    text = _EDGE_TOML.format(
        **{link: "{}:{}".format(*relay.address) for link, relay in relays.items()},
        lte_price=LTE_PRICE_PER_MB,
        sat_price=SAT_PRICE_PER_MB,
    )
    if recording is not None:
        text += _SOLAR_TOML.format(file=recording.file, product=recording.product)
    if place is not None:
        text += _PLACE_TOML.format(latitude=place[0], longitude=place[1])
    _write_config(folder, text)
    return DemoTruck(name, folder, relays)


def _write_config(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "edge.toml").write_text(text)
