"""A real API on loopback over a real store: `Gateway` is what a test asks and looks into.

The documents are accepted by the real `TrustedSet`, with keys that the fixtures hold.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.api.app import make_app
from gateway.api.auth import Role, new_token, token_sha256
from gateway.api.limits import ApiLimits
from gateway.api.server import ApiServer, start_api
from gateway.api.services import Services
from gateway.telemetry import Telemetry
from protocol import cose
from protocol.documents import (
    Config,
    Manifest,
    Rollout,
)
from protocol.errors import MalformedError
from protocol.trust import TrustedSet, version_name
from store.fleet.fleet import FleetStore
from store.fleet.records import BundleRecord, DocumentRecord
from tests.gateway.fleets import NOW_MS, NOW_S, Signers, copied_fleet


class Accept:
    """The gateway's document acceptance on the real trusted set."""

    def __init__(self, fleet: FleetStore, signers: Signers) -> None:
        self._fleet = fleet
        self._trusted = TrustedSet(signers.root_document())
        self._trusted.accept_delegation(signers.delegation(), NOW_S)

    async def __call__(self, signed: bytes, actor: str) -> DocumentRecord:
        from protocol.documents import read_document  # the kind decides which check is made

        kind = read_document(cose.parse(signed).payload).document
        document = self._trusted.accept(signed, kind, NOW_S)
        to = document.addressee if isinstance(document, Config | Rollout) else None
        digest = cose.digest(signed)
        record = DocumentRecord(
            digest=digest,
            kind=kind,
            version=document.version,
            name=version_name(document),
            signed=signed,
            received_ms=NOW_MS + document.version,
            put_by=actor,
            bundle=document.name
            if isinstance(document, Manifest)
            else document.bundle
            if isinstance(document, Rollout)
            else None,
            group=None if to is None else to.group,
            trucks=() if to is None else to.trucks,
            issued_s=document.issued_s,
            expires_s=document.expires_s,
        )
        bundle = None
        if isinstance(document, Manifest):
            size = sum(file.size for file in document.files)
            bundle = BundleRecord(
                document.name, document.label, document.version, digest, document.content, document.title,
                len(document.files), size, NOW_MS, actor,
            )  # fmt: skip
        await self._fleet.put_document(record, bundle)
        return record


class FolderBlobs:
    """Blobs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, digest: bytes) -> Path:
        return self._folder / digest.hex()

    def _part(self, digest: bytes) -> Path:
        return self._folder / (digest.hex() + ".part")

    def size(self, digest: bytes) -> int | None:
        return self._path(digest).stat().st_size if self._path(digest).exists() else None

    def received(self, digest: bytes) -> int:
        return self._part(digest).stat().st_size if self._part(digest).exists() else 0

    def write(self, digest: bytes, offset: int, data: bytes) -> None:
        assert offset == self.received(digest)
        with self._part(digest).open("ab") as file:
            file.write(data)

    def finish(self, digest: bytes, size: int) -> None:
        part = self._part(digest)
        data = part.read_bytes() if part.exists() else b""
        if len(data) != size or hashlib.sha256(data).digest() != digest:
            part.unlink(missing_ok=True)
            raise MalformedError("these bytes do not have that digest")
        self._path(digest).write_bytes(data)
        part.unlink(missing_ok=True)

    def read(self, digest: bytes, offset: int, length: int) -> bytes:
        return self._path(digest).read_bytes()[offset : offset + length]


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Gateway:
    """A running API and a client for it."""

    server: ApiServer
    session: aiohttp.ClientSession
    fleet: FleetStore
    tokens: dict[Role, str]
    signers: Signers

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def headers(self, role: Role | None) -> dict[str, str]:
        return {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}

    async def ask(self, method: str, path: str, *, role: Role | None = Role.ADMIN, **kwargs: Any) -> Answer:
        headers = self.headers(role) | kwargs.pop("headers", {})
        async with self.session.request(
            method, self.base + path, headers=headers, allow_redirects=False, **kwargs
        ) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self.ask("GET", path, **kwargs)

    async def put_document(self, signed: bytes, **kwargs: Any) -> Answer:
        return await self.ask(
            "PUT", "/v1/documents", data=signed, headers={"Content-Type": "application/cose"}, **kwargs
        )


Opener = Callable[..., AbstractAsyncContextManager[Gateway]]


TOKENS = {role: new_token() for role in Role}


@pytest.fixture(scope="session")
def empty_database(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one token of each role."""

    async def fill(path: Path) -> None:
        async with copied_fleet(empty_database, path) as fleet:
            for role, token in TOKENS.items():
                await fleet.put_token(token_sha256(token), f"the-{role}", role.value, NOW_MS)

    path = tmp_path_factory.mktemp("fleet") / "tokens.db"
    asyncio.run(fill(path))
    return path


@pytest.fixture
def open_gateway(fleet: FleetStore, tmp_path: Path) -> Opener:
    """Open an API with given limits."""

    @asynccontextmanager
    async def opened(limits: ApiLimits | None = None, **services: Any) -> AsyncIterator[Gateway]:
        signers = Signers()
        limits = replace(limits or ApiLimits(), linger_s=0.1)
        blobs = tmp_path / "blobs"
        blobs.mkdir()
        given: dict[str, Any] = {
            "now_ms": lambda: NOW_MS,
            "make_code": lambda truck, secret: f"DT1-{truck}-{secret.hex()}",
            "accept_document": Accept(fleet, signers),
            "telemetry": Telemetry(fleet),
            "freshness_key": signers.gateway.public,
        }
        app = make_app(fleet, FolderBlobs(blobs), Services(**(given | services)), limits=limits)
        server = await start_api(app, "127.0.0.1", 0, limits=limits)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            try:
                yield Gateway(server, session, fleet, TOKENS, signers)
            finally:
                await session.close()
                await server.close()

    return opened


@pytest.fixture
async def gateway(open_gateway: Opener) -> AsyncIterator[Gateway]:
    """An open API with the usual limits."""
    async with open_gateway() as opened:
        yield opened
