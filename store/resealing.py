"""Sealing the queue again, when a truck gets new keys: what waits is signed by the key that the gateway knows now.

Epoch and sequence stay, so a parcel that the gateway has already, under the old key, is acknowledged and not stored
twice. Safe to repeat after any interruption.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from protocol.errors import MalformedError
from protocol.messages import Parcel, unseal
from store import bases
from store.database import Database
from store.parcels import ParcelState

Reseal = Callable[[Parcel, bytes | None], bytes]
_CHUNK = 500


def reseal_queue(database: Database, seal: Reseal) -> int:
    """Seal every parcel that waits with `seal(parcel, meaning)`; return how many. One that is damaged stays."""
    sql = (
        "SELECT id, epoch, sealed, schema_digest FROM parcels WHERE id > :after AND state IN (:queued, :clashed) "
        "ORDER BY id LIMIT :limit"
    )
    fixed = {"queued": int(ParcelState.QUEUED), "clashed": int(ParcelState.CLASHED), "limit": _CHUNK}
    after = count = 0
    while rows := database.rows(sql, {**fixed, "after": after}):
        with database.atomic():
            for number, epoch, sealed, schema_digest in rows:
                after = number
                try:
                    parcel = replace(unseal(sealed), epoch=int.from_bytes(epoch, "big"))
                    meaning = bases.meaning(database, bases.base_of(parcel), schema_digest)
                except MalformedError:
                    continue
                database.update("parcels", "id = :id", {"id": number}, sealed=seal(parcel, meaning))
                count += 1
    return count
