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
from protocol.messages import Parcel, seal
from protocol.numbers import ParcelKind, Precedence
from store.errors import CommitUnknownError, StoreFailedError
from store.parcels import ParcelQueue
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
    ) -> Parcel:
        """Queue one parcel, in the writer's thread; the options are those of `ParcelQueue.add`."""
        # Tombstones that make room are sealed through the same function: only a batch has a schema to sign.
        return self.queue.add(
            kind,
            precedence,
            payload,
            lambda parcel: seal(
                self._key, parcel, self._truck, schema_digest if parcel.kind is ParcelKind.BATCH else None
            ),
            self.clock.at_least_s(),
            schema_digest=schema_digest,
            rows=rows,
            token=token,
        )

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

    def reseal(self, parcel: Parcel, schema_digest: bytes | None) -> bytes:
        """Seal a parcel again under a new number."""
        return seal(self._key, parcel, self._truck, schema_digest)
