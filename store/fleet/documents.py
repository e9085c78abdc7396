"""Signed documents, by their digest: the gateway keeps and hands on, it signs none of them.

A document's stream is its kind and `protocol.trust.version_name`; within a stream a version is given once, since trucks
refuse a second document of the same version. Bundles index the manifests among the documents.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from protocol.numbers import DocumentKind
from store.fleet import audit, rollouts
from store.fleet.database import FleetPart, Transaction
from store.fleet.errors import DocumentConflictError
from store.fleet.limits import PAGE_MAX
from store.fleet.records import AuditNote, BundleRecord, DesiredRecord, DocumentRecord, DocumentSummary
from store.fleet.tables import bundles, desired_states, document_trucks, documents

_SUMMARY: Final = [column for column in documents.c if column.name not in ("signed", "stream")]


class Documents(FleetPart):
    """Documents, and the desired state that the gateway signs for each truck."""

    async def put_document(self, document: DocumentRecord, bundle: BundleRecord | None = None) -> bool:
        """Keep a verified document, and with a manifest its bundle; return False if it is here already.

        Raise `DocumentConflictError` when another document of the stream has this version, or another manifest this
        label of the bundle.
        """
        stream = _stream(document.kind, document.name)
        async with self._database.write() as transaction:
            await self._database.lock(transaction, "documents")
            held = select(documents.c.digest).where(documents.c.digest == document.digest)
            if (await transaction.execute(held)).first() is not None:
                return False
            await _refuse_conflict(transaction, document, bundle, stream)
            values = {
                "digest": document.digest,
                "kind": int(document.kind),
                "version": document.version,
                "name": document.name,
                "bundle": document.bundle,
                "group_name": document.group,
                "issued_s": document.issued_s,
                "expires_s": document.expires_s,
                "size": len(document.signed),
                "received_ms": document.received_ms,
                "put_by": document.put_by,
                "signed": document.signed,
                "stream": stream,
            }
            await transaction.execute(insert(documents).values(values))
            addressed = [{"truck": truck, "digest": document.digest} for truck in dict.fromkeys(document.trucks)]
            if addressed:
                await transaction.execute(insert(document_trucks), addressed)
            if bundle is not None:
                row = {column.name: getattr(bundle, column.name) for column in bundles.c}
                await transaction.execute(insert(bundles).values(row))
                transaction.note("bundle", subject=f"{bundle.name}/{bundle.label}", at_ms=document.received_ms)
            if document.kind is DocumentKind.ROLLOUT:
                await rollouts.begin(transaction, document)
            kind = "config" if document.kind is DocumentKind.CONFIG else "document"
            transaction.note(kind, subject=document.digest.hex(), at_ms=document.received_ms)
            await audit.append(self._database, transaction, _entry(document))
            return True

    async def document(self, digest: bytes) -> DocumentRecord | None:
        """Return a document by its digest."""
        return await self._first(documents.c.digest == digest)

    async def documents(
        self,
        kind: DocumentKind | None = None,
        name: str | None = None,
        after: tuple[int, bytes] | None = None,
        limit: int = 100,
    ) -> list[DocumentSummary]:
        """Return documents without their bytes, newest first; `after` is (received_ms, digest) of the last one seen."""
        query = select(*_SUMMARY).order_by(documents.c.received_ms.desc(), documents.c.digest.desc())
        query = query.limit(min(limit, PAGE_MAX))
        if kind is not None:
            query = query.where(documents.c.kind == int(kind))
        if name is not None:
            query = query.where(documents.c.name == name)
        if after is not None:
            received_ms, digest = after
            same = and_(documents.c.received_ms == received_ms, documents.c.digest < digest)
            query = query.where(or_(documents.c.received_ms < received_ms, same))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            trucks = await _addressed(connection, rows)
        return [_summary(row, trucks) for row in rows]

    async def newest_document(self, kind: DocumentKind, name: str = "") -> DocumentRecord | None:
        """Return the document of the highest version of a stream."""
        return await self._first(documents.c.stream == _stream(kind, name))

    async def newest_config(self, truck: str, group: str) -> DocumentRecord | None:
        """Return the configuration that a truck should have: one that names it goes before one for its group.

        Among those the highest version counts, then the one received last.
        """
        is_config = documents.c.kind == int(DocumentKind.CONFIG)
        by_name = await self._first(and_(is_config, _names(truck)))
        return by_name or await self._first(and_(is_config, documents.c.group_name == group))

    async def set_desired(self, truck: str, digest: bytes, signed: bytes, now_ms: int) -> None:
        """Keep the desired state that the gateway signed for a truck, in the place of the one before."""
        values = {"truck": truck, "digest": digest, "signed": signed, "set_ms": now_ms}
        statement = self._database.insert(desired_states).values(values)
        fresh = {name: statement.excluded[name] for name in ("digest", "signed", "set_ms")}
        async with self._database.write() as transaction:
            await transaction.execute(statement.on_conflict_do_update(index_elements=["truck"], set_=fresh))
            transaction.note("desired", truck=truck, subject=digest.hex(), at_ms=now_ms)

    async def desired(self, truck: str) -> DesiredRecord | None:
        """Return the desired state of a truck."""
        async with self._database.read() as connection:
            query = select(desired_states).where(desired_states.c.truck == truck)
            row = (await connection.execute(query)).first()
        return None if row is None else DesiredRecord(row.truck, row.digest, row.signed, row.set_ms)

    async def _first(self, wanted: ColumnElement[bool]) -> DocumentRecord | None:
        order = (documents.c.version.desc(), documents.c.received_ms.desc())
        async with self._database.read() as connection:
            row = (await connection.execute(select(documents).where(wanted).order_by(*order).limit(1))).first()
            if row is None:
                return None
            return _record(row, await _addressed(connection, [row]))


def _entry(document: DocumentRecord) -> AuditNote:
    action = f"{document.kind.name.lower()}.put"
    detail: dict[str, str | int | None] = {"digest": document.digest.hex(), "version": document.version}
    return audit.note(document.put_by, action, document.name, document.received_ms, detail)


def _stream(kind: DocumentKind, name: str) -> bytes:
    return hashlib.sha256(f"{int(kind)} {name}".encode()).digest()


def _names(truck: str) -> ColumnElement[bool]:
    return documents.c.digest.in_(select(document_trucks.c.digest).where(document_trucks.c.truck == truck))


async def _refuse_conflict(
    transaction: Transaction, document: DocumentRecord, bundle: BundleRecord | None, stream: bytes
) -> None:
    # A manifest's label names it, not its version: an operator may go back to an older one.
    if document.kind is not DocumentKind.MANIFEST:
        same = select(documents.c.digest).where(documents.c.stream == stream, documents.c.version == document.version)
        if (await transaction.execute(same)).first() is not None:
            kind = document.kind.name.lower()
            raise DocumentConflictError(f"another {kind} already has version {document.version}: sign a higher one")
    if bundle is not None:
        labelled = select(bundles.c.manifest).where(bundles.c.name == bundle.name, bundles.c.label == bundle.label)
        if (await transaction.execute(labelled)).first() is not None:
            raise DocumentConflictError(f"{bundle.name} {bundle.label} exists with other content: choose a new label")


async def _addressed(connection: AsyncConnection, rows: Any) -> dict[bytes, tuple[str, ...]]:
    query = select(document_trucks).where(document_trucks.c.digest.in_([row.digest for row in rows]))
    found: dict[bytes, list[str]] = {}
    for row in await connection.execute(query.order_by(document_trucks.c.truck)):
        found.setdefault(row.digest, []).append(row.truck)
    return {digest: tuple(trucks) for digest, trucks in found.items()}


def _summary(row: Row[Any], trucks: dict[bytes, tuple[str, ...]]) -> DocumentSummary:
    return DocumentSummary(
        digest=row.digest,
        kind=DocumentKind(row.kind),
        version=row.version,
        name=row.name,
        bundle=row.bundle,
        group=row.group_name,
        trucks=trucks.get(row.digest, ()),
        issued_s=row.issued_s,
        expires_s=row.expires_s,
        size=row.size,
        received_ms=row.received_ms,
        put_by=row.put_by,
    )


def _record(row: Row[Any], trucks: dict[bytes, tuple[str, ...]]) -> DocumentRecord:
    return DocumentRecord(
        digest=row.digest,
        kind=DocumentKind(row.kind),
        version=row.version,
        name=row.name,
        signed=row.signed,
        received_ms=row.received_ms,
        put_by=row.put_by,
        bundle=row.bundle,
        group=row.group_name,
        trucks=trucks.get(row.digest, ()),
        issued_s=row.issued_s,
        expires_s=row.expires_s,
    )
