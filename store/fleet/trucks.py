"""Trucks: who is enrolled, when each was last heard, and what each last said that it holds.

Trucks come in only through an enrolment (`store.fleet.enrolments`) and never go: a revoked one keeps its history.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, Select, and_, delete, select, update

from protocol.numbers import DocumentKind, Outcome
from store.fleet import audit
from store.fleet.database import Executes, FleetPart, Transaction
from store.fleet.errors import UnknownTruckError
from store.fleet.limits import PAGE_MAX
from store.fleet.openepochs import report_of
from store.fleet.records import HoldingRecord, TruckKeyRecord, TruckRecord
from store.fleet.tables import contexts, desired_states, enrolments, holdings, truck_keys, trucks


def _trucks() -> Select[Any]:
    reported = and_(
        holdings.c.truck == trucks.c.name, holdings.c.document == int(DocumentKind.DESIRED), holdings.c.name == ""
    )
    return (
        select(trucks, desired_states.c.digest.label("desired_digest"), holdings.c.digest.label("desired_reported"))
        .outerjoin(desired_states, desired_states.c.truck == trucks.c.name)
        .outerjoin(holdings, reported)
    )


_TRUCKS = _trucks()


def _record(row: Row[Any]) -> TruckRecord:
    return TruckRecord(
        name=row.name,
        group=row.group_name,
        signing_key=row.signing_key,
        credential=row.credential,
        kid_cred=row.kid_cred,
        enrolled_ms=row.enrolled_ms,
        revoked_ms=row.revoked_ms,
        last_heard_ms=row.last_heard_ms,
        last_link=row.last_link,
        last_address=row.last_address,
        desired_digest=row.desired_digest,
        desired_reported=row.desired_reported,
        status_json=row.status_json,
        status_ms=row.status_ms,
    )


async def read_truck(connection: Executes, name: str) -> TruckRecord | None:
    """Return a truck as this connection sees it."""
    row = (await connection.execute(_TRUCKS.where(trucks.c.name == name))).first()
    return None if row is None else _record(row)


class Trucks(FleetPart):
    """Trucks by name."""

    async def truck(self, name: str) -> TruckRecord | None:
        """Return a truck, also a revoked one; None if there never was one of this name."""
        async with self._database.read() as connection:
            return await read_truck(connection, name)

    async def truck_by_kid_cred(self, kid_cred: bytes) -> TruckRecord | None:
        """Return the truck whose EDHOC credential has this key id."""
        async with self._database.read() as connection:
            row = (await connection.execute(_TRUCKS.where(trucks.c.kid_cred == kid_cred))).first()
        return None if row is None else _record(row)

    async def trucks(self, after: str | None = None, limit: int = 100, group: str | None = None) -> list[TruckRecord]:
        """Return trucks by name, those after `after`; revoked ones too."""
        query = _TRUCKS.order_by(trucks.c.name).limit(min(limit, PAGE_MAX))
        if after is not None:
            query = query.where(trucks.c.name > after)
        if group is not None:
            query = query.where(trucks.c.group_name == group)
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def revoke_truck(self, name: str, now_ms: int, *, revoked_by: str = audit.GATEWAY_ACTOR) -> bool:
        """Cut a truck off: its contexts and unused codes go at once. False if it is unknown or cut off already."""
        async with self._database.write() as transaction:
            revoked = await transaction.execute(
                update(trucks).where(trucks.c.name == name, trucks.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
            )
            if revoked.rowcount == 0:
                return False
            await transaction.execute(delete(contexts).where(contexts.c.truck == name))
            await transaction.execute(
                delete(enrolments).where(enrolments.c.truck == name, enrolments.c.redeemed_ms.is_(None))
            )
            transaction.note("revoked", truck=name, at_ms=now_ms)
            await audit.append(self._database, transaction, audit.note(revoked_by, "truck.revoked", name, now_ms))
            return True

    async def heard(self, name: str, link: str, now_ms: int, address: str | None = None) -> None:
        """Note that a truck was heard over a link, from an address; raise `UnknownTruckError`."""
        values = {"last_heard_ms": now_ms, "last_link": link, "last_address": address}
        async with self._database.write() as transaction:
            await _update(transaction, name, values)
            transaction.note("heard", truck=name, subject=link, at_ms=now_ms)

    async def set_status(self, name: str, status_json: str, now_ms: int) -> None:
        """Keep what a truck says of its own state (queues, links); raise `UnknownTruckError`."""
        async with self._database.write() as transaction:
            await _update(transaction, name, {"status_json": status_json, "status_ms": now_ms})
            transaction.note("status", truck=name, at_ms=now_ms)

    async def keys_of(self, truck: str) -> list[TruckKeyRecord]:
        """Return every key that a truck has had, oldest first: old evidence verifies under old keys."""
        query = select(truck_keys).where(truck_keys.c.truck == truck).order_by(truck_keys.c.id)
        async with self._database.read() as connection:
            return [
                TruckKeyRecord(row.truck, row.signing_key, row.credential, row.since_ms, row.until_ms)
                for row in await connection.execute(query)
            ]

    async def forget_report(self, truck: str) -> None:
        """Forget which desired state a truck reported: of two computers that are it, one may never have heard of it."""
        async with self._database.write() as connection:
            await connection.execute(report_of([truck]))

    async def holdings(self, truck: str) -> list[HoldingRecord]:
        """Return what the truck's newest receipts say, one for each kind and name."""
        query = select(holdings).where(holdings.c.truck == truck).order_by(holdings.c.document, holdings.c.name)
        async with self._database.read() as connection:
            return [_holding(row) for row in await connection.execute(query)]

    async def refused_holdings(self, names: Collection[str]) -> list[HoldingRecord]:
        """Return what some trucks (at most `PAGE_MAX`) said they rejected or rolled back, and nothing newer since."""
        refused = (int(Outcome.REJECTED), int(Outcome.ROLLED_BACK))
        query = select(holdings).where(holdings.c.outcome.in_(refused), holdings.c.truck.in_(sorted(names)[:PAGE_MAX]))
        async with self._database.read() as connection:
            return [_holding(row) for row in await connection.execute(query)]


def _holding(row: Row[Any]) -> HoldingRecord:
    return HoldingRecord(
        truck=row.truck,
        document=DocumentKind(row.document),
        name=row.name,
        digest=row.digest,
        outcome=Outcome(row.outcome),
        version=row.version,
        reason=row.reason,
        time_ms=row.time_ms,
        received_ms=row.received_ms,
    )


async def _update(transaction: Transaction, name: str, values: dict[str, Any]) -> None:
    changed = await transaction.execute(update(trucks).where(trucks.c.name == name).values(values))
    if changed.rowcount == 0:
        raise UnknownTruckError(name)
