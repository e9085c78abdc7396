"""Care of the database: scrub what carries hashes, back up, and count for the dashboard.

A backup of SQLite is one consistent file made while the gateway runs (VACUUM INTO). OSCORE contexts are left out: a
restored gateway must not go on with sequence numbers that it used since (RFC 8613 appendix B.1), so trucks run EDHOC
again; nor do transport secrets travel with a backup. PostgreSQL has its own tools (pg_dump, base backups); after such a
restore, `settle_restored` has to run before the gateway starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Row, delete, func, select, text, update

from store.fleet import audit, changes_table
from store.fleet.database import FleetPart
from store.fleet.errors import DatabaseUnsupportedError
from store.fleet.evidence import BatchState
from store.fleet.limits import DAMAGED_NAMED_MAX, SCRUB_CHUNK
from store.fleet.records import FleetSummary, ScrubReport
from store.fleet.rowhash import parcel_hash
from store.fleet.schemas import OPEN
from store.fleet.tables import (
    batches,
    contexts,
    desired_states,
    documents,
    enrolments,
    parcels,
    quarantined,
    schemas,
    tokens,
    trucks,
)


class Care(FleetPart):
    """What keeps the store healthy."""

    async def ping(self) -> None:
        """Ask the database something; raise what the driver raises if it does not answer."""
        async with self._database.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def begin_and_end(self) -> None:
        """Begin a transaction that writes and end it: it waits as long as everything else that writes would."""
        async with self._database.write():
            pass

    async def summary(self) -> FleetSummary:
        """Count what operators watch."""
        open_batches = select(batches.c.state, func.count().label("number")).where(OPEN).group_by(batches.c.state)
        async with self._database.read() as connection:
            known = (
                await connection.execute(
                    select(func.count().label("all"), func.count(trucks.c.revoked_ms).label("revoked")).select_from(
                        trucks
                    )
                )
            ).one()
            states = {row.state: row.number for row in await connection.execute(open_batches)}
            aside = (await connection.execute(select(func.count()).select_from(quarantined))).scalar_one()
            newest = await changes_table.newest_id(connection)
        return FleetSummary(
            trucks=known.all,
            revoked=known.revoked,
            parked=states.get(BatchState.PARKED, 0),
            timeless=states.get(BatchState.TIMELESS, 0),
            to_roll_up=states.get(BatchState.READY, 0),
            quarantined=aside,
            newest_change=newest,
        )

    async def scrub(self) -> ScrubReport:
        """Read every row that carries a hash and hash it again, a few at a time; on SQLite quick_check as well."""
        damaged: list[str] = []
        number_of_parcels = await self._scrub_parcels(damaged)
        number_of_documents = await self._scrub_documents(damaged)
        number_of_schemas = await self._scrub_schemas(damaged)
        check = "ok"
        if self._database.is_sqlite:
            async with self._database.read() as connection:
                found = (await connection.execute(text("PRAGMA quick_check(10)"))).scalars().all()
            check = "; ".join(found)
        return ScrubReport(
            parcels=number_of_parcels,
            documents=number_of_documents,
            schemas=number_of_schemas,
            damaged=tuple(damaged[:DAMAGED_NAMED_MAX]),
            database_check=check,
        )

    async def backup(self, path: Path) -> None:
        """Write a consistent copy of a SQLite database to `path`, which must not exist, while the gateway runs.

        Raise `DatabaseUnsupportedError` on PostgreSQL, `FileExistsError` if there is something at `path`.
        """
        source = self._database.path
        if source is None:
            raise DatabaseUnsupportedError("back PostgreSQL up with pg_dump, without the data of the table contexts")
        await asyncio.to_thread(_copy, source, path)

    async def settle_restored(
        self, detail: Mapping[str, str | int | None], now_ms: int, *, void_tokens: bool = False
    ) -> int:
        """Make a restored database safe to serve from, and say so in the audit log; return how many codes are void.

        Sessions end, since their sequence numbers may have been used since (RFC 8613, appendix B.1). One-time codes
        that nobody had used are void: somebody may have used them since. Desired states are signed anew when the
        gateway starts, with versions above those that trucks have seen. `void_tokens`: of the database that is replaced
        nothing is known, so any token may have been revoked since.
        """
        async with self._database.write() as transaction:
            await transaction.execute(delete(contexts))
            await transaction.execute(delete(desired_states))
            voided = await transaction.execute(delete(enrolments).where(enrolments.c.redeemed_ms.is_(None)))
            if void_tokens:
                await transaction.execute(update(tokens).where(tokens.c.revoked_ms.is_(None)).values(revoked_ms=now_ms))
            detail = {**detail, "unconfirmed": int(void_tokens)}
            entry = audit.note(audit.GATEWAY_ACTOR, "gateway.restored", "", now_ms, detail)
            await audit.append(self._database, transaction, entry)
            return voided.rowcount

    async def _scrub_parcels(self, damaged: list[str]) -> int:
        number, after = 0, 0
        while True:
            query = select(parcels).where(parcels.c.id > after).order_by(parcels.c.id).limit(SCRUB_CHUNK)
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
            damaged.extend(
                f"parcel {row.truck}/{row.epoch}/{row.sequence}" for row in rows if row.row_hash != _hash_again(row)
            )
            number += len(rows)
            if len(rows) < SCRUB_CHUNK:
                return number
            after = rows[-1].id

    async def _scrub_documents(self, damaged: list[str]) -> int:
        async with self._database.read() as connection:
            digests = list((await connection.execute(select(documents.c.digest))).scalars())
        for digest in digests:
            # One at a time: a manifest may have megabytes.
            async with self._database.read() as connection:
                query = select(documents.c.signed).where(documents.c.digest == digest)
                signed: bytes = (await connection.execute(query)).scalar_one()
            if hashlib.sha256(signed).digest() != digest:
                damaged.append(f"document {digest.hex()}")
        return len(digests)

    async def _scrub_schemas(self, damaged: list[str]) -> int:
        async with self._database.read() as connection:
            rows = (await connection.execute(select(schemas))).all()
        damaged.extend(
            f"schema {row.digest.hex()}" for row in rows if hashlib.sha256(row.encoded).digest() != row.digest
        )
        return len(rows)


def _hash_again(row: Row[Any]) -> bytes | None:
    try:
        return parcel_hash(
            row.truck, row.epoch, row.sequence, row.kind, row.precedence, row.received_ms, row.link, row.sealed
        )
    except (struct.error, TypeError, AttributeError):
        return None  # so damaged that a number is no number


def _copy(source: Path, path: Path) -> None:
    """Copy to a temporary beside `path`, strip the contexts, sync, rename, sync the folder: whole or not at all."""
    if path.exists():
        raise FileExistsError(f"{path} exists: a backup never replaces a file")
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        part.touch(mode=0o600)
        # No connection of ours is used: a copy takes long, and this one neither writes nor checkpoints the original.
        with contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original:
            original.execute("VACUUM INTO ?", (str(part),))
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
            copy.execute("PRAGMA secure_delete = ON")
            copy.execute("DELETE FROM contexts")
            checked = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        if checked != "ok":
            raise sqlite3.DatabaseError(f"the copy does not check: {checked}")
        _sync(part)
        os.link(part, path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
