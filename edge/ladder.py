"""The ladder of detail: hourly summaries go up first when detail waits, and take its place when there is no room.

Detail that was not delivered for a while waits for a cheaper link, for budget, or for any link at all. Summaries of it
(about a quarter of its bytes) are queued as `priority`, so they go over any link within its budget; the detail stays
queued and goes when it may, or with a courier's stick. When the share of the disk is full, the oldest detail is folded:
a summary takes its place and a tombstone names it. The gateway counts every batch once, whichever comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from edge.outbox import Outbox
from protocol.messages import Batch, Parcel, SchemaOffer
from protocol.numbers import ParcelKind, Precedence
from protocol.schema import Schema
from store.database import Database
from store.documents import Schemas
from store.eviction import Dropped
from store.folding import Folding
from store.settings import Settings

log = structlog.get_logger("edge.ladder")

# More would stand before what else is urgent; the next ones are made when these were delivered.
_WAITING_MAX = 8
# A summary that does not fill its datagram waits for more detail for so many times as long.
_PATIENCE = 4


def offer_once(database: Database, epoch: int, number: int, encoded: bytes, add: Callable[[bytes], object]) -> None:
    """Queue the offer of a schema under its number, by `add`, unless it was offered in this epoch."""
    settings = Settings(database)
    mark = f"offered.{epoch:016x}.{number}"
    if settings.get(mark) is None:
        add(SchemaOffer(number, encoded).encode())
        settings.put(mark, b"\x01")


class Ladder:
    """Makes summaries of the batches that wait in an outbox's queue."""

    def __init__(self, outbox: Outbox, database: Database) -> None:
        self._outbox = outbox
        self._database = database
        self._schemas = Schemas(database)
        self._folding = Folding(database, self._offset_ms)
        outbox.queue.folding = self._fold

    async def climb(self, after_s: float) -> int:
        """Summarise detail that waits for longer than `after_s` (0: never); return how many summaries that made."""
        made = 0
        while after_s > 0 and await self._outbox.durably(partial(self._summarise, round(after_s))):
            made += 1
        if made:
            log.info("detail.summarised", summaries=made)
        return made

    def _summarise(self, after_s: int) -> bool:
        self._folding.forget_gone()
        if self._folding.waiting() >= _WAITING_MAX:
            return False
        now_s = self._outbox.clock.at_least_s()
        add = partial(self._add, self._outbox.add, Precedence.PRIORITY)
        return bool(self._folding.summarise(add, full_before_s=now_s - after_s, before_s=now_s - _PATIENCE * after_s))

    def _fold(self, bury: Callable[[Dropped], None]) -> int:
        # Its place is that of the detail: it goes when that would have gone, and makes room for telemetry at last.
        return self._folding.fold(partial(self._add, self._outbox.add_within, Precedence.NORMAL), bury)

    def _add(
        self,
        add: Callable[..., Parcel],
        precedence: Precedence,
        schema: Schema,
        boot: int | None,
        body: bytes,
        rows: int,
    ) -> int:
        number, _ = self._schemas.number(schema.encoded)
        epoch = self._outbox.queue.epoch
        offer = partial(add, ParcelKind.SCHEMA, Precedence.PRIORITY)
        offer_once(self._database, epoch, number, schema.encoded, offer)
        payload = Batch(number, boot, body).encode()
        return add(ParcelKind.BATCH, precedence, payload, schema_digest=schema.digest, rows=rows).sequence

    def _offset_ms(self, boot: int) -> int | None:
        clock = self._outbox.clock
        return round(clock.offset_s * 1000) if boot == clock.boot and clock.offset_s is not None else None
