"""A real gateway's HTTP side in a thread of its own, so that synchronous code can be tested against it."""

from __future__ import annotations

import asyncio
import contextlib
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
from gateway.api.services import Services
from gateway.documents import Documents
from gateway.telemetry import Telemetry
from protocol import cose
from protocol.errors import LocalError
from store.blobs import BlobStore
from store.fleet.fleet import FleetStore

T = TypeVar("T")
TOKENS = {role: new_token() for role in Role}
FRESHNESS = cose.SigningKey(b"f" * 32)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Blobs(BlobStore):
    """The blob folder under the names that the API calls; `broken` makes the next writes fail after so many bytes."""

    broken: int | None = None

    def received(self, digest: bytes) -> int:
        return self.partial_size(digest)

    def write(self, digest: bytes, offset: int, data: bytes) -> None:  # type: ignore[override]
        if self.broken is not None:
            data, self.broken = data[: self.broken], None
            self.append(digest, offset, data)
            raise ConnectionResetError("the test broke this connection")
        self.append(digest, offset, data)

    def finish(self, digest: bytes, size: int) -> None:  # type: ignore[override]
        super().finish(digest)


@dataclass
class RunningGateway:
    """A gateway that listens; `run` runs a coroutine in its event loop."""

    loop: asyncio.AbstractEventLoop
    fleet: FleetStore
    blobs: Blobs
    url: str

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=30)


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
        blobs = Blobs(folder / "blobs")
        documents = Documents(fleet, FRESHNESS, now_ms=now_ms)
        await documents.load()

        def make_code(truck: str, secret: bytes) -> str:
            if documents.root_digest is None:
                raise LocalError("this gateway has no root yet")
            return f"DT1-{truck}-{secret.hex()}".upper()

        services = Services(
            now_ms=now_ms,
            make_code=make_code,
            accept_document=documents.accept,
            telemetry=Telemetry(fleet),
            freshness_key=FRESHNESS.public,
        )
        server = await start_api(make_app(fleet, blobs, services, limits=limits), "127.0.0.1", 0, limits=limits)
        stack.push_async_callback(server.close)
        gateway = RunningGateway(loop, fleet, blobs, f"http://127.0.0.1:{server.port}")
        if not await fleet.tokens():
            for role, token in TOKENS.items():
                await fleet.put_token(token_sha256(token), f"the-{role}", role.value, now_ms())
        return gateway

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=30)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        structlog.configure(**before)
