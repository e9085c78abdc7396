"""A fleet to test with: people's keys and what they sign, trucks and what they send, a store to put it in."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.ownkeys import OwnKeys
from protocol import batch, cose
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
from protocol.messages import Batch, Carried, Event, Parcel, Upload, seal
from protocol.numbers import DocumentKind, Outcome, ParcelKind, Precedence
from protocol.schema import Channel, Schema
from store import sealing
from store.fleet.evidence import BatchPart, EventPart, IngestItem, Part, ReceiptPart, SchemaPart
from store.fleet.fleet import FleetStore

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

    def manifest(
        self, files: dict[str, bytes], *, version: int = 1, name: str = "maths", content: str = "static"
    ) -> bytes:
        listed = tuple(
            ManifestFile(path, len(data), cose.digest(data)) for path, data in sorted(files.items(), key=lambda f: f[0])
        )
        document = Manifest(
            **self.dates(DocumentKind.MANIFEST, version), name=name, label=f"v{version}", content=content, files=listed
        )
        return self.sign(document, self.publisher)

    def rollout(self, manifest: bytes | None, *, version: int = 1, to: Addressee | None = None, **terms: Any) -> bytes:
        document = Rollout(
            **self.dates(DocumentKind.ROLLOUT, version),
            addressee=to or Addressee(("ke-arrow",)),
            bundle="maths",
            manifest=manifest,
            **terms,
        )
        return self.sign(document, self.operator)


SCHEMA = Schema((Channel("bat_v", "V", 100, 2600, 5), Channel("pv_w", "W", 1, 0, 50)), period_s=60)
EPOCH = 0xFEED_0000_0000_0001
Rows = Sequence[tuple[int, tuple[int | None, ...]]]


@dataclass
class Truck:
    """One enrolled truck; each thing that it sends takes the next sequence."""

    fleet: FleetStore
    name: str
    key: cose.SigningKey
    sequence: int = 0
    since_ms: int = NOW_MS

    async def send(self, part: Part, sealed: bytes | None = None) -> None:
        self.sequence += 1
        at_ms = self.since_ms + self.sequence
        item = IngestItem(self.name, "sat", EPOCH, self.sequence, Precedence.NORMAL, sealed or bytes(80), at_ms, part)
        (result,) = await self.fleet.ingest([item])
        assert result.committed, result

    async def register(self, schema: Schema = SCHEMA, number: int = 1) -> None:
        await self.send(SchemaPart(number, schema.digest, schema.encoded))

    async def batch(
        self,
        rows: Rows,
        *,
        schema: Schema = SCHEMA,
        number: int = 1,
        boot: int | None = None,
        body: bytes | None = None,
    ) -> None:
        payload = Batch(number, boot, batch.encode(schema, rows) if body is None else body).encode()
        parcel = Parcel(EPOCH, self.sequence + 1, Precedence.NORMAL, ParcelKind.BATCH, payload)
        times = [time * 1000 // schema.ticks_per_s for time, _ in rows]
        part = BatchPart(number, schema.digest, boot, min(times), max(times), len(rows))
        await self.send(part, seal(self.key, parcel, self.name, schema.digest))

    async def event(self, name: str, time_ms: int = NOW_MS, values_json: str = "{}", boot: int | None = None) -> None:
        await self.send(EventPart(name, time_ms, values_json, boot))

    async def receipt(
        self, kind: DocumentKind, digest: bytes, outcome: Outcome = Outcome.APPLIED, name: str = "", reason: str = ""
    ) -> None:
        await self.send(ReceiptPart(kind, digest, outcome, name, 1, reason, NOW_MS))


def truck_key(name: str) -> cose.SigningKey:
    """Return the key that the truck of this name has in every test."""
    return cose.SigningKey(cose.digest(name.encode()))


async def add_truck(fleet: FleetStore, name: str = "ke-arrow", group: str = "kenya") -> Truck:
    """Enrol a truck."""
    key = truck_key(name)
    secret = cose.digest(b"secret of " + name.encode())
    await fleet.create_enrolment(name, group, secret, NOW_MS + 1000, "a test", now_ms=NOW_MS)
    await fleet.redeem_enrolment(secret, name, key.public, b"cred-" + name.encode(), name.encode(), NOW_MS)
    return Truck(fleet, name, key)


@asynccontextmanager
async def copied_fleet(empty: Path, path: Path) -> AsyncIterator[FleetStore]:
    """Open a copy of a migrated, empty database: migrating one takes longer than most tests."""
    shutil.copy(empty, path)
    store = await FleetStore.open(f"sqlite:///{path}")
    try:
        yield store
    finally:
        await store.close()


def carried(truck: str, keys: OwnKeys, *, sequence: int = 1, names: Sequence[str] = ("door.opened",)) -> bytes:
    """Return a file as `truck` gives it to a courier: an upload of events."""
    parcels = [
        seal(
            truck_key(truck),
            Parcel(EPOCH, sequence + at, Precedence.NORMAL, ParcelKind.EVENT, Event(name, NOW_MS).encode()),
            truck,
        )
        for at, name in enumerate(names)
    ]
    upload = Upload(parcels=tuple(parcels), epoch=EPOCH)
    return bytes([1, 0]) + sealing.seal(
        keys.keys.exchange.public, Carried(truck, (upload.encode(),)).encode(), sealing.INFO_UP
    )
