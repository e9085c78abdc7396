"""Rollouts: an operator's signed wish which trucks should have which bundle version, and how far each of them is.

A rollout is a document; its id is its digest. Pausing, resuming and aborting are orders to this gateway, which can only
withhold what was signed, so an operator's token is enough. Rolling back gives trucks something: it comes signed, as a
newer rollout of the older version.
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
)
from gateway.api.operations import COSE, Call, operation
from gateway.api.problem import Problem
from gateway.api.quotes import quote_of, quoting_of
from gateway.api.rolloutprogress import Progress, ProgressShape
from gateway.api.shapes import Bytes, Hex, Millis, MoneyMilli, PageQuery, Shape
from gateway.staging import stages_of
from protocol import cose
from protocol.documents import Rollout, read_document
from protocol.numbers import DocumentKind, Precedence
from store.fleet.records import DocumentRecord
from store.fleet.rollouts import RolloutState

# Of more trucks nobody waits for the sum.
_QUOTED_TRUCKS_MAX = 500


class RolloutPath(Shape, frozen=True):
    """A rollout in an address: the digest of its document."""

    id: Hex


class RolloutActionPath(RolloutPath, frozen=True):
    """What to do with a rollout."""

    action: Literal["pause", "resume", "abort"]


class RolloutShape(Shape, frozen=True):
    """A rollout; a null manifest takes the bundle away. `version` is the bundle's label where it is known.

    `stage` of `stages` (percent of the trucks that each reaches) is open, 0 before the first; `reason` says what a
    running one waits for, and why another one stopped. `quoted_*` is what was expected when it was put.
    """

    id: str
    bundle: str
    manifest: str | None
    version: str | None
    precedence: str
    state: Literal["running", "paused", "halted", "aborted"]
    stage: int
    stages: list[int]
    reason: str
    changed_by: str
    changed_ms: Millis
    stop_at_percent: int | None
    dark_after_s: int
    deadline_s: int | None
    cost_milli_max: MoneyMilli | None
    currency: str
    quoted_bytes: Bytes | None
    quoted_milli: MoneyMilli | None
    quoted_currency: str | None
    document: DocumentShape


class RolloutPage(Shape, frozen=True):
    """Rollouts, newest first."""

    items: list[RolloutShape]
    next: str | None


class RolloutDetail(RolloutShape, frozen=True):
    """A rollout with a page of its trucks, and how many of all of them are in each state."""

    counts: dict[str, int]
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
    answer = await put_signed(call, body, kind)
    await _note_quote(call, cose.digest(body))
    return answer


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
    names, following = await _page_of_trucks(call, call.api.services.rollouts.read(record), query)
    progress = await Progress.of(call, record)
    return RolloutDetail(
        **await _rollout(call, record),
        counts=await progress.counts(),
        items=[await progress.shape(name) for name in names],
        next=following,
    )


@operation("POST", "/v1/rollouts/{id}/{action}", tag="rollouts", needs=OPERATOR, problems=(404, 409))
async def act_on_rollout(call: Call, path: RolloutActionPath) -> RolloutShape:
    """Pause, resume or abort a rollout.

    Paused, no further truck hears of it, and trucks that have not finished it stop where they are; what they have
    fetched stays. Resuming goes on, also where failures or the cost had halted it. Aborted is for good: trucks that
    finished it keep it, roll back to take it from them.
    """
    record = await _known(call, path.id)
    after = _AFTER[path.action]
    if not await call.api.services.rollouts.set_state(record.digest, after, call.actor.name, ""):
        state = await call.api.fleet.rollout(record.digest)
        is_now = "unknown" if state is None else state.state.value
        raise Problem(409, f"the rollout is {is_now}: there is nothing to {path.action}")
    return RolloutShape(**await _rollout(call, record))


@operation(
    "POST",
    "/v1/rollouts/{id}/rollback",
    tag="rollouts",
    needs=OPERATOR,
    status=201,
    statuses=(200,),
    consumes=COSE,
    problems=(404, 409, 422),
)
async def roll_back(call: Call, path: RolloutPath, body: bytes) -> DocumentShape | web.StreamResponse:
    """Abort a rollout and start the one that takes it back: a newer signed one of the same bundle and trucks.

    The signed document names the manifest to go back to, or none to take the bundle away. Trucks that have the older
    version on their disks switch to it without fetching it.
    """
    record = await _known(call, path.id)
    kind = await asyncio.to_thread(kind_of, body)
    if kind is not DocumentKind.ROLLOUT:
        raise Problem(422, f"a rollout is wanted here, and this is a {kind.name.lower()}")
    before = call.api.services.rollouts.read(record)
    back = read_document(cose.parse(body).payload)
    if not isinstance(back, Rollout) or (back.bundle, back.addressee) != (before.bundle, before.addressee):
        raise Problem(422, "a rollback is a rollout of the same bundle to the same trucks")
    answer = await put_signed(call, body, kind)
    reason = f"rolled back by {cose.digest(body).hex()[:12]}"
    await call.api.services.rollouts.set_state(record.digest, RolloutState.ABORTED, call.actor.name, reason)
    return answer


_AFTER = {"pause": RolloutState.PAUSED, "resume": RolloutState.RUNNING, "abort": RolloutState.ABORTED}


async def _known(call: Call, identity: str) -> DocumentRecord:
    record = await call.api.fleet.document(bytes.fromhex(identity))
    if record is None or record.kind is not DocumentKind.ROLLOUT:
        raise Problem(404, "no rollout of that id is here")
    return record


async def _rollout(call: Call, record: DocumentRecord) -> dict[str, Any]:
    rollout = call.api.services.rollouts.read(record)
    state = await call.api.fleet.rollout(record.digest)
    if state is None:
        raise Problem(404, "no rollout of that id is here")
    bundle = None if rollout.manifest is None else await call.api.fleet.bundle_of_manifest(rollout.manifest)
    return {
        "id": record.digest.hex(),
        "bundle": rollout.bundle,
        "manifest": None if rollout.manifest is None else rollout.manifest.hex(),
        "version": None if bundle is None else bundle.label,
        "precedence": Precedence(rollout.precedence).name.lower(),
        "state": state.state.value,
        "stage": state.stage,
        "stages": list(stages_of(rollout)),
        "reason": state.reason,
        "changed_by": state.changed_by,
        "changed_ms": state.changed_ms,
        "stop_at_percent": rollout.stop_at_percent,
        "dark_after_s": rollout.dark_after_s,
        "deadline_s": rollout.deadline_s,
        "cost_milli_max": rollout.cost_milli_max,
        "currency": rollout.currency,
        "quoted_bytes": state.quoted_bytes,
        "quoted_milli": state.quoted_milli,
        "quoted_currency": state.quoted_currency,
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


async def _note_quote(call: Call, digest: bytes) -> None:
    """Note what a rollout should cost over each truck's cheapest link, to be held against what it did cost."""
    record = await call.api.fleet.document(digest)
    rollout = None if record is None else call.api.services.rollouts.read(record)
    if record is None or rollout is None or rollout.manifest is None:
        return
    members = await call.api.services.rollouts.members(record)
    if not 0 < len(members) <= _QUOTED_TRUCKS_MAX:
        return
    quoting = await quoting_of(call, rollout.manifest)
    total, money, currencies = 0, 0, set()
    for member in members:
        truck = await call.api.fleet.truck(member.truck)
        if truck is None:
            continue
        quoted = await quote_of(call, truck, quoting)
        cheapest = min(quoted.links, key=lambda each: each.money_milli, default=None)
        total += quoted.file_bytes if cheapest is None else cheapest.wire_bytes
        if cheapest is not None and cheapest.money_milli:
            money += cheapest.money_milli
            currencies.add(cheapest.currency)
    is_known = len(currencies) == 1
    await call.api.fleet.set_rollout_quote(
        digest, total, money if is_known else None, currencies.pop() if is_known else None
    )


# A fixed address before the one with a variable in its place.
OPERATIONS = (create_rollout, list_rollouts, get_rollout, roll_back, act_on_rollout)
