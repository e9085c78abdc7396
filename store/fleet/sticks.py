"""Couriers' sticks: each is known by its random id from the moment it is planned, and can be revoked from then on."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from protocol.numbers import STICKS_REVOKED_MAX
from store.fleet import audit
from store.fleet.database import FleetPart
from store.fleet.limits import PAGE_MAX
from store.fleet.records import StickRecord
from store.fleet.tables import sticks


class Sticks(FleetPart):
    """Sticks by id and by time."""

    async def put_stick(self, record: StickRecord, trucks: int) -> None:
        """Keep a stick that was planned for some trucks."""
        values = {column.name: getattr(record, column.name) for column in sticks.c}
        detail = {"trucks": trucks, "sealed": int(record.key is not None)}
        entry = audit.note(record.made_by, "stick.made", record.stick.hex(), record.made_ms, detail)
        async with self._database.write() as transaction:
            await transaction.execute(insert(sticks).values(values))
            await audit.append(self._database, transaction, entry)

    async def stick(self, stick: bytes) -> StickRecord | None:
        """Return a stick, also a revoked one."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(sticks).where(sticks.c.stick == stick))).mappings().first()
        return None if row is None else StickRecord(**row)

    async def sticks(self, *, before_ms: int | None = None, limit: int = 100) -> list[StickRecord]:
        """Return sticks, newest first, of those made before a time."""
        query = select(sticks).order_by(sticks.c.made_ms.desc(), sticks.c.stick).limit(min(limit, PAGE_MAX))
        if before_ms is not None:
            query = query.where(sticks.c.made_ms < before_ms)
        async with self._database.read() as connection:
            return [StickRecord(**row) for row in (await connection.execute(query)).mappings()]

    async def revoked_sticks(self, now_ms: int) -> tuple[bytes, ...]:
        """Return the ids of revoked sticks that have not expired, at most as many as a desired state may name."""
        query = (
            select(sticks.c.stick)
            .where(sticks.c.revoked_ms.is_not(None), sticks.c.expires_ms > now_ms)
            .order_by(sticks.c.revoked_ms.desc(), sticks.c.stick)
            .limit(STICKS_REVOKED_MAX)
        )
        async with self._database.read() as connection:
            return tuple(sorted(row.stick for row in await connection.execute(query)))

    async def revoke_stick(self, stick: bytes, by: str, now_ms: int) -> bool:
        """Revoke a stick; return False if there is none of this id that is not revoked."""
        change = update(sticks).where(sticks.c.stick == stick, sticks.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
        async with self._database.write() as transaction:
            if (await transaction.execute(change)).rowcount == 0:
                return False
            entry = audit.note(by, "stick.revoked", stick.hex(), now_ms)
            await audit.append(self._database, transaction, entry)
            return True

    async def note_import(self, stick: bytes, now_ms: int) -> None:
        """Note that something was taken from a stick."""
        async with self._database.write() as transaction:
            await transaction.execute(update(sticks).where(sticks.c.stick == stick).values(imported_ms=now_ms))
