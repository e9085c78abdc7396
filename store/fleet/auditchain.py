"""The hash chain of the audit log, apart from any database: whoever downloads the entries checks it alone.

An entry's hash is SHA-256 over the 32 bytes of the hash before it (zeros for the first) and the JSON array
[id, at_ms, actor, action, subject, detail_json], written without spaces and with every character beyond ASCII escaped.
A chain cannot show that its end was cut off; whoever must know notes the head's hash elsewhere from time to time.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from store.fleet.records import AuditNote, AuditRecord

BEFORE_FIRST: Final = bytes(32)


def chained(number: int, note: AuditNote, previous: bytes) -> AuditRecord:
    """Return a note as entry `number` of the chain, after an entry whose hash is `previous`."""
    content = json.dumps(
        [number, note.at_ms, note.actor, note.action, note.subject, note.detail_json], separators=(",", ":")
    )
    return AuditRecord(
        id=number,
        at_ms=note.at_ms,
        actor=note.actor,
        action=note.action,
        subject=note.subject,
        detail_json=note.detail_json,
        previous=previous,
        hash=hashlib.sha256(previous + content.encode()).digest(),
    )


def holds(entry: AuditRecord) -> bool:
    """Return whether an entry's hash is that of its content and of the hash that it names as the one before."""
    note = AuditNote(entry.actor, entry.action, entry.subject, entry.at_ms, entry.detail_json)
    return chained(entry.id, note, entry.previous).hash == entry.hash
