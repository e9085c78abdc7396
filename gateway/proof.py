"""A truck's stored evidence as lines (`gateway.evidence`), read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.evidence import Header, Key, ParcelLine, SchemaLine
from store.fleet.evidence import BatchState
from store.fleet.fleet import FleetStore
from store.fleet.proof import EvidenceRecord

_PAGE = 200
Lines = list[Header | SchemaLine | ParcelLine]


async def evidence_lines(
    fleet: FleetStore, truck: str, *, since_ms: int, until_ms: int, now_ms: int
) -> AsyncIterator[Lines]:
    """Yield the header, then a truck's parcels of [since_ms, until_ms) (`FleetStore.evidence`), with their schemas."""
    keys = [Key(each.signing_key.hex(), each.since_ms, each.until_ms) for each in await fleet.keys_of(truck)]
    yield [Header(truck, since_ms, until_ms, now_ms, keys)]
    told: set[bytes] = set()
    after = None
    while records := await fleet.evidence(truck, since_ms, until_ms, after, _PAGE):
        after = (records[-1].key.epoch, records[-1].key.sequence)
        lines: Lines = []
        for record in records:
            if record.schema_digest is not None and record.schema_digest not in told:
                told.add(record.schema_digest)
                encoded = await fleet.schema(record.schema_digest)
                if encoded is not None:
                    lines.append(SchemaLine(record.schema_digest.hex(), encoded))
            lines.append(_line(record))
        yield lines


def _line(record: EvidenceRecord) -> ParcelLine:
    return ParcelLine(
        epoch=f"{record.key.epoch:016x}",
        sequence=record.key.sequence,
        kind=record.kind.name.lower(),
        received_ms=record.received_ms,
        sealed=record.sealed,
        schema=None if record.schema_digest is None else record.schema_digest.hex(),
        was_refused=record.state is BatchState.REJECTED,
    )
