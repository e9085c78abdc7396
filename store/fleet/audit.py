"""The audit log: who did what, as a chain of hashes (`store.fleet.auditchain`).

Whatever changes the fleet on behalf of a person appends its entry in the transaction of the change itself, as the last
thing: there is no change without its entry and no entry without its change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row, insert, select

from store.fleet.auditchain import BEFORE_FIRST, chained, holds
from store.fleet.database import Database, FleetPart, Transaction
from store.fleet.limits import PAGE_MAX
from store.fleet.records import AuditCheck, AuditNote, AuditRecord
from store.fleet.tables import audit_log

# Who acted when nobody was signed in: the gateway's own command line.
GATEWAY_ACTOR: Final = "gateway"
_NEWEST: Final = select(audit_log.c.id, audit_log.c.hash).order_by(audit_log.c.id.desc()).limit(1)


def note(
    actor: str, action: str, subject: str, at_ms: int, detail: Mapping[str, str | int | None] | None = None
) -> AuditNote:
    """Return an entry to append; `detail` are a few plain values."""
    return AuditNote(
        actor, action, subject, at_ms, json.dumps(dict(detail or {}), sort_keys=True, separators=(",", ":"))
    )


async def append(database: Database, transaction: Transaction, entry: AuditNote) -> AuditRecord:
    """Append an entry inside the transaction of its change.

    Do it last: on PostgreSQL the chain's lock is held from here until the commit, and whoever waited for a row while
    holding it could wait for somebody who waits for the lock.
    """
    await database.lock(transaction, "audit")
    last = (await transaction.execute(_NEWEST)).first()
    record = chained(1, entry, BEFORE_FIRST) if last is None else chained(last.id + 1, entry, last.hash)
    values = {column.name: getattr(record, column.name) for column in audit_log.c}
    await transaction.execute(insert(audit_log).values(values))
    return record


class Audit(FleetPart):
    """The log of changes that people made."""

    async def audit(self, entry: AuditNote) -> AuditRecord:
        """Append an entry that belongs to no change of the database, and return it."""
        async with self._database.write() as transaction:
            return await append(self._database, transaction, entry)

    async def audit_log(self, after: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """Return entries, newest first; `after` is the id of the last one of the page before."""
        query = select(audit_log).order_by(audit_log.c.id.desc()).limit(min(limit, PAGE_MAX))
        if after is not None:
            query = query.where(audit_log.c.id < after)
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def newest_audit(self, *actions: str) -> AuditRecord | None:
        """Return the newest entry of any of these actions."""
        query = select(audit_log).where(audit_log.c.action.in_(actions)).order_by(audit_log.c.id.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else _record(row)

    async def verify_audit(self) -> AuditCheck:
        """Walk the whole chain and say where it breaks, if it does."""
        rows, head = 0, BEFORE_FIRST
        while True:
            query = select(audit_log).where(audit_log.c.id > rows).order_by(audit_log.c.id).limit(PAGE_MAX)
            async with self._database.read() as connection:
                page = [_record(row) for row in await connection.execute(query)]
            for entry in page:
                if entry.id != rows + 1 or entry.previous != head or not holds(entry):
                    return AuditCheck(rows, head, entry.id)
                rows, head = entry.id, entry.hash
            if not page:
                return AuditCheck(rows, head, None)


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
