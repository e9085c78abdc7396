"""A real API on loopback over a real store: `Gateway` is what a test asks and looks into.

The documents are accepted by the real `TrustedSet`, with keys that the fixtures hold.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
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
    Addressee,
    Config,
    Delegation,
    Document,
    LinkConfig,
    Manifest,
    ManifestFile,
    OperatorRole,
    PublisherRole,
    RoleKeys,
    Rollout,
    Root,
    sign_document,
)
from protocol.errors import MalformedError
from protocol.numbers import DocumentKind
from protocol.trust import TrustedSet, version_name
from store.fleet.fleet import FleetStore, migrate
from store.fleet.records import BundleRecord, DocumentRecord

NOW_MS = 1_795_000_000_000
NOW_S = NOW_MS // 1000
EXPIRES_S = NOW_S + 365 * 86_400


@dataclass
class Signers:
    """Everybody's keys, and the documents that they sign."""

    root: cose.SigningKey = field(default_factory=lambda: cose.SigningKey(b"r" * 32))
    gateway: cose.SigningKey = field(default_factory=lambda: cose.SigningKey(b"g" * 32))
    operator: cose.SigningKey = field(default_factory=lambda: cose.SigningKey(b"o" * 32))
    publisher: cose.SigningKey = field(default_factory=lambda: cose.SigningKey(b"p" * 32))

    def dates(self, kind: DocumentKind, version: int) -> dict[str, Any]:
        return {"document": kind, "version": version, "issued_s": NOW_S, "expires_s": EXPIRES_S}

    def sign(self, document: Document, key: cose.SigningKey) -> bytes:
        return sign_document(document, [key])

    def root_document(self) -> bytes:
        keys = RoleKeys(1, (self.root.public,)), RoleKeys(1, (self.gateway.public,))
        return self.sign(Root(**self.dates(DocumentKind.ROOT, 1), root=keys[0], gateway=keys[1]), self.root)

    def delegation(self, version: int = 1) -> bytes:
        document = Delegation(
            **self.dates(DocumentKind.DELEGATION, version),
            publishers=(PublisherRole("", RoleKeys(1, (self.publisher.public,))),),
            operators=(OperatorRole("*", RoleKeys(1, (self.operator.public,))),),
        )
        return self.sign(document, self.root)

    def config(self, version: int = 1, *, trucks: tuple[str, ...] = ("ke-arrow",), **settings: Any) -> bytes:
        settings.setdefault("links", (LinkConfig("sat", 5_000_000, 100_000, 4_500_000),))
        document = Config(**self.dates(DocumentKind.CONFIG, version), addressee=Addressee(trucks), **settings)
        return self.sign(document, self.operator)

    def manifest(self, files: dict[str, bytes], *, version: int = 1, name: str = "maths") -> bytes:
        listed = tuple(
            ManifestFile(path, len(data), cose.digest(data)) for path, data in sorted(files.items(), key=lambda f: f[0])
        )
        document = Manifest(
            **self.dates(DocumentKind.MANIFEST, version), name=name, label=f"v{version}", content="static", files=listed
        )
        return self.sign(document, self.publisher)

    def rollout(self, manifest: bytes | None, *, version: int = 1, to: Addressee | None = None) -> bytes:
        document = Rollout(
            **self.dates(DocumentKind.ROLLOUT, version),
            addressee=to or Addressee(("ke-arrow",)),
            bundle="maths",
            manifest=manifest,
        )
        return self.sign(document, self.operator)


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
    headers: dict[str, str]
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
            return Answer(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self.ask("GET", path, **kwargs)

    async def put_document(self, signed: bytes, **kwargs: Any) -> Answer:
        return await self.ask(
            "PUT", "/v1/documents", data=signed, headers={"Content-Type": "application/cose"}, **kwargs
        )

    async def add_truck(self, name: str = "ke-arrow", group: str = "kenya") -> cose.SigningKey:
        key = cose.SigningKey(cose.digest(name.encode()))
        secret = cose.digest(b"secret of " + name.encode())
        await self.fleet.create_enrolment(name, group, secret, NOW_MS + 1000, "a test", now_ms=NOW_MS)
        await self.fleet.redeem_enrolment(secret, name, key.public, b"cred-" + name.encode(), name.encode(), NOW_MS)
        return key


Opener = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database that tests copy: migrating takes longer than most of them."""
    import asyncio

    path = tmp_path_factory.mktemp("fleet") / "fleet.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
async def fleet(empty_database: Path, tmp_path: Path) -> AsyncIterator[FleetStore]:
    """An empty fleet store."""
    path = tmp_path / "fleet.db"
    shutil.copy(empty_database, path)
    store = await FleetStore.open(f"sqlite:///{path}")
    yield store
    await store.close()


@pytest.fixture
def open_gateway(fleet: FleetStore, tmp_path: Path) -> Opener:
    """Open an API with given limits."""

    @asynccontextmanager
    async def opened(limits: ApiLimits | None = None, **services: Any) -> AsyncIterator[Gateway]:
        signers = Signers()
        tokens = {role: new_token() for role in Role}
        for role, token in tokens.items():
            await fleet.put_token(token_sha256(token), f"the-{role}", role.value, NOW_MS)
        blobs = tmp_path / "blobs"
        blobs.mkdir()
        given: dict[str, Any] = {
            "now_ms": lambda: NOW_MS,
            "make_code": lambda truck, secret: f"DT1-{truck}-{secret.hex()}",
            "accept_document": Accept(fleet, signers),
            "telemetry": Telemetry(fleet),
        }
        app = make_app(fleet, FolderBlobs(blobs), Services(**(given | services)), limits=limits)
        server = await start_api(app, "127.0.0.1", 0, limits=limits)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            try:
                yield Gateway(server, session, fleet, tokens, signers)
            finally:
                await session.close()
                await server.close()

    return opened


@pytest.fixture
async def gateway(open_gateway: Opener) -> AsyncIterator[Gateway]:
    """An open API with the usual limits."""
    async with open_gateway() as opened:
        yield opened
