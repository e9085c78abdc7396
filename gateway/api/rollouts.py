"""Rollouts: an operator's signed wish which trucks should have which bundle version, and how far each of them is.

A rollout is a document; its id is its digest. Who can sign one must also sign what comes after it: pausing, resuming,
aborting and rolling back need an operator's signature as much as starting does, because a truck obeys nothing else.
The gateway can do none of them by itself, so those addresses answer 501 until rollouts have stages to hold.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from aiohttp import web

from gateway.api.auth import OPERATOR, VIEWER
from gateway.api.documents import (
    DocumentShape,
    cursor_after,
    document_cursor,
    document_shape,
    kind_of,
    put_signed,
    read_stored,
)
from gateway.api.operations import COSE, Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Hex, Millis, PageQuery, Shape
from protocol.documents import Rollout
from protocol.numbers import DocumentKind, Outcome, Precedence
from store.fleet.records import DocumentRecord, HoldingRecord, TruckRecord

State = Literal["done", "waiting", "held", "rejected", "rolled-back", "superseded", "revoked", "unknown"]


class RolloutPath(Shape, frozen=True):
    """A rollout in an address: the digest of its document."""

    id: Hex


class RolloutActionPath(RolloutPath, frozen=True):
    """What to do with a rollout."""

    action: Literal["pause", "resume", "abort", "rollback"]


class RolloutShape(Shape, frozen=True):
    """A rollout; a null manifest takes the bundle away. `version` is the bundle's label where it is known."""

    id: str
    bundle: str
    manifest: str | None
    version: str | None
    precedence: str
    document: DocumentShape


class RolloutPage(Shape, frozen=True):
    """Rollouts, newest first."""

    items: list[RolloutShape]
    next: str | None


class ProgressShape(Shape, frozen=True):
    """One truck. `waiting`: no receipt yet; `superseded`: another rollout of this bundle is for it now."""

    truck: str
    state: State
    reason: str
    last_heard_ms: Millis | None
    receipt_ms: Millis | None


class RolloutDetail(RolloutShape, frozen=True):
    """A rollout with a page of its trucks."""

    items: list[ProgressShape]
    next: str | None


@operation(
    "POST",
    "/v1/rollouts",
    tag="rollouts",
    needs=OPERATOR,
    status=201,
    statuses=(200,),
    consumes=COSE,
    problems=(409, 422),
)
async def create_rollout(call: Call, body: bytes) -> DocumentShape | web.StreamResponse:
    """Start a rollout by its signed document; the digest in the answer is its id."""
    kind = await asyncio.to_thread(kind_of, body)
    if kind is not DocumentKind.ROLLOUT:
        raise Problem(422, f"a rollout is wanted here, and this is a {kind.name.lower()}; put it at /v1/documents")
    return await put_signed(call, body, kind)


@operation("GET", "/v1/rollouts", tag="rollouts", needs=VIEWER)
async def list_rollouts(call: Call, query: PageQuery) -> RolloutPage:
    """List rollouts, newest first."""
    page = await call.api.fleet.documents(
        kind=DocumentKind.ROLLOUT, after=document_cursor(query.after), limit=query.served + 1
    )
    items = []
    for summary in page[: query.served]:
        record = await call.api.fleet.document(summary.digest)
        if record is not None:
            items.append(RolloutShape(**await _rollout(call, record)))
    return RolloutPage(items=items, next=cursor_after(page[query.served - 1]) if len(page) > query.served else None)


@operation("GET", "/v1/rollouts/{id}", tag="rollouts", needs=VIEWER)
async def get_rollout(call: Call, path: RolloutPath, query: PageQuery) -> RolloutDetail:
    """Show a rollout and how far each of its trucks is, by the trucks' own signed receipts."""
    record = await call.api.fleet.document(bytes.fromhex(path.id))
    if record is None or record.kind is not DocumentKind.ROLLOUT:
        raise Problem(404, "no rollout of that id is here")
    rollout = await read_stored(record, Rollout)
    names, following = await _page_of_trucks(call, rollout, query)
    return RolloutDetail(
        **await _rollout(call, record),
        items=[await _progress(call, record, rollout, name) for name in names],
        next=following,
    )


@operation("POST", "/v1/rollouts/{id}/{action}", tag="rollouts", needs=OPERATOR, status=501, changes=False)
async def act_on_rollout(call: Call, path: RolloutActionPath) -> web.Response:
    """Not offered yet: pause, resume, abort or roll back a rollout.

    Put a newer rollout of the same bundle instead: with the manifest to go back to, or with none to take it away.
    """
    raise Problem(501, "put a newer signed rollout instead: with the manifest to go back to, or with none to end it")


async def _rollout(call: Call, record: DocumentRecord) -> dict[str, Any]:
    rollout = await read_stored(record, Rollout)
    bundle = None if rollout.manifest is None else await call.api.fleet.bundle_of_manifest(rollout.manifest)
    return {
        "id": record.digest.hex(),
        "bundle": rollout.bundle,
        "manifest": None if rollout.manifest is None else rollout.manifest.hex(),
        "version": None if bundle is None else bundle.label,
        "precedence": Precedence(rollout.precedence).name.lower(),
        "document": document_shape(record),
    }


async def _page_of_trucks(call: Call, rollout: Rollout, query: PageQuery) -> tuple[list[str], str | None]:
    if rollout.addressee.group is None:
        names = [name for name in sorted(rollout.addressee.trucks) if query.after is None or name > query.after]
    else:
        trucks = await call.api.fleet.trucks(after=query.after, limit=query.served + 1, group=rollout.addressee.group)
        names = [truck.name for truck in trucks]
    page = names[: query.served]
    return page, page[-1] if len(names) > query.served else None


async def _progress(call: Call, record: DocumentRecord, rollout: Rollout, name: str) -> ProgressShape:
    truck = await call.api.fleet.truck(name)
    held = next((each for each in await _holdings(call, truck) if each.name == rollout.bundle), None)
    return ProgressShape(
        truck=name,
        state=await _state(call, record, rollout, truck, held),
        reason="" if held is None else held.reason,
        last_heard_ms=None if truck is None else truck.last_heard_ms,
        receipt_ms=None if held is None else held.received_ms,
    )


async def _holdings(call: Call, truck: TruckRecord | None) -> list[HoldingRecord]:
    held = [] if truck is None else await call.api.fleet.holdings(truck.name)
    return [each for each in held if each.document is DocumentKind.MANIFEST]


async def _state(
    call: Call, record: DocumentRecord, rollout: Rollout, truck: TruckRecord | None, held: HoldingRecord | None
) -> State:
    if truck is None:
        return "unknown"
    if truck.revoked_ms is not None:
        return "revoked"
    newest = await call.api.fleet.rollouts_for(truck.name, truck.group)
    if any(each.bundle == rollout.bundle and each.digest != record.digest for each in newest):
        return "superseded"
    if held is None or held.digest != rollout.manifest:
        return "waiting"
    return _STATES[held.outcome]


_STATES: dict[Outcome, State] = {
    Outcome.APPLIED: "done",
    Outcome.HELD: "held",
    Outcome.REJECTED: "rejected",
    Outcome.ROLLED_BACK: "rolled-back",
}
OPERATIONS = (create_rollout, list_rollouts, get_rollout, act_on_rollout)
