"""Enrolments: one-time codes, and the one transaction in which a code makes a truck.

Only the SHA-256 of a code's secret is kept. A truck that enrols again (a new disk, a new board) gets its new keys and
starts its contexts over; its old keys stay on record, because its old evidence verifies under them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from store.fleet import audit
from store.fleet.database import FleetPart, Transaction
from store.fleet.errors import EnrolmentError, EnrolmentReason
from store.fleet.limits import PAGE_MAX
from store.fleet.records import EnrolmentRecord, TruckRecord
from store.fleet.tables import contexts, enrolments, truck_keys, trucks
from store.fleet.trucks import read_truck


class Enrolments(FleetPart):
    """One-time codes."""

    async def create_enrolment(
        self, truck: str, group: str, secret_sha256: bytes, expires_ms: int, created_by: str, *, now_ms: int
    ) -> EnrolmentRecord:
        """Make a code for a truck; codes made for it before and not used are void from now on."""
        values = {
            "secret_sha256": secret_sha256,
            "truck": truck,
            "group_name": group,
            "expires_ms": expires_ms,
            "created_ms": now_ms,
            "created_by": created_by,
        }
        async with self._database.write() as transaction:
            await transaction.execute(
                delete(enrolments).where(enrolments.c.truck == truck, enrolments.c.redeemed_ms.is_(None))
            )
            made = await transaction.execute(insert(enrolments).values(values).returning(enrolments))
            record = _record(made.one())
            transaction.note("enrolment", truck=truck, subject=str(record.id), at_ms=now_ms)
            detail: dict[str, str | int | None] = {"group": group, "expires_ms": expires_ms, "enrolment": record.id}
            entry = audit.note(created_by, "enrolment.created", truck, now_ms, detail)
            await audit.append(self._database, transaction, entry)
            return record

    async def redeem_enrolment(
        self, secret_sha256: bytes, truck: str, signing_key: bytes, credential: bytes, kid_cred: bytes, now_ms: int
    ) -> TruckRecord:
        """Use a code up and enrol its truck with these keys; raise `EnrolmentError`, having changed nothing."""
        try:
            async with self._database.write() as transaction:
                group = await _use_up(transaction, secret_sha256, truck, now_ms)
                await _refuse_taken_key(transaction, truck, signing_key)
                await _put_truck(transaction, truck, group, signing_key, credential, kid_cred, now_ms)
                transaction.note("truck", truck=truck, at_ms=now_ms)
                record = await read_truck(transaction, truck)
                # No name of a person's token has a slash in it.
                entry = audit.note(f"truck/{truck}", "truck.enrolled", truck, now_ms, {"key": signing_key.hex()})
                await audit.append(self._database, transaction, entry)
        except IntegrityError as error:
            # The keys' columns are unique over all trucks: no two trucks share a secret.
            raise EnrolmentError(EnrolmentReason.KEY_TAKEN) from error
        assert record is not None
        return record

    async def enrolments(self, after: int | None = None, limit: int = 100) -> list[EnrolmentRecord]:
        """Return codes, used ones too, newest first; `after` is the id of the last one of the page before."""
        query = select(enrolments).order_by(enrolments.c.id.desc()).limit(min(limit, PAGE_MAX))
        if after is not None:
            query = query.where(enrolments.c.id < after)
        async with self._database.read() as connection:
            return [_record(row) for row in await connection.execute(query)]


def _record(row: Row[Any]) -> EnrolmentRecord:
    return EnrolmentRecord(
        id=row.id,
        truck=row.truck,
        group=row.group_name,
        expires_ms=row.expires_ms,
        created_ms=row.created_ms,
        created_by=row.created_by,
        redeemed_ms=row.redeemed_ms,
    )


async def _use_up(transaction: Transaction, secret_sha256: bytes, truck: str, now_ms: int) -> str:
    """Mark the code used and return its group. The UPDATE itself decides, so two takers cannot both win."""
    usable = (
        enrolments.c.secret_sha256 == secret_sha256,
        enrolments.c.truck == truck,
        enrolments.c.redeemed_ms.is_(None),
        enrolments.c.expires_ms > now_ms,
    )
    used = update(enrolments).where(*usable).values(redeemed_ms=now_ms).returning(enrolments.c.group_name)
    group: str | None = (await transaction.execute(used)).scalar()
    if group is not None:
        return group
    query = select(enrolments).where(enrolments.c.secret_sha256 == secret_sha256)
    found = (await transaction.execute(query)).first()
    if found is None:
        raise EnrolmentError(EnrolmentReason.UNKNOWN)
    if found.truck != truck:
        raise EnrolmentError(EnrolmentReason.OTHER_TRUCK)
    raise EnrolmentError(EnrolmentReason.EXPIRED if found.redeemed_ms is None else EnrolmentReason.USED)


async def _refuse_taken_key(transaction: Transaction, truck: str, signing_key: bytes) -> None:
    """Refuse a key that another truck has or ever had: evidence must name one truck only."""
    query = select(truck_keys.c.truck).where(truck_keys.c.signing_key == signing_key, truck_keys.c.truck != truck)
    if (await transaction.execute(query.limit(1))).first() is not None:
        raise EnrolmentError(EnrolmentReason.KEY_TAKEN)


async def _put_truck(
    transaction: Transaction,
    truck: str,
    group: str,
    signing_key: bytes,
    credential: bytes,
    kid_cred: bytes,
    now_ms: int,
) -> None:
    values = {
        "group_name": group,
        "signing_key": signing_key,
        "credential": credential,
        "kid_cred": kid_cred,
        "enrolled_ms": now_ms,
        "revoked_ms": None,
    }
    replaced = await transaction.execute(update(trucks).where(trucks.c.name == truck).values(values))
    if replaced.rowcount == 0:
        await transaction.execute(insert(trucks).values(name=truck, **values))
    await transaction.execute(delete(contexts).where(contexts.c.truck == truck))
    await transaction.execute(
        update(truck_keys).where(truck_keys.c.truck == truck, truck_keys.c.until_ms.is_(None)).values(until_ms=now_ms)
    )
    key = {"truck": truck, "signing_key": signing_key, "credential": credential, "since_ms": now_ms}
    await transaction.execute(insert(truck_keys).values(key))
