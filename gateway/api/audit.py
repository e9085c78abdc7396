"""The audit log: who changed what and when, each entry holding the hash of the one before it.

Every field that a hash covers is in the answers, so that a client walks the chain itself (`digitruck audit verify`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.api.auth import ADMIN
from gateway.api.operations import Call, operation
from gateway.api.shapes import Millis, PageQuery, Shape, number_cursor


class AuditShape(Shape, frozen=True):
    """One change.

    `hash` is SHA-256 over the 32 bytes of `previous` and the JSON array [id, at_ms, actor, action, subject,
    detail_json], without spaces and with every character beyond ASCII escaped. `detail` is what `detail_json` says.
    """

    id: int
    at_ms: Millis
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    detail_json: str
    previous: str
    hash: str


class AuditPage(Shape, frozen=True):
    """Changes, newest first."""

    items: list[AuditShape]
    next: str | None


class AuditCheckShape(Shape, frozen=True):
    """The chain was walked: `broken_at` is the first entry that does not hold, null if all do.

    Note `rows` and `head` down elsewhere: a chain cannot show by itself that its end was cut off.
    """

    rows: int
    head: str
    broken_at: int | None


@operation("GET", "/v1/audit", tag="audit", needs=ADMIN)
async def list_audit(call: Call, query: PageQuery) -> AuditPage:
    """List who changed what, newest first.

    Each entry was written in the transaction of its change.
    """
    found = await call.api.fleet.audit_log(after=number_cursor(query.after), limit=query.served + 1)
    items = [
        AuditShape(
            id=each.id,
            at_ms=each.at_ms,
            actor=each.actor,
            action=each.action,
            subject=each.subject,
            detail=msgspec.json.decode(each.detail_json, type=dict[str, Any]),
            detail_json=each.detail_json,
            previous=each.previous.hex(),
            hash=each.hash.hex(),
        )
        for each in found[: query.served]
    ]
    return AuditPage(items=items, next=str(items[-1].id) if len(found) > query.served else None)


@operation("GET", "/v1/audit/check", tag="audit", needs=ADMIN)
async def check_audit(call: Call) -> AuditCheckShape:
    """Walk the whole chain and say whether it holds."""
    check = await call.api.fleet.verify_audit()
    return AuditCheckShape(rows=check.rows, head=check.head.hex(), broken_at=check.broken_at)


OPERATIONS = (list_audit, check_audit)
