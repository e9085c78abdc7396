"""The gateway of a simulated fleet, its lives, and the people who sign and push what the trucks should have."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from gateway.config import CoapSettings, GatewayConfig
from gateway.daemon import Gateway, make_keys
from protocol import cose
from protocol.documents import RoleKeys, Root, sign_document
from protocol.joincode import JoinCode, read_join_code
from protocol.numbers import DocumentKind
from store.blobs import BlobStore
from store.files import publish
from store.fleet.fleet import FleetStore, migrate
from store.fleet.restore import carry, check_copy, swap
from tests.gateway.fleets import NOW_MS, Signers
from tests.sim.loop import VirtualLoop, owner_of_task
from tests.sim.network import GATEWAY_ADDRESS, Network, VirtualSocket

_ADDRESS = "{}:{}".format(*GATEWAY_ADDRESS)


@cache
def empty_fleet() -> Path:
    """Return a migrated, empty fleet database, made once a process."""
    path = Path(tempfile.mkdtemp(prefix="digitruck-sim-")) / "fleet.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


class _NoApi:
    """People's side over HTTP is not part of the simulation."""

    address, port = "", 0

    async def close(self) -> None:
        """Have served nobody."""


class _SimGateway(Gateway):
    """The product's gateway without its HTTP side."""

    async def _start_api(self, *_: Any) -> None:
        self.api: Any = _NoApi()


class GatewayLife:
    """One life of the gateway's process."""

    def __init__(self, office: Office, number: int) -> None:
        self.name = "gateway"
        self.boot = number
        self.board = b""
        self.disk = None
        self._office = office
        self._from_s = office.loop.now_s - 100.0

    def monotonic(self) -> float:
        """Return seconds of this life."""
        return self._office.loop.now_s - self._from_s

    def open_socket(self, interface: str | None) -> VirtualSocket:
        """Open the one socket that trucks reach."""
        return self._office.network.open(None)


class Office:
    """The gateway's machine and the people around it."""

    def __init__(self, home: Path, loop: VirtualLoop, network: Network, seed: random.Random) -> None:
        self.loop = loop
        self.network = network
        self.random = seed
        self.signers = Signers()
        self.skew_ms = 0
        self.lives = 0
        self.gateway: Gateway | None = None
        self.restored = False
        self.carried_bytes = self.booked_bytes = 0  # by its socket, and by its ledger, in this life
        self.on_life: Callable[[str], None] = lambda what: None
        self.on_started: Callable[[], None] = lambda: None
        self._home = home
        self._life: GatewayLife | None = None
        self._cut = False
        self.folder = home / "gateway-0"
        (self.folder / "keys").mkdir(parents=True)
        publish(self.folder / "keys" / "freshness.key", self.signers.gateway.seed)
        make_keys(self.folder / "keys")
        shutil.copy(empty_fleet(), self.folder / "fleet.db")
        self.versions: dict[str, int] = {}

    def now_ms(self) -> int:
        """Return the gateway's own wall clock."""
        return NOW_MS + round(self.loop.now_s * 1000) + self.skew_ms

    async def start(self) -> None:
        """Start a life of the gateway."""
        self.lives += 1
        self.carried_bytes = self.booked_bytes = 0
        self._life = GatewayLife(self, self.lives)
        owner_of_task.set(self._life)
        config = GatewayConfig(data=str(self.folder), coap=CoapSettings(listen=_ADDRESS, public=(_ADDRESS,)))
        gateway = _SimGateway(config, self.folder, clock_ms=self.now_ms)
        await gateway.start()
        self.gateway = gateway
        self.on_life("started")
        self.on_started()

    async def stop(self) -> None:
        """Stop it as a service manager does."""
        gateway, self.gateway = self.gateway, None
        if gateway is not None:
            owner_of_task.set(self._life)
            await gateway.close()
            self.on_life("stopped")

    def cut(self) -> None:
        """Cut its power: what its database has committed stays; everything else of this life is gone."""
        if self.gateway is None or self._cut:
            return
        self._cut = True
        new = self._home / f"gateway-{self.lives}"
        shutil.copytree(self.folder, new, symlinks=True, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
        shutil.rmtree(self._home / f"gateway-{self.lives - 3}", ignore_errors=True)
        self.folder = new
        if self.network.gateway is not None:
            self.network.gateway.close()
        self.on_life("crashed")

    async def crash(self) -> None:
        """Cut its power, unless that was done, and clear away what ran."""
        self.cut()
        gateway, self.gateway = self.gateway, None
        if gateway is None:
            return
        self._cut = False
        owner_of_task.set(None)
        tasks = [each for each in self.loop.tasks.pop(self._life, []) if not each.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(gateway.context.shutdown(), return_exceptions=True)
        await asyncio.gather(gateway.fleet.close(), return_exceptions=True)

    async def backup(self) -> Path:
        """Make a backup while it runs."""
        assert self.gateway is not None
        path = self._home / f"backup-{self.loop.now_s:.0f}.db"
        await self.gateway.fleet.backup(path)
        return path

    async def restore(self, backup: Path) -> None:
        """Stop the gateway, put a backup in its database's place, and start it again."""
        self.restored = True
        await self.stop()
        path = self.folder / "fleet.db"
        part = path.with_name("fleet.db.restoring")
        shutil.copy(backup, part)
        check_copy(part)
        carry(path, part)
        swap(part, path)
        fleet = await FleetStore.open(f"sqlite:///{path}")
        await fleet.settle_restored({}, self.now_ms())
        await fleet.close()
        self.on_life("restored")
        await self.start()

    async def desired(self, truck: str) -> bytes:
        """Return the desired state of a truck."""
        assert self.gateway is not None
        found = await self.gateway.fleet.desired(truck)
        assert found is not None
        return found.signed

    async def lie(self, truck: str, signed: bytes) -> None:
        """Hand out another desired state."""
        assert self.gateway is not None
        await self.gateway.fleet.set_desired(truck, hashlib.sha256(signed).digest(), signed, self.now_ms())

    async def tell_truth(self, truck: str) -> None:
        """Hand out what the truck should have."""
        assert self.gateway is not None
        record = await self.gateway.fleet.truck(truck)
        assert record is not None
        await self.gateway.documents.refresh(record)

    # -- people --------------------------------------------------------------------------------------------------------

    async def accept(self, signed: bytes) -> bytes:
        """Push a signed document; return its digest."""
        assert self.gateway is not None
        owner_of_task.set(self._life)
        return (await self.gateway.documents.accept(signed, "an operator")).digest

    def next_version(self, name: str) -> int:
        """Return the next version of something that people sign."""
        self.versions[name] = self.versions.get(name, 0) + 1
        return self.versions[name]

    def next_root(self, key: cose.SigningKey) -> bytes:
        """Return a new root with another key of its own, signed by the old key and by the new one."""
        document = Root(
            **self.signers.dates(DocumentKind.ROOT, 2 + self.versions.get("root", 0)),
            root=RoleKeys(1, (key.public,)),
            gateway=RoleKeys(1, (self.signers.gateway.public,)),
        )
        return sign_document(document, [self.signers.root, key])

    def root_is(self, key: cose.SigningKey) -> None:
        """Sign with another root key from now on."""
        self.signers.root = key
        self.next_version("root")

    async def code(self, truck: str, group: str = "kenya") -> JoinCode:
        """Make an enrolment code."""
        assert self.gateway is not None
        owner_of_task.set(self._life)
        secret = self.random.randbytes(16)
        await self.gateway.fleet.create_enrolment(
            truck, group, hashlib.sha256(secret).digest(), self.now_ms() + 3_600_000, "x", now_ms=self.now_ms()
        )
        return read_join_code(self.gateway.join_code(truck, secret))

    def make_manifest(self, files: dict[str, bytes], *, name: str = "maths") -> bytes:
        """Bring the files of a bundle to the gateway; return its signed manifest."""
        blobs = BlobStore(self.folder / "blobs")
        for data in files.values():
            blobs.write(hashlib.sha256(data).digest(), [data])
        return self.signers.manifest(files, version=self.next_version(f"bundle {name}"), name=name)
