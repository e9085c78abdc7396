"""A truck's stored evidence as lines (`gateway.evidence`), read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container

from gateway.evidence import Header, Key, ParcelLine, SchemaLine
from protocol.errors import PeerError
from protocol.messages import Batch, content_digest, unseal
from protocol.numbers import RUN_BATCHES_MAX, ParcelKind
from store.fleet.evidence import BatchState, ParcelKey
from store.fleet.fleet import FleetStore
from store.fleet.proof import EvidenceRecord

_PAGE = 200
Lines = list[Header | SchemaLine | ParcelLine]


async def evidence_lines(
    fleet: FleetStore, truck: str, *, since_ms: int, until_ms: int, now_ms: int
) -> AsyncIterator[Lines]:
    """Yield the header, then a truck's parcels of [since_ms, until_ms) (`FleetStore.evidence`), with their schemas.

    Batches that go on from others come with those, also if they are of before.
    """
    keys = [Key(each.signing_key.hex(), each.since_ms, each.until_ms) for each in await fleet.keys_of(truck)]
    yield [Header(truck, since_ms, until_ms, now_ms, keys)]
    told: set[bytes] = set()
    contents: dict[ParcelKey, bytes] = {}
    after = None
    while records := await fleet.evidence(truck, since_ms, until_ms, after, _PAGE):
        after = (records[-1].key.epoch, records[-1].key.sequence)
        lines: Lines = []
        for record in records:
            for each in [*await _before(fleet, record, contents), record]:
                if each.key in contents:
                    continue  # another one goes on from it
                if each.schema_digest is not None and each.schema_digest not in told:
                    told.add(each.schema_digest)
                    encoded = await fleet.schema(each.schema_digest)
                    if encoded is not None:
                        lines.append(SchemaLine(each.schema_digest.hex(), encoded))
                if each.kind is ParcelKind.BATCH:
                    contents[each.key] = content_digest(each.sealed)
                base = _base(each)
                lines.append(_line(each, None if base is None else contents.get(base)))
        yield lines


async def _before(fleet: FleetStore, record: EvidenceRecord, told: Container[ParcelKey]) -> list[EvidenceRecord]:
    """Return the batches that one goes on from, oldest first, as far as they were not told."""
    found: list[EvidenceRecord] = []
    base = _base(record)
    while base is not None and base not in told and len(found) < RUN_BATCHES_MAX:
        before = await fleet.evidence_of(base)
        if before is None:
            break
        found.insert(0, before)
        base = _base(before)
    return found


def _base(record: EvidenceRecord) -> ParcelKey | None:
    if record.kind is not ParcelKind.BATCH:
        return None
    try:
        base = Batch.decode(unseal(record.sealed).payload).base_of(record.key.epoch, record.key.sequence)
    except PeerError:
        return None  # verifying tells
    return None if base is None else ParcelKey(record.key.truck, *base)


def _line(record: EvidenceRecord, base: bytes | None) -> ParcelLine:
    return ParcelLine(
        epoch=f"{record.key.epoch:016x}",
        sequence=record.key.sequence,
        kind=record.kind.name.lower(),
        received_ms=record.received_ms,
        sealed=record.sealed,
        schema=None if record.schema_digest is None else record.schema_digest.hex(),
        was_refused=record.state is BatchState.REJECTED,
        base=None if base is None else base.hex(),
    )
