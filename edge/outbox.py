"""The outbox: the only way into the parcel queue, sealed with the truck's key, and safe to repeat.

`add` runs in the writer's thread, inside whatever transaction belongs to the parcel; `durably` runs such a transaction
until its fate is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from edge.clock import Clock
from protocol.cose import SigningKey
from protocol.messages import Parcel, batch_meaning, seal
from protocol.numbers import ParcelKind, Precedence
from store.bases import Key
from store.errors import CommitUnknownError, StoreFailedError
from store.parcels import ParcelQueue, Seal
from store.writer import Writer

log = structlog.get_logger("edge.outbox")

_COMMIT_TRIES = 3
T = TypeVar("T")


class Outbox:
    """Seals parcels of the truck `truck` and queues them."""

    def __init__(self, truck: str, key: SigningKey, queue: ParcelQueue, writer: Writer, clock: Clock) -> None:
        self.queue = queue
        self.clock = clock
        self._truck = truck
        self._key = key
        self._writer = writer

    def add(
        self,
        kind: ParcelKind,
        precedence: Precedence,
        payload: bytes,
        *,
        schema_digest: bytes | None = None,
        rows: int = 0,
        token: bytes | None = None,
        base: tuple[Key, bytes] | None = None,
    ) -> Parcel:
        """Queue one parcel, in the writer's thread; the options are those of `ParcelQueue.add`.

        `base` comes with its digest (`content_digest`).
        """
        meaning = schema_digest
        if base is not None and schema_digest is not None:
            meaning = batch_meaning(schema_digest, base[1])
        seal_it, now_s = self._seal_with(meaning), self.clock.at_least_s()
        return self.queue.add(
            kind,
            precedence,
            payload,
            seal_it,
            now_s,
            schema_digest=schema_digest,
            rows=rows,
            token=token,
            base=None if base is None else base[0],
        )

    def add_within(
        self,
        kind: ParcelKind,
        precedence: Precedence,
        payload: bytes,
        *,
        schema_digest: bytes | None = None,
        rows: int = 0,
    ) -> Parcel:
        """Queue one parcel that takes the place of others, inside of the transaction that makes room."""
        seal_it, now_s = self._seal_with(schema_digest), self.clock.at_least_s()
        return self.queue.add_within(kind, precedence, payload, seal_it, now_s, schema_digest=schema_digest, rows=rows)

    def _seal_with(self, meaning: bytes | None) -> Seal:
        # Tombstones that make room are sealed through the same function: only a batch has a meaning to sign.
        return lambda parcel: seal(self._key, parcel, self._truck, meaning if parcel.kind is ParcelKind.BATCH else None)

    async def durably(self, store: Callable[[], T]) -> T:
        """Run a transaction and return its result once it is durable; raise `StoreFailedError` when that stays unknown.

        It is repeated after an unknown COMMIT: it must find what it did, by a token or by what it took away.
        """
        for _ in range(_COMMIT_TRIES):
            try:
                return await self._writer.run(store)
            except CommitUnknownError as error:
                log.warning("store.commit_unknown", reason=str(error))
        raise StoreFailedError("the disk takes nothing: what was accepted stays for the next start")

    def reseal(self, parcel: Parcel, meaning: bytes | None) -> bytes:
        """Seal a parcel again under a new number."""
        return seal(self._key, parcel, self._truck, meaning)
