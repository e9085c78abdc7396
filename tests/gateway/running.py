"""A real gateway's HTTP side in a thread of its own, so that synchronous code can be tested against it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from gateway.api.app import make_app
from gateway.api.auth import Role, new_token, token_sha256
from gateway.api.limits import ApiLimits
from gateway.api.server import start_api
from gateway.api.services import Services, TrustState
from gateway.commits import GroupCommit
from gateway.couriers import Couriers
from gateway.documents import Documents
from gateway.ingest import Ingest
from gateway.ownkeys import OwnKeys, make_keys
from gateway.packs import Packs
from gateway.telemetry import Telemetry
from protocol import cose
from protocol.errors import LocalError
from store.blobs import BlobStore
from store.files import publish
from store.fleet.fleet import FleetStore

T = TypeVar("T")
TOKENS = {role: new_token() for role in Role}
FRESHNESS = cose.SigningKey(b"f" * 32)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class RunningGateway:
    """A gateway that listens; `run` runs a coroutine in its event loop."""

    loop: asyncio.AbstractEventLoop
    fleet: FleetStore
    blobs: BlobStore
    url: str
    documents: Documents

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=30)

    async def advance(self, rollout: str) -> None:
        """Do what the gateway's task does when it hears of a receipt; `rollout` is its id."""
        await self.documents.rollouts.advance(bytes.fromhex(rollout))


@contextlib.contextmanager
def running_gateway(database: Path, folder: Path, limits: ApiLimits | None = None) -> Iterator[RunningGateway]:
    """Run a gateway on a copy of a migrated database until the block ends. `TOKENS` sign in to it."""
    before = structlog.get_config()
    # The gateway's log is not the command's output.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway")
    thread.start()
    stack = contextlib.AsyncExitStack()

    async def start() -> RunningGateway:
        folder.mkdir()
        shutil.copy(database, folder / "fleet.db")
        fleet = await FleetStore.open(f"sqlite:///{folder / 'fleet.db'}")
        stack.push_async_callback(fleet.close)
        blobs = BlobStore(folder / "blobs")
        documents = Documents(fleet, lambda _: FRESHNESS, now_ms=now_ms)
        await documents.load()
        (folder / "keys").mkdir(exist_ok=True)
        publish(folder / "keys" / "freshness.key", FRESHNESS.seed)
        keys = make_keys(folder / "keys")
        packs = Packs(folder / "packs", blobs, fleet)
        stack.push_async_callback(packs.close)
        commits = GroupCommit(fleet)
        committing = asyncio.create_task(commits.run())
        stack.callback(committing.cancel)

        def make_code(truck: str, secret: bytes) -> str:
            if documents.root_digest is None:
                raise LocalError("this gateway has no root yet")
            return f"DT1-{truck}-{secret.hex()}".upper()

        services = Services(
            now_ms=now_ms,
            make_code=make_code,
            accept_document=documents.accept,
            telemetry=Telemetry(fleet),
            freshness_key=lambda: FRESHNESS.public,
            trust=lambda: TrustState(keys, documents.warnings(), documents.unsigned),
            is_revoked=documents.is_revoked,
            rollouts=documents.rollouts,
            couriers=Couriers(
                fleet,
                documents,
                Ingest(fleet, commits, now_ms=now_ms),
                OwnKeys(folder / "keys"),
                packs,
                now_ms=now_ms,
                entropy=os.urandom,
            ),
        )
        server = await start_api(make_app(fleet, blobs, services, limits=limits), "127.0.0.1", 0, limits=limits)
        stack.push_async_callback(server.close)
        gateway = RunningGateway(loop, fleet, blobs, f"http://127.0.0.1:{server.port}", documents)
        if not await fleet.tokens():
            for role, token in TOKENS.items():
                await fleet.put_token(token_sha256(token), f"the-{role}", role.value, now_ms())
        return gateway

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=30)
    finally:
        asyncio.run_coroutine_threadsafe(_end(stack), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        structlog.configure(**before)


async def _end(stack: contextlib.AsyncExitStack) -> None:
    """Close the gateway, and end what broken connections left running."""
    await stack.aclose()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class Cutter:
    """A proxy in front of a gateway that breaks a connection once, after so many bytes went up."""

    def __init__(self, gateway: RunningGateway, after_bytes: int) -> None:
        self._gateway = gateway
        self._left: int | None = after_bytes
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    @property
    def has_cut(self) -> bool:
        return self._left is None

    async def start(self) -> str:
        """Listen; return the URL to use instead of the gateway's."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def cut_all(self) -> None:
        """Break every connection now."""
        for transport in list(self._open):
            transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._gateway.url.removeprefix("http://").partition(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        self._open |= {writer.transport, up_writer.transport}
        down = asyncio.create_task(self._copy(up_reader, writer))
        while data := await _read(reader):
            up_writer.write(data)
            await up_writer.drain()
            if self._left is not None:
                self._left -= len(data)
                if self._left <= 0:
                    self._left = None
                    await asyncio.sleep(0.05)  # what was sent arrives before the break does
                    break
        down.cancel()
        writer.transport.abort()
        up_writer.transport.abort()
        self._open -= {writer.transport, up_writer.transport}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await _read(reader):
                writer.write(data)
                await writer.drain()
        writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(16_384)
    except ConnectionError:
        return b""
