"""Signed evidence for whoever wants to verify it, and the gateway's own verdict on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from gateway.api.auth import VIEWER
from gateway.api.files import export_turn, send_file
from gateway.api.operations import Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Millis, Shape, Time, TruckPath, millis
from gateway.api.trucks import known_truck
from gateway.evidence import LineWriter, verify_lines
from gateway.proof import Lines, evidence_lines

_JSON_LINES = "application/jsonl"


class EvidenceQuery(Shape, frozen=True):
    """The period, everything if nothing is given: batches by their rows' times, all else by arrival."""

    since: Time | None = None
    until: Time | None = None


class FindingShape(Shape, frozen=True):
    """A parcel that does not verify, and why."""

    epoch: str
    sequence: int
    kind: str
    reason: str


class KeyUseShape(Shape, frozen=True):
    """How many parcels a signing key (Ed25519, hex) verified."""

    signing_key: str
    parcels: int


class VerificationShape(Shape, frozen=True):
    """What came of verifying: counts by kind of what did, and at most 1,000 of those that failed, named.

    `waiting` batches cannot be verified before their schema comes; `refused` ones did not verify when it came, and were
    never counted.
    """

    truck: str
    since_ms: Millis
    until_ms: Millis
    parcels: int
    verified: int
    waiting: int
    refused: int
    failed: int
    kinds: dict[str, int]
    schemas: int
    keys: list[KeyUseShape]
    findings: list[FindingShape]


@operation("GET", "/v1/trucks/{truck}/evidence", tag="telemetry", needs=VIEWER, media=(_JSON_LINES,), streams=True)
async def get_evidence(call: Call, path: TruckPath, query: EvidenceQuery) -> web.StreamResponse:
    """Export what a truck signed, as it signed it.

    JSON lines that `digitruck verify --file` checks without a gateway: a header with the truck's keys, schemas and
    parcels, and an end line with the SHA-256 of all lines before it.
    """
    await known_truck(call, path.truck)
    now_ms = call.api.services.now_ms()
    period = {"since_ms": millis(query.since, 0), "until_ms": millis(query.until, now_ms + 1)}
    pages = evidence_lines(call.api.fleet, path.truck, **period, now_ms=now_ms)
    async with export_turn(call):
        return await send_file(call, _written(pages), media=_JSON_LINES, name=f"{path.truck}.evidence.jsonl")


async def _written(pages: AsyncIterator[Lines]) -> AsyncIterator[bytes]:
    writer = LineWriter()
    async for lines in pages:
        yield writer.write(lines)
    yield writer.end()


@operation("GET", "/v1/trucks/{truck}/verification", tag="telemetry", needs=VIEWER)
async def get_verification(call: Call, path: TruckPath, query: EvidenceQuery) -> VerificationShape:
    """Verify a truck's evidence again, here and now: every signature, and the schema that each batch's covers.

    Who does not take the gateway's word for it exports the evidence and verifies it elsewhere.
    """
    await known_truck(call, path.truck)
    now_ms = call.api.services.now_ms()
    since_ms, until_ms = millis(query.since, 0), millis(query.until, now_ms + 1)
    if since_ms > until_ms:
        raise Problem(400, "the period ends before it begins")
    async with export_turn(call):
        found = await verify_lines(
            evidence_lines(call.api.fleet, path.truck, since_ms=since_ms, until_ms=until_ms, now_ms=now_ms)
        )
    return VerificationShape(
        truck=found.truck,
        since_ms=found.since_ms,
        until_ms=found.until_ms,
        parcels=found.parcels,
        verified=found.verified,
        waiting=found.waiting,
        refused=found.refused,
        failed=found.failed,
        kinds=found.kinds,
        schemas=found.schemas,
        keys=[KeyUseShape(signing_key=each.signing_key, parcels=each.parcels) for each in found.keys],
        findings=[
            FindingShape(epoch=each.epoch, sequence=each.sequence, kind=each.kind, reason=each.reason)
            for each in found.findings
        ],
    )


OPERATIONS = (get_evidence, get_verification)
