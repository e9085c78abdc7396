"""A real gateway, a truck that joined it, and a wire between them that counts, loses and can be cut."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from edge.config import ClassroomSettings, EdgeConfig, LinkSettings
from edge.daemon import Edge
from edge.joining import join
from gateway.config import CoapSettings, GatewayConfig, HttpSettings
from gateway.daemon import Gateway, make_keys
from protocol import cose
from protocol.documents import Desired, DesiredEntry, Rollout, read_document, sign_document
from protocol.joincode import read_join_code
from protocol.numbers import DocumentKind, Precedence
from store.blobs import BlobStore
from store.errors import StoreFailedError
from store.files import publish
from store.fleet.rollouts import RolloutState
from store.parcels import ParcelState
from tests.gateway.fleets import NOW_MS, Signers

IP_AND_UDP_BYTES = 28
SECRET = b"s" * 16


async def until(condition: Callable[[], Any], *, within_s: float = 60.0) -> None:
    """Wait until something holds; fail if it does not in time. Awaitable conditions are awaited."""

    async def holds() -> bool:
        found = condition()
        return bool(await found if isinstance(found, Awaitable) else found)

    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.01)


@dataclass
class Hub:
    """A gateway in this process, on any free port, with the fleet's documents pushed."""

    folder: Path
    migrated: Path
    signers: Signers = field(default_factory=Signers)
    now_ms: int = NOW_MS
    port: int = 0
    gateway: Gateway | None = None

    async def start(self) -> None:
        if not (self.folder / "fleet.db").exists():
            (self.folder / "keys").mkdir(parents=True, exist_ok=True)
            publish(self.folder / "keys" / "freshness.key", self.signers.gateway.seed)
            make_keys(self.folder / "keys")
            shutil.copy(self.migrated, self.folder / "fleet.db")
        config = GatewayConfig(
            data=str(self.folder),
            coap=CoapSettings(listen=f"127.0.0.1:{self.port}"),
            http=HttpSettings(listen="127.0.0.1:0"),
        )
        gateway = Gateway(config, self.folder, clock_ms=lambda: self.now_ms)
        await gateway.start()
        self.gateway, self.port = gateway, gateway.context.address[1]
        if gateway.documents.root_digest is None:
            await self.accept(self.signers.root_document())
            await self.accept(self.signers.delegation())

    async def stop(self) -> None:
        gateway, self.gateway = self.gateway, None
        if gateway is not None:
            await gateway.close()

    async def accept(self, signed: bytes) -> bytes:
        assert self.gateway is not None
        digest = (await self.gateway.documents.accept(signed, "a test")).digest
        await self.told()
        return digest

    async def told(self) -> None:
        """Wait until the gateway's answers go by all that was committed."""
        assert self.gateway is not None
        newest = await self.gateway.fleet.changes.newest()
        await until(lambda: self.gateway is not None and self.gateway._change_seen >= newest)

    async def desire(self, *entries: DesiredEntry, version: int, truck: str = "ke-arrow", **changes: Any) -> bytes:
        """Put a desired state of one's own making in place of the gateway's; `key` and `about` lie about it."""
        assert self.gateway is not None
        now_s = self.now_ms // 1000
        key, about = changes.get("key", self.signers.gateway), changes.get("about", truck)
        dates = {"document": DocumentKind.DESIRED, "version": version, "issued_s": now_s, "expires_s": now_s + 1_000}
        signed = sign_document(Desired(**{**dates, "truck": about, "entries": entries}), [key])
        await self.gateway.fleet.set_desired(truck, hashlib.sha256(signed).digest(), signed, self.now_ms)
        await self.told()
        return signed

    async def entry(self, signed: bytes) -> DesiredEntry:
        """Keep a document at the gateway whatever it says; return the entry that names it."""
        assert self.gateway is not None
        document = read_document(cose.parse(signed).payload)
        if await self.gateway.fleet.document(cose.digest(signed)) is None:
            await self.gateway.fleet.put_document(self.gateway.documents._record(document, signed, "a test"), None)
            if isinstance(document, Rollout):
                # The test says what is desired: the gateway's own task is to leave it alone.
                await self.gateway.fleet.set_rollout_state(
                    cose.digest(signed),
                    before=(RolloutState.RUNNING,),
                    after=RolloutState.PAUSED,
                    actor="a test",
                    reason="",
                    now_ms=self.now_ms,
                )
        return DesiredEntry(document.kind, document.version, cose.digest(signed), len(signed))

    async def push(self, files: dict[str, bytes], *, version: int = 1, name: str = "maths") -> bytes:
        """Publish a bundle; return the digest of its manifest."""
        blobs = BlobStore(self.folder / "blobs")
        for data in files.values():
            if data:
                blobs.write(hashlib.sha256(data).digest(), [data])
        return await self.accept(self.signers.manifest(files, version=version, name=name))

    async def code(self, truck: str = "ke-arrow", group: str = "kenya", secret: bytes = SECRET) -> str:
        assert self.gateway is not None
        expires_ms = self.now_ms + 3_600_000
        await self.gateway.fleet.create_enrolment(
            truck, group, hashlib.sha256(secret).digest(), expires_ms, "a test", now_ms=self.now_ms
        )
        made = read_join_code(self.gateway.join_code(truck, secret))
        return replace(made, addresses=(f"127.0.0.1:{self.port}",)).text()

    async def events(self, truck: str = "ke-arrow") -> list[Any]:
        assert self.gateway is not None
        return list(await self.gateway.fleet.events(truck=truck, limit=1_000))

    async def names(self) -> list[str]:
        return [each.name for each in await self.events()]

    async def receipts(self, truck: str = "ke-arrow") -> list[Any]:
        assert self.gateway is not None
        return list(await self.gateway.fleet.receipts(truck, limit=1_000))


class Wire(asyncio.DatagramProtocol):
    """A UDP relay for one truck's link: counts the IP bytes of each datagram, and drops what it is told to drop."""

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.up_bytes = self.down_bytes = self.up_datagrams = 0
        self.cut = False
        self.drop: Callable[[bytes, bool], bool] = lambda data, is_up: False
        self.delay_s = 0.0
        self._far: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self._near: asyncio.DatagramTransport | None = None

    @property
    def total_bytes(self) -> int:
        return self.up_bytes + self.down_bytes

    @property
    def address(self) -> str:
        assert self._near is not None
        return "127.0.0.1:{}".format(self._near.get_extra_info("sockname")[1])

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._near, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))

    def close(self) -> None:
        for transport in [self._near, *self._far.values()]:
            if transport is not None:
                transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.up_bytes += len(data) + IP_AND_UDP_BYTES
        self.up_datagrams += 1
        if not (self.cut or self.drop(data, True)):
            asyncio.get_running_loop().call_later(self.delay_s / 2, self._forward, data, addr)

    def _forward(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr not in self._far:
            # Its own socket for each address of the truck, connected at once: the loop has it ready for writing.
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.to_port))
            asyncio.get_running_loop().add_reader(sock, self._answered, sock, addr)
            self._far[addr] = _Socket(sock)
        self._far[addr].sendto(data)

    def _answered(self, sock: socket.socket, addr: tuple[str, int]) -> None:
        try:
            data = sock.recv(65_535)
        except OSError:
            return  # the gateway is not there: nothing comes back, as on a real link
        if self.cut or self.drop(data, False):
            return
        asyncio.get_running_loop().call_later(self.delay_s / 2, self._back, data, addr)

    def _back(self, data: bytes, addr: tuple[str, int]) -> None:
        self.down_bytes += len(data) + IP_AND_UDP_BYTES
        if self._near is not None and not self._near.is_closing():
            self._near.sendto(data, addr)


class _Socket(asyncio.DatagramTransport):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock

    def sendto(self, data: Any, addr: Any = None) -> None:
        try:
            self._sock.send(data)
        except OSError:
            return

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()


@dataclass
class Rig:
    """One gateway, and trucks and wires that end with the test."""

    tmp_path: Path
    hub: Hub
    edges: dict[Edge, asyncio.Task[None]] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)

    async def wire(self) -> Wire:
        wire = Wire(self.hub.port)
        await wire.open()
        self.wires.append(wire)
        return wire

    def config(self, *links: LinkSettings, **settings: Any) -> EdgeConfig:
        gateways = (f"127.0.0.1:{self.hub.port}",)
        links = links or (LinkSettings(name="lte", gateways=gateways),)
        settings = {"batch_age_s": 3_600, "patience_s": 0, "collector": (), **settings}
        return EdgeConfig(link=links, classroom=ClassroomSettings(listen="127.0.0.1:0"), state_mb_max=16, **settings)

    async def join(self, truck: str = "ke-arrow", group: str = "kenya") -> Path:
        """Have a truck join over loopback; return its data folder."""
        data = self.tmp_path / truck
        data.mkdir()
        secret = SECRET if truck == "ke-arrow" else cose.digest(truck.encode())[:16]
        await join(read_join_code(await self.hub.code(truck, group, secret)), self.config(), data)
        return data

    async def start(self, data: Path, *links: LinkSettings, run: bool = True, **settings: Any) -> Edge:
        """Start a truck's daemon."""
        edge = Edge(self.config(*links, **settings), data, backoff_max_s=0.3)
        await edge.start()
        self.edges[edge] = asyncio.create_task(edge.run() if run else asyncio.sleep(1_000))
        return edge

    async def stop(self, edge: Edge) -> None:
        """Stop a daemon as SIGTERM does."""
        task = self.edges.pop(edge)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await edge.close()

    async def crash(self, edge: Edge) -> None:
        """Stop a daemon as a power cut does: what its databases have not committed is gone."""
        task = self.edges.pop(edge)
        # The writer's thread is held within a transaction meanwhile: a connection that is closed while another thread
        # runs a statement on it takes the whole process along.
        reached, released = threading.Event(), threading.Event()

        def hold() -> None:
            reached.set()
            released.wait(60)

        def gone() -> None:
            raise StoreFailedError("the power is gone")

        held = asyncio.ensure_future(edge.writer.run(hold))
        await asyncio.to_thread(reached.wait, 60)
        edge.state.reopen = gone  # type: ignore[method-assign]
        edge.links_store.database.crash()
        edge.state.crash()
        task.cancel()
        released.set()
        await asyncio.gather(task, held, return_exceptions=True)
        await asyncio.gather(edge.close(), return_exceptions=True)

    def failed(self, edge: Edge) -> BaseException | None:
        task = self.edges[edge]
        return task.exception() if task.done() and not task.cancelled() else None

    async def close(self) -> None:
        for edge in list(self.edges):
            await self.stop(edge)
        for wire in self.wires:
            wire.close()
        await self.hub.stop()


async def send(edge: Edge, name: str, precedence: Precedence = Precedence.PRIORITY) -> None:
    await edge.recorder.event(name, precedence)


async def arrived(rig: Rig, *names: str) -> None:
    async def all_there() -> bool:
        return set(names) <= set(await rig.hub.names())

    await until(all_there)


async def queued(edge: Edge) -> int:
    counts = await edge.writer.run(edge.queue.counts)
    return sum(each.parcels for each in counts if each.state is ParcelState.QUEUED)


async def settled(edge: Edge) -> None:
    """Wait until nothing is queued or under way any more."""

    async def empty() -> bool:
        return await queued(edge) == 0 and not edge.uplink._sends

    await until(empty)
