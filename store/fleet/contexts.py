"""OSCORE contexts: one for each link of a truck, found by the key id that the truck sends.

Sender sequence numbers are reserved in blocks before use (RFC 8613 appendix B.1.1): after a crash the gateway goes on
beyond the block, so that no nonce is ever used twice. Replay windows are not kept: after a restart the gateway asks
for freshness (Echo, RFC 9175) instead. Contexts do not survive a restore; see `store.fleet.care`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from sqlalchemy import Connection, Select, and_, delete, insert, select, update

from store.fleet.database import FleetPart
from store.fleet.errors import KidTakenError, StaleContextError
from store.fleet.records import ContextRecord
from store.fleet.tables import contexts


class Contexts(FleetPart):
    """Security contexts by key id."""

    async def put_context(self, record: ContextRecord) -> None:
        """Keep a new context in the place of all others of its link; raise `KidTakenError` of a key id in use."""
        async with self._database.write() as transaction:
            await transaction.run(_put, record)

    async def context(self, kid: bytes) -> ContextRecord | None:
        """Return the context of a key id."""
        found = await self._contexts(select(contexts).where(contexts.c.kid == kid))
        return found[0] if found else None

    async def contexts_of(self, truck: str) -> list[ContextRecord]:
        """Return a truck's contexts, oldest first."""
        return await self._contexts(select(contexts).where(contexts.c.truck == truck))

    async def all_contexts(self) -> list[ContextRecord]:
        """Return every context, oldest first."""
        return await self._contexts(select(contexts))

    async def reserve_sequences(self, kid: bytes, upto: int) -> None:
        """Reserve sender sequence numbers below `upto`, committed on return; raise `StaleContextError`.

        It is raised when the context is gone or when `upto` does not go beyond what is reserved, which means that
        someone else uses the same context: both would use the same nonces.
        """
        async with self._database.write() as transaction:
            reserved = await transaction.execute(
                update(contexts)
                .where(contexts.c.kid == kid, contexts.c.sender_sequence_reserved < upto)
                .values(sender_sequence_reserved=upto)
            )
            if reserved.rowcount == 0:
                raise StaleContextError(f"the context {kid.hex()} is gone or was advanced by someone else")

    async def delete_contexts(self, truck: str, keep_kids: Collection[bytes] = (), link: str | None = None) -> int:
        """Delete a truck's contexts (of one link, or of all) but those of `keep_kids`; return how many went."""
        query = delete(contexts).where(contexts.c.truck == truck, contexts.c.kid.not_in(list(keep_kids)))
        if link is not None:
            query = query.where(contexts.c.link == link)
        async with self._database.write() as transaction:
            return (await transaction.execute(query)).rowcount

    async def _contexts(self, query: Select[tuple[object, ...]]) -> list[ContextRecord]:
        async with self._database.read() as connection:
            found = await connection.execute(query.order_by(contexts.c.created_ms, contexts.c.kid))
            return [ContextRecord(**row) for row in found.mappings()]


def _put(connection: Connection, record: ContextRecord) -> None:
    is_of_link = and_(contexts.c.truck == record.truck, contexts.c.link == record.link)
    connection.execute(delete(contexts).where(is_of_link))
    if connection.execute(select(contexts.c.kid).where(contexts.c.kid == record.kid)).first() is not None:
        raise KidTakenError(record.kid)
    connection.execute(insert(contexts).values(asdict(record)))
