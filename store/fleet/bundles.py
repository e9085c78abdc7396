"""Content: which bundles there are, which blobs the folder holds, and which are on their way in.

The files themselves lie in a folder under their digests (`store.blobs`); these tables only index them.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, delete, or_, select

from store.fleet import audit
from store.fleet.database import FleetPart
from store.fleet.limits import PAGE_MAX
from store.fleet.records import BlobRecord, BundleRecord, UploadRecord
from store.fleet.tables import blobs, bundles, uploads

# Fewer than the variables that one statement may have on either database (32,766 on SQLite).
_DIGESTS_IN_QUERY = 10_000


class Bundles(FleetPart):
    """Bundles, blobs and uploads."""

    async def bundles(self, after: tuple[str, str] | None = None, limit: int = 100) -> list[BundleRecord]:
        """Return bundles by name, then label; `after` is (name, label) of the last one seen."""
        query = select(bundles).order_by(bundles.c.name, bundles.c.label).limit(min(limit, PAGE_MAX))
        if after is not None:
            name, label = after
            query = query.where(or_(bundles.c.name > name, and_(bundles.c.name == name, bundles.c.label > label)))
        async with self._database.read() as connection:
            return [BundleRecord(**row) for row in (await connection.execute(query)).mappings()]

    async def bundle(self, name: str, label: str) -> BundleRecord | None:
        """Return one version of a bundle."""
        return await self._bundle(and_(bundles.c.name == name, bundles.c.label == label))

    async def bundle_of_manifest(self, digest: bytes) -> BundleRecord | None:
        """Return the bundle that a manifest describes."""
        return await self._bundle(bundles.c.manifest == digest)

    async def put_blob(self, digest: bytes, size: int, put_by: str, now_ms: int) -> None:
        """Note that the folder holds a blob in full; its upload is over. Repeats do nothing."""
        values = {"digest": digest, "size": size, "put_by": put_by, "received_ms": now_ms}
        async with self._database.write() as transaction:
            fresh = await transaction.execute(self._database.insert(blobs).values(values).on_conflict_do_nothing())
            await transaction.execute(delete(uploads).where(uploads.c.digest == digest))
            if fresh.rowcount > 0:
                entry = audit.note(put_by, "blob.put", digest.hex(), now_ms, {"size": size})
                await audit.append(self._database, transaction, entry)

    async def blob(self, digest: bytes) -> BlobRecord | None:
        """Return what is known of a blob that is here in full."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(blobs).where(blobs.c.digest == digest))).mappings().first()
        return None if row is None else BlobRecord(**row)

    async def missing_blobs(self, digests: Collection[bytes]) -> list[bytes]:
        """Return those of `digests` that are not here, in their order, each once."""
        asked = list(dict.fromkeys(digests))
        here: set[bytes] = set()
        async with self._database.read() as connection:
            for start in range(0, len(asked), _DIGESTS_IN_QUERY):
                chunk = asked[start : start + _DIGESTS_IN_QUERY]
                found = await connection.execute(select(blobs.c.digest).where(blobs.c.digest.in_(chunk)))
                here.update(found.scalars())
        return [digest for digest in asked if digest not in here]

    async def note_upload(self, digest: bytes, size: int, received: int, put_by: str, now_ms: int) -> None:
        """Note how far an upload is: `received` bytes are on the disk."""
        values = {
            "digest": digest,
            "size": size,
            "received": received,
            "started_ms": now_ms,
            "updated_ms": now_ms,
            "put_by": put_by,
        }
        statement = self._database.insert(uploads).values(values)
        fresh = {name: statement.excluded[name] for name in ("size", "received", "updated_ms", "put_by")}
        async with self._database.write() as transaction:
            await transaction.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=fresh))

    async def upload(self, digest: bytes) -> UploadRecord | None:
        """Return how far an upload is; None if there is none or the blob is here."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(uploads).where(uploads.c.digest == digest))).mappings().first()
        return None if row is None else UploadRecord(**row)

    async def _bundle(self, wanted: ColumnElement[bool]) -> BundleRecord | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(bundles).where(wanted))).mappings().first()
        return None if row is None else BundleRecord(**row)
