"""A real API on loopback over a real store: `Gateway` is what a test asks and looks into.

The documents are accepted by the real `TrustedSet`, with keys that the fixtures hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
from gateway.commits import GroupCommit
from gateway.config import OidcSettings
from gateway.console.app import add_console
from gateway.couriers import Couriers
from gateway.documents import Documents
from gateway.ingest import Ingest
from gateway.oidc import Identity, LoginSecrets, ProviderUnreachableError, SignInError
from gateway.ownkeys import OwnKeys, make_keys
from gateway.packs import Packs
from gateway.rollouts import Rollouts
from gateway.telemetry import Telemetry
from protocol import cose
from protocol.documents import (
    Config,
    Manifest,
    Rollout,
)
from protocol.numbers import DocumentKind, Outcome, Precedence
from protocol.trust import TrustedSet, version_name
from store.blobs import BlobStore
from store.files import publish
from store.fleet.alarms import AlarmNote
from store.fleet.fleet import FleetStore
from store.fleet.records import AuditRecord, BundleRecord, Direction, DocumentRecord, LedgerEntry
from tests.gateway.fleets import NOW_MS, NOW_S, Signers, Truck, add_truck, copied_fleet, truck_key


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
        if kind is DocumentKind.ROLLOUT:
            await rollouts_of(self._fleet).advance(digest)
        return record


def rollouts_of(fleet: FleetStore) -> Rollouts:
    """What brings rollouts on, without desired states to refresh."""

    async def refresh(names: Sequence[str]) -> None:
        return None

    return Rollouts(fleet, now_ms=lambda: NOW_MS, refresh=refresh)


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
    keys: OwnKeys
    couriers: Couriers

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

    async def log(self) -> list[AuditRecord]:
        """Return what people did, newest first: the audit log without the tokens that the fixtures made."""
        return [each for each in await self.fleet.audit_log() if each.actor != "gateway"]

    async def get(self, path: str, **kwargs: Any) -> Answer:
        return await self.ask("GET", path, **kwargs)

    async def put_document(self, signed: bytes, **kwargs: Any) -> Answer:
        return await self.ask(
            "PUT", "/v1/documents", data=signed, headers={"Content-Type": "application/cose"}, **kwargs
        )


class FakeSignIn:
    """A provider that takes the code that is the login's own nonce, and gives the role `operator`."""

    settings = OidcSettings(
        issuer="https://id.example.org",
        client_id="digitruck",
        redirect_url="http://127.0.0.1:8080/v1/session/callback",
        roles={"drivers": "operator"},
    )

    async def address(self, login: LoginSecrets) -> str:
        return f"https://id.example.org/auth?state={login.state}"

    async def redeem(self, code: str, login: LoginSecrets) -> Identity:
        if code == "unreachable":
            raise ProviderUnreachableError("the identity provider does not answer")
        if code != login.nonce:
            raise SignInError("this is not the code")
        return Identity("subject-1", "Amina <b>@example.org", "operator")


LOGIN_SECRET = "s" * 43
LOGIN = LoginSecrets.derive(LOGIN_SECRET)

Opener = Callable[..., AbstractAsyncContextManager[Gateway]]


OCTETS = {"Content-Type": "application/octet-stream"}
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


@asynccontextmanager
async def serve(
    fleet: FleetStore, folder: Path, limits: ApiLimits | None = None, **services: Any
) -> AsyncIterator[Gateway]:
    """Serve a fleet and the blobs in a folder."""
    signers = Signers()
    (folder / "keys").mkdir(exist_ok=True)
    publish(folder / "keys" / "freshness.key", signers.gateway.seed)
    make_keys(folder / "keys")
    keys = OwnKeys(folder / "keys")
    documents = Documents(fleet, keys.freshness_for, now_ms=lambda: NOW_MS)
    await documents.load()
    packs = Packs(folder / "packs", BlobStore(folder / "blobs"), fleet)
    commits = GroupCommit(fleet)
    committing = asyncio.create_task(commits.run())
    ingest = Ingest(fleet, commits, now_ms=lambda: NOW_MS)
    couriers = Couriers(fleet, documents, ingest, keys, packs, now_ms=lambda: NOW_MS, entropy=os.urandom)
    limits = replace(limits or ApiLimits(), linger_s=0.1)
    given: dict[str, Any] = {
        "now_ms": lambda: NOW_MS,
        "make_code": lambda truck, secret: f"DT1-{truck}-{secret.hex()}",
        "accept_document": Accept(fleet, signers),
        "telemetry": Telemetry(fleet),
        "freshness_key": lambda: signers.gateway.public,
        "sign_in": FakeSignIn(),
        "rollouts": rollouts_of(fleet),
        "couriers": couriers,
    }
    app = make_app(fleet, BlobStore(folder / "blobs"), Services(**(given | services)), limits=limits)
    add_console(app)
    server = await start_api(app, "127.0.0.1", 0, limits=limits)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        try:
            yield Gateway(server, session, fleet, TOKENS, signers, keys, couriers)
        finally:
            await session.close()
            await server.close()
            committing.cancel()
            await packs.close()


@pytest.fixture
def open_gateway(fleet: FleetStore, tmp_path: Path) -> Opener:
    """Open an API with given limits."""

    def opened(limits: ApiLimits | None = None, **services: Any) -> AbstractAsyncContextManager[Gateway]:
        return serve(fleet, tmp_path, limits, **services)

    return opened


@pytest.fixture
async def gateway(open_gateway: Opener) -> AsyncIterator[Gateway]:
    """An open API with the usual limits."""
    async with open_gateway() as opened:
        yield opened


FILES = {"index.html": b"<h1>maths</h1>", "one/lesson.html": b"one plus one", "two/lesson.html": b"two"}


@dataclass(frozen=True)
class World:
    """A gateway with a bit of everything in it, and the digests of what was put."""

    gateway: Gateway
    truck: Truck
    config: bytes
    manifest: bytes
    rollout: bytes
    blob: bytes


@pytest.fixture(scope="session")
def full_folder(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database and blobs with a bit of everything, made once and copied: it takes a hundred requests' time."""
    folder = tmp_path_factory.mktemp("world")

    async def fill() -> None:
        async with copied_fleet(empty_database, folder / "fleet.db") as fleet, serve(fleet, folder) as gateway:
            await _fill(gateway)

    asyncio.run(fill())
    return folder


@pytest.fixture
async def world(full_folder: Path, tmp_path: Path) -> AsyncIterator[World]:
    """One truck that sent rows, an event and receipts; its configuration, a bundle, a rollout, and a ledger."""
    shutil.copytree(full_folder / "blobs", tmp_path / "blobs")
    async with (
        copied_fleet(full_folder / "fleet.db", tmp_path / "fleet.db") as fleet,
        serve(fleet, tmp_path) as gateway,
    ):
        truck = Truck(fleet, "ke-arrow", truck_key("ke-arrow"), sequence=5)
        config, manifest, rollout = (cose.digest(each) for each in _documents(gateway.signers))
        yield World(gateway, truck, config, manifest, rollout, cose.digest(FILES["index.html"]))


def _documents(signers: Signers) -> tuple[bytes, bytes, bytes]:
    manifest = signers.manifest(FILES)
    return signers.config(), manifest, signers.rollout(cose.digest(manifest))


async def _fill(gateway: Gateway) -> None:
    signers = gateway.signers
    truck = await add_truck(gateway.fleet)
    for kind, signed in (
        (DocumentKind.ROOT, signers.root_document()),
        (DocumentKind.DELEGATION, signers.delegation()),
    ):
        digest = cose.digest(signed)
        await gateway.fleet.put_document(DocumentRecord(digest, kind, 1, "", signed, NOW_MS, "a test"))
    for signed in _documents(signers):
        assert (await gateway.put_document(signed)).status == 201
    config, manifest, _ = (cose.digest(each) for each in _documents(signers))
    blob = FILES["index.html"]
    answer = await gateway.ask("PUT", f"/v1/blobs/{cose.digest(blob).hex()}", data=blob, headers=OCTETS)
    assert answer.status == 201
    await truck.register()
    await truck.batch([(NOW_S - 120, (2600, 5)), (NOW_S - 60, (2650, None))])
    await truck.event("door.opened", values_json='{"count":2,"by":"teacher"}')
    await truck.receipt(DocumentKind.CONFIG, config)
    await truck.receipt(DocumentKind.MANIFEST, manifest, Outcome.HELD, "maths", "battery low")
    note = AlarmNote("bill.drift", "ke-arrow", "sat", "warning", "9 % more was billed than counted", "ask the provider")
    await gateway.fleet.settle_alarms("bill.", [note], NOW_MS, truck="ke-arrow")
    await gateway.fleet.ledger_add(
        [
            LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, NOW_MS, 1_000, 2),
            LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.DOWN, NOW_MS, 90, 2),
            LedgerEntry("ke-arrow", "lte", Precedence.BULK, "pack", Direction.DOWN, NOW_MS, 50_000, 40),
        ]
    )
