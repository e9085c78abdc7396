"""The audit log: who did what, as a chain of hashes. Changing or removing a row breaks the chain from there on.

A chain cannot show that its tail was cut off; whoever must know notes the head's hash elsewhere from time to time.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from sqlalchemy import Row, insert, select

from store.fleet.database import FleetPart
from store.fleet.limits import PAGE_MAX
from store.fleet.records import AuditCheck, AuditRecord
from store.fleet.tables import audit_log

_BEFORE_FIRST: Final = bytes(32)


class Audit(FleetPart):
    """The log of changes that people made."""

    async def audit(self, actor: str, action: str, subject: str, detail_json: str, now_ms: int) -> AuditRecord:
        """Append an entry and return it."""
        newest = select(audit_log.c.id, audit_log.c.hash).order_by(audit_log.c.id.desc()).limit(1)
        async with self._database.write() as transaction:
            await self._database.lock(transaction, "audit")
            last = (await transaction.execute(newest)).first()
            number, previous = (1, _BEFORE_FIRST) if last is None else (last.id + 1, last.hash)
            hashed = _hash(number, now_ms, actor, action, subject, detail_json, previous)
            record = AuditRecord(number, now_ms, actor, action, subject, detail_json, previous, hashed)
            await transaction.execute(
                insert(audit_log).values(
                    id=number,
                    at_ms=now_ms,
                    actor=actor,
                    action=action,
                    subject=subject,
                    detail_json=detail_json,
                    previous=previous,
                    hash=hashed,
                )
            )
        return record

    async def audit_log(self, after: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """Return entries, newest first; `after` is the id of the last one of the page before."""
        query = select(audit_log).order_by(audit_log.c.id.desc()).limit(min(limit, PAGE_MAX))
        if after is not None:
            query = query.where(audit_log.c.id < after)
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def verify_audit(self) -> AuditCheck:
        """Walk the whole chain and say where it breaks, if it does."""
        rows, head = 0, _BEFORE_FIRST
        while True:
            query = select(audit_log).where(audit_log.c.id > rows).order_by(audit_log.c.id).limit(PAGE_MAX)
            async with self._database.read() as connection:
                page = [_record(row) for row in await connection.execute(query)]
            for entry in page:
                hashed = _hash(entry.id, entry.at_ms, entry.actor, entry.action, entry.subject, entry.detail_json, head)
                if entry.id != rows + 1 or entry.previous != head or entry.hash != hashed:
                    return AuditCheck(rows, head, entry.id)
                rows, head = entry.id, entry.hash
            if not page:
                return AuditCheck(rows, head, None)


def _hash(number: int, at_ms: int, actor: str, action: str, subject: str, detail_json: str, previous: bytes) -> bytes:
    content = json.dumps([number, at_ms, actor, action, subject, detail_json], separators=(",", ":"))
    return hashlib.sha256(previous + content.encode()).digest()


def _record(row: Row[Any]) -> AuditRecord:
    return AuditRecord(
        id=row.id,
        at_ms=row.at_ms,
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        detail_json=row.detail_json,
        previous=row.previous,
        hash=row.hash,
    )
