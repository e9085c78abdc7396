"""How far rollouts are: the state of each, the stage that is open, and the trucks that it was released to.

A rollout itself is a signed document. What is kept here only withholds it: whoever changes a state changes when trucks
hear of a document, never what it says. Changes of state name the state that they start from, so that of two processes
one wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, insert, or_, select, update

from protocol.numbers import DocumentKind, Outcome
from store.fleet import audit
from store.fleet.database import FleetPart, Transaction
from store.fleet.records import DocumentRecord, HoldingRecord
from store.fleet.rollouttables import rollout_states, rollout_trucks
from store.fleet.tables import document_trucks, documents, holdings, trucks

_ROLLOUT: Final = documents.c.kind == int(DocumentKind.ROLLOUT)


class RolloutState(StrEnum):
    """What a rollout is doing. HALTED was stopped by its failures or its cost, ABORTED by a person, for good."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """One rollout: its state, the open stage (0: none yet), and who or what changed it last, with the reason."""

    digest: bytes
    state: RolloutState
    stage: int
    reason: str
    changed_by: str
    changed_ms: int
    quoted_bytes: int | None = None
    quoted_milli: int | None = None
    quoted_currency: str | None = None


@dataclass(frozen=True, slots=True)
class RolloutMember:
    """One truck that a rollout is for; `stage` and `released_ms` are None until it was released to it.

    `outcome` is what the truck's newest receipt about the bundle says, if it is about what this rollout wants;
    `holds` whether its newest receipt about the bundle is that a version of it was applied.
    """

    truck: str
    last_heard_ms: int | None
    stage: int | None
    released_ms: int | None
    outcome: Outcome | None
    reason: str
    receipt_ms: int | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rollout that could count for one truck, and whether it was released to it."""

    document: DocumentRecord
    state: RolloutState
    stage: int
    released: bool


class Rollouts(FleetPart):
    """States and releases."""

    async def rollout(self, digest: bytes) -> RolloutRecord | None:
        """Return how far a rollout is."""
        async with self._database.read() as connection:
            query = select(rollout_states).where(rollout_states.c.digest == digest)
            row = (await connection.execute(query)).first()
        return None if row is None else _state(row)

    async def live_rollouts(self) -> list[bytes]:
        """Return the digests of the rollouts that are running and not superseded within their stream."""
        newer, newer_state = documents.alias("newer"), rollout_states.alias("newer_state")
        superseded = (
            select(newer.c.digest)
            .join(newer_state, newer_state.c.digest == newer.c.digest)
            .where(
                newer.c.stream == documents.c.stream,
                newer.c.version > documents.c.version,
                newer_state.c.state.in_((RolloutState.RUNNING, RolloutState.PAUSED)),
            )
            .exists()
        )
        query = (
            select(documents.c.digest)
            .join(rollout_states, rollout_states.c.digest == documents.c.digest)
            .where(_ROLLOUT, rollout_states.c.state == RolloutState.RUNNING, ~superseded)
            .order_by(documents.c.received_ms, documents.c.digest)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def halted_rollouts(self) -> list[tuple[bytes, str]]:
        """Return the rollouts that have halted, each with the reason."""
        query = select(rollout_states.c.digest, rollout_states.c.reason)
        async with self._database.read() as connection:
            rows = await connection.execute(query.where(rollout_states.c.state == RolloutState.HALTED))
            return [(row.digest, row.reason) for row in rows]

    async def rollout_candidates(self, truck: str, group: str) -> dict[str, list[Candidate]]:
        """Return by bundle the rollouts that are for a truck, the one that counts first of all at the front.

        One that names the truck goes before one for its group; among those the highest version, then the newest.
        """
        named = documents.c.digest.in_(select(document_trucks.c.digest).where(document_trucks.c.truck == truck))
        released = and_(rollout_trucks.c.digest == documents.c.digest, rollout_trucks.c.truck == truck)
        query = (
            select(documents, rollout_states.c.state, rollout_states.c.stage, rollout_trucks.c.truck.label("released"))
            .join(rollout_states, rollout_states.c.digest == documents.c.digest)
            .outerjoin(rollout_trucks, released)
            .where(_ROLLOUT, or_(named, documents.c.group_name == group))
            .order_by(documents.c.bundle, documents.c.version.desc(), documents.c.received_ms.desc())
        )
        found: dict[str, list[Candidate]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(query):
                candidate = Candidate(_document(row), RolloutState(row.state), row.stage, row.released is not None)
                found.setdefault(row.bundle or "", []).append(candidate)
        for each in found.values():
            each.sort(key=lambda one: one.document.group is not None)
        return found

    async def rollout_members(
        self, digest: bytes, bundle: str, manifest: bytes | None, version: int, to: ColumnElement[bool]
    ) -> list[RolloutMember]:
        """Return the trucks of a rollout that are not revoked, by name; `to` is from `addressed` below."""
        released = and_(rollout_trucks.c.digest == digest, rollout_trucks.c.truck == trucks.c.name)
        query = (
            select(trucks.c.name, trucks.c.last_heard_ms, rollout_trucks.c.stage, rollout_trucks.c.released_ms)
            .outerjoin(rollout_trucks, released)
            .where(to, trucks.c.revoked_ms.is_(None))
            .order_by(trucks.c.name)
        )
        said = select(holdings).join(trucks, trucks.c.name == holdings.c.truck).where(to)
        about = said.where(holdings.c.name.in_((bundle, "")), holdings.c.document != int(DocumentKind.DESIRED))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            receipts: dict[str, list[Row[Any]]] = {}
            for row in await connection.execute(about):
                receipts.setdefault(row.truck, []).append(row)
        return [_member(row, receipts.get(row.name, []), digest, bundle, manifest, version) for row in rows]

    async def release(
        self, digest: bytes, *, stage: int, names: Sequence[str], now_ms: int, reason: str, opens: bool
    ) -> bool:
        """Release a running rollout to trucks; with `opens` this begins `stage`, which must be the next one.

        Return False, and do nothing, if it is not running or another process was here first.
        """
        async with self._database.write() as transaction:
            where = [rollout_states.c.digest == digest, rollout_states.c.state == RolloutState.RUNNING]
            where.append(rollout_states.c.stage == (stage - 1 if opens else stage))
            values = {"stage": stage, "reason": reason}
            if opens:
                values |= {"changed_by": audit.GATEWAY_ACTOR, "changed_ms": now_ms}
            changed = await transaction.execute(update(rollout_states).where(*where).values(values))
            if changed.rowcount == 0:
                return False
            rows = [{"digest": digest, "truck": name, "stage": stage, "released_ms": now_ms} for name in names]
            if rows:
                statement = self._database.insert(rollout_trucks).on_conflict_do_nothing()
                await transaction.execute(statement, rows)
            transaction.note("rollout", subject=digest.hex(), at_ms=now_ms)
            if opens and stage > 1:
                # The first one follows from putting the document, which has its own entry.
                detail = {"stage": stage, "trucks": len(rows)}
                entry = audit.note(audit.GATEWAY_ACTOR, "rollout.stage", digest.hex(), now_ms, detail)
                await audit.append(self._database, transaction, entry)
            return True

    async def set_rollout_state(
        self,
        digest: bytes,
        *,
        before: Sequence[RolloutState],
        after: RolloutState,
        actor: str,
        reason: str,
        now_ms: int,
    ) -> bool:
        """Change the state of a rollout that is in one of the states `before`; False if it is in none of them."""
        async with self._database.write() as transaction:
            where = rollout_states.c.digest == digest, rollout_states.c.state.in_(before)
            values = {"state": after, "reason": reason, "changed_by": actor, "changed_ms": now_ms}
            changed = await transaction.execute(update(rollout_states).where(*where).values(values))
            if changed.rowcount == 0:
                return False
            transaction.note("rollout", subject=digest.hex(), at_ms=now_ms)
            entry = audit.note(actor, f"rollout.{after}", digest.hex(), now_ms, {"reason": reason})
            await audit.append(self._database, transaction, entry)
            return True

    async def set_rollout_reason(self, digest: bytes, reason: str) -> None:
        """Note what a running rollout waits for."""
        async with self._database.write() as transaction:
            where = rollout_states.c.digest == digest, rollout_states.c.state == RolloutState.RUNNING
            await transaction.execute(update(rollout_states).where(*where).values(reason=reason))

    async def set_rollout_quote(self, digest: bytes, bytes_: int, milli: int | None, currency: str | None) -> None:
        """Note what was expected of a rollout before it began."""
        values = {"quoted_bytes": bytes_, "quoted_milli": milli, "quoted_currency": currency}
        async with self._database.write() as transaction:
            where = rollout_states.c.digest == digest, rollout_states.c.quoted_bytes.is_(None)
            await transaction.execute(update(rollout_states).where(*where).values(values))


async def begin(transaction: Transaction, document: DocumentRecord) -> None:
    """Begin a rollout whose document is put in this transaction: nothing of it is released yet."""
    values = {
        "digest": document.digest,
        "state": RolloutState.RUNNING,
        "stage": 0,
        "reason": "",
        "changed_by": document.put_by,
        "changed_ms": document.received_ms,
    }
    await transaction.execute(insert(rollout_states).values(values))


def addressed(bundle: str, group: str | None, names: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition for the trucks that a rollout is for; one by name goes before one for the group."""
    if group is None:
        return trucks.c.name.in_(names)
    named = (
        select(document_trucks.c.truck)
        .join(documents, documents.c.digest == document_trucks.c.digest)
        .join(rollout_states, rollout_states.c.digest == documents.c.digest)
        .where(_ROLLOUT, documents.c.bundle == bundle, rollout_states.c.state != RolloutState.ABORTED)
    )
    return and_(trucks.c.group_name == group, trucks.c.name.not_in(named))


def _member(
    row: Any, receipts: list[Row[Any]], digest: bytes, bundle: str, manifest: bytes | None, version: int
) -> RolloutMember:
    receipt = next((each for each in receipts if is_about(each, digest, manifest, version)), None)
    outcome = None if receipt is None else Outcome(receipt.outcome)
    failed = outcome in (Outcome.REJECTED, Outcome.ROLLED_BACK)
    if receipt is not None and failed and row.released_ms is not None and receipt.received_ms < row.released_ms:
        # It failed once before; this rollout is another try.
        receipt, outcome = None, None
    held = next((each for each in receipts if each.name == bundle and each.document == DocumentKind.MANIFEST), None)
    return RolloutMember(
        truck=row.name,
        last_heard_ms=row.last_heard_ms,
        stage=row.stage,
        released_ms=row.released_ms,
        outcome=outcome,
        reason="" if receipt is None else receipt.reason,
        receipt_ms=None if receipt is None else receipt.received_ms,
        holds=held is not None and Outcome(held.outcome) is Outcome.APPLIED,
    )


def is_about(said: HoldingRecord | Row[Any], digest: bytes, manifest: bytes | None, version: int) -> bool:
    """Return whether a truck's receipt about a bundle (or about a nameless document) is about this rollout."""
    if said.name == "":
        # The truck would not have the document itself.
        return bool(said.outcome == Outcome.REJECTED and said.digest in (digest, manifest))
    if manifest is None:
        return bool(said.document == DocumentKind.ROLLOUT and said.version == version)
    return bool(said.document == DocumentKind.MANIFEST and said.digest == manifest)


def _state(row: Row[Any]) -> RolloutRecord:
    return RolloutRecord(**{**row._mapping, "state": RolloutState(row.state)})


def _document(row: Row[Any]) -> DocumentRecord:
    return DocumentRecord(
        digest=row.digest,
        kind=DocumentKind.ROLLOUT,
        version=row.version,
        name=row.name,
        signed=row.signed,
        received_ms=row.received_ms,
        put_by=row.put_by,
        bundle=row.bundle,
        group=row.group_name,
        trucks=(),
        issued_s=row.issued_s,
        expires_s=row.expires_s,
    )
