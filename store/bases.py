"""Batches that go on from others (`protocol.batch`): which is whose base, and the rows of a run, read from the queue.

A base is a batch that was delivered. It stays in the queue's table as long as a batch that goes on from it does: what
waits can be read (folded, given to a gateway that was restored) only with the batches before it. Everything here runs
in the caller's transaction where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from protocol.batch import decode, decode_on
from protocol.errors import MalformedError
from protocol.messages import Batch, Parcel, batch_meaning, content_digest, unseal
from protocol.numbers import RUN_BATCHES_MAX, ParcelKind
from protocol.rows import Row, RowModel
from protocol.schema import Schema
from store.database import Database

_DELIVERED: Final = 2
Key = tuple[int, int]  # epoch and sequence
# Of parcels that nothing goes on from.
NOT_NEEDED: Final = (
    "NOT EXISTS (SELECT 1 FROM bases WHERE base_epoch = parcels.epoch AND base_sequence = parcels.sequence)"
)


def note(database: Database, key: Key, base: Key) -> None:
    """Write down that the batch `key` goes on from `base`."""
    values = {"epoch": _bytes(key[0]), "sequence": key[1], "base_epoch": _bytes(base[0]), "base_sequence": base[1]}
    database.insert("bases", values, conflict="REPLACE")


def forget_gone(database: Database) -> None:
    """Forget the bases of batches that are not there any more: then theirs may go, too."""
    database.delete(
        "bases",
        "NOT EXISTS (SELECT 1 FROM parcels WHERE parcels.epoch = bases.epoch AND parcels.sequence = bases.sequence)",
        {},
    )


def placed(payload: bytes, key: Key, base: Key) -> bytes:
    """Return a batch's payload, going on from `base`, as it is written under `key`."""
    batch = Batch.decode(payload)
    if key[0] == base[0]:
        return Batch(batch.schema, batch.boot, batch.body, key[1] - base[1]).encode()
    return Batch(batch.schema, batch.boot, batch.body, base[1], base[0]).encode()


def base_of(parcel: Parcel) -> Key | None:
    """Return the base of a parcel that has its epoch: None for what is no batch, or none that can be read."""
    assert parcel.epoch is not None, "a parcel of a queue has its epoch"
    if parcel.kind is not ParcelKind.BATCH:
        return None
    try:
        return Batch.decode(parcel.payload).base_of(parcel.epoch, parcel.sequence)
    except MalformedError:
        return None


def meaning(database: Database, base: Key | None, schema_digest: bytes | None) -> bytes | None:
    """Return what the signature of a batch fixes besides its bytes; raise `MalformedError` if its base is gone."""
    if base is None or schema_digest is None:
        return schema_digest
    sealed = sealed_of(database, base)
    if sealed is None:
        raise MalformedError("the batch that it goes on from is gone")
    return batch_meaning(schema_digest, content_digest(sealed))


def sealed_of(database: Database, key: Key) -> bytes | None:
    """Return a parcel as it was sealed, None if there is none, or nothing left of it."""
    sql = "SELECT sealed FROM parcels WHERE epoch = :epoch AND sequence = :sequence"
    sealed: bytes | None = database.value(sql, {"epoch": _bytes(key[0]), "sequence": key[1]})
    return sealed or None


def is_delivered(database: Database, key: Key) -> bool:
    """Return whether a parcel is held that the gateway has acknowledged."""
    sql = "SELECT 1 FROM parcels WHERE epoch = :epoch AND sequence = :sequence AND state = :state"
    return database.value(sql, {"epoch": _bytes(key[0]), "sequence": key[1], "state": _DELIVERED}) is not None


class Runs:
    """Reads the rows of batches; what the last one taught is kept, since the next often goes on from it.

    `sealed_of` returns a parcel as it was sealed, or None.
    """

    def __init__(self, sealed_of: Callable[[Key], bytes | None]) -> None:
        self._sealed_of = sealed_of
        self._learnt: tuple[Key, Schema, RowModel] | None = None

    def rows(self, schema: Schema, key: Key, batch: Batch) -> list[Row]:
        """Return the rows of a batch; raise `MalformedError`, also when a batch before it is gone."""
        base = batch.base_of(*key)
        return decode(schema, batch.body) if base is None else decode(schema, batch.body, base=self._end(schema, base))

    def _end(self, schema: Schema, key: Key) -> RowModel:
        """Return what a batch had learnt at its end."""
        todo: list[Batch] = []
        at: Key | None = key
        model: RowModel | None = None
        while at is not None:
            if self._learnt is not None and self._learnt[:2] == (at, schema):
                model = self._learnt[2]
                break
            sealed = self._sealed_of(at)
            if sealed is None or len(todo) == RUN_BATCHES_MAX:
                raise MalformedError("a batch that it goes on from is gone, or its run is too long")
            todo.append(Batch.decode(unseal(sealed).payload))
            at = todo[-1].base_of(*at)
        while todo:
            model = decode_on(schema, todo.pop().body, base=model)[1]
        assert model is not None, "there was a batch, or it was known"
        self._learnt = (key, schema, model)
        return model


def _bytes(epoch: int) -> bytes:
    return epoch.to_bytes(8, "big")


def of_database(database: Database) -> Callable[[Key], Any]:
    """Return what `Runs` reads a queue's database with."""
    return lambda key: sealed_of(database, key)
