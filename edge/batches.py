"""Open batches: rows become batches, and no row that was accepted is lost or doubled.

Every row is durable before `take` returns; a batch closes when it fills a datagram, when it is old enough, or when the
clock becomes known (its times then mean something else). It goes on from the newest batch that the gateway has
(`edge.bases`), also from one that is acknowledged just after it was opened. Closing it is one transaction: the parcel
is there and the open rows are gone, or neither. The open rows in the database are what counts; an encoder in memory
mirrors them, and where that is not certain (`stale`, after a failure of the disk) the batch is made from the database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from edge.bases import Bases, Closed
from edge.ladder import offer_once
from edge.moment import BATCH_BYTES, Moment
from edge.outbox import Outbox
from protocol.batch import ROWS_MAX, BatchEncoder
from protocol.cose import digest
from protocol.errors import LocalError, QueueFullError
from protocol.messages import Batch, Parcel, SchemaOffer
from protocol.numbers import CODEC_ASSUMED, ParcelKind, Precedence
from protocol.rows import Row, check_row
from protocol.schema import Codec, Schema, decode_schema
from store import incidents
from store.database import Database
from store.documents import Schemas
from store.errors import CommitUnknownError
from store.openrows import OpenRow, OpenRows
from store.settings import Settings
from store.writer import Writer

log = structlog.get_logger("edge.batches")

# What a datagram holds, less its signature (64 B) and the heads of upload (6 B, 18 with the epoch and the question for
# the time), parcel (13 B up to the 65,536th, then 2 more) and batch (5 B): the sum is DATAGRAM_PAYLOAD_BYTES_MAX.
BODY_BYTES_MAX = 1_100
_BASE_BYTES = 3  # what a batch's base takes of it, up to the 65,535th parcel before
_OFFER_PAUSE_S = 600.0
_HEAD_ROWS_MAX = 32
_CODEC = "gateway.codec"

Cells = tuple[int | None, ...]


@dataclass(slots=True)
class Series:
    """One stream of rows: its schema's number on this truck and its open batch, alone under that number.

    `age_s` is the oldest that its batches become, if that is less than others may; they go with `precedence`.
    `head` are the first rows of the open batch; `declared` is the schema before a codec was chosen; `heir` took over.
    """

    number: int
    schema: Schema
    declared: Schema
    bases: Bases
    encoder: BatchEncoder
    base: Closed | None = None
    head: list[Row] = field(default_factory=list)
    boot: int | None = None
    opened: float = 0.0
    stale: bool = False
    heir: Series | None = None
    age_s: float | None = None
    precedence: Precedence = Precedence.NORMAL
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class OpenBatches:
    """The open batch of each stream of rows."""

    def __init__(
        self, outbox: Outbox, database: Database, writer: Writer, on_parcel: Callable[[], Awaitable[None]]
    ) -> None:
        self.closed = 0  # batches, since the start
        self._outbox = outbox
        self._database = database
        self._writer = writer
        self._clock = outbox.clock
        self._on_parcel = on_parcel
        self._schemas = Schemas(database)
        self._open = OpenRows(database)
        self._series: dict[str, Series] = {}
        self._offered_at: dict[int, float] = {}
        self._codec = CODEC_ASSUMED

    def series(self, name: str) -> Series | None:
        """Return an open stream by its name."""
        return self._series.get(name)

    async def recover(self) -> None:
        """Close what was open when the daemon last stopped; call it once, before anything is recorded."""
        self._codec = await self._writer.run(lambda: Settings(self._database).get_int(_CODEC, CODEC_ASSUMED))
        for number in await self._writer.run(self._open.schemas):
            try:
                rows = await self._outbox.durably(partial(self._recover, number))
            except QueueFullError as error:
                # They stay where they are; the series that goes on with them tries again.
                log.warning("rows.kept", schema=number, reason=str(error))
            else:
                log.info("rows.recovered", schema=number, rows=rows)
                await self._on_parcel()

    def _recover(self, number: int) -> int:
        """Make batches of the open rows of a schema; return how many rows there were."""
        rows, known = self._open.of(number), self._schemas.get(number)
        lost = len(rows) if known is None else 0
        if known is not None:
            schema = decode_schema(known.schema)
            for boot in dict.fromkeys(row.boot for row in rows):
                lost += self._add_rows(number, schema, boot, [row for row in rows if row.boot == boot])
        if lost:
            incidents.record(self._database, "rows.lost", {"schema": number, "rows": lost}, self._clock.at_least_s())
        self._open.clear(number)
        return len(rows)

    def _add_rows(self, number: int, schema: Schema, boot: int | None, rows: Sequence[OpenRow]) -> int:
        """Queue rows as batches; return how many do not fit their schema."""
        encoder, lost = BatchEncoder(schema), 0
        for row in rows:
            try:
                check_row(schema, (row.time, row.cells))
            except LocalError:
                lost += 1
                continue
            if not _append(encoder, (row.time, row.cells)):
                self._add_batch(number, schema, boot, encoder)
                encoder = BatchEncoder(schema)
                encoder.append((row.time, row.cells))
        if encoder.rows:
            self._add_batch(number, schema, boot, encoder)
        return lost

    async def use_codec(self, codec: int) -> None:
        """Take the newest codec that the gateway decodes; every series goes on under a schema that it can read."""
        if codec == self._codec:
            return
        self._codec = codec
        await self._outbox.durably(lambda: Settings(self._database).put_int(_CODEC, codec))
        log.info("codec.known", newest=codec)
        for name, series in list(self._series.items()):
            await self.open_series(name, series.declared, age_s=series.age_s, precedence=series.precedence)

    async def open_series(
        self,
        name: str,
        schema: Schema,
        *,
        age_s: float | None = None,
        precedence: Precedence = Precedence.NORMAL,
    ) -> Series:
        """Register the schema of a stream's rows under its name; an open batch of it goes on, or is closed."""
        declared = schema
        if schema.codec is Codec.CONTEXT and self._codec >= Codec.CARRIED:
            schema = replace(schema, codec=Codec.CARRIED)
        number, kept = await self._outbox.durably(lambda: self._register(schema.encoded))
        old = self._series.get(name)
        if old is not None and old.number == number:
            old.age_s, old.precedence = age_s, precedence
            return old
        # Two names may declare the very same channels: their rows share a batch then, as they share the number.
        series = next((each for each in self._series.values() if each.number == number), None)
        if series is None:
            bases = Bases(self._database, self._writer)
            series = Series(number, schema, declared, bases, BatchEncoder(schema), stale=kept > 0)
            series.opened = self._clock.monotonic()
            series.age_s, series.precedence = age_s, precedence
        self._series[name] = series
        if old is not None and old not in self._series.values():
            # A new configuration starts the collectors anew: what the old batch holds would be forgotten with it.
            async with old.lock:
                try:
                    await self._close(old)
                except QueueFullError as error:
                    log.warning("rows.kept", schema=old.number, reason=str(error))
                if old.declared == declared:
                    old.heir = series  # a row that waits for the lock belongs there
        await self._on_parcel()
        return series

    def _register(self, encoded: bytes) -> tuple[int, int]:
        """Return a schema's number and how many rows are open under it; offer it once in each epoch."""
        number, _ = self._schemas.number(encoded)
        offer = partial(self._outbox.add, ParcelKind.SCHEMA, Precedence.PRIORITY)
        try:
            offer_once(self._database, self._outbox.queue.epoch, number, encoded, offer)
        except QueueFullError:
            # The gateway asks for a schema that it does not know.
            log.warning("schema.not_offered", schema=number)
        return number, self._open.count(number)

    def _offer(self, number: int, encoded: bytes) -> None:
        self._outbox.add(ParcelKind.SCHEMA, Precedence.PRIORITY, SchemaOffer(number, encoded).encode())

    async def offer_again(self, numbers: Sequence[int]) -> None:
        """Offer schemas that the gateway asks for; each at most once in a while, since answers may cross."""
        now = self._clock.monotonic()
        for number in numbers:
            known = await self._writer.run(partial(self._schemas.get, number))
            if known is None or now - self._offered_at.get(number, -_OFFER_PAUSE_S) < _OFFER_PAUSE_S:
                continue
            await self._writer.run(partial(self._offer, known.number, known.schema))
            self._offered_at[number] = now
            await self._on_parcel()

    async def take(self, series: Series, boot: int | None, time_s: float, cells: Cells) -> None:
        """Take one row; `boot` None means that `time_s` is wall time. Raises `LocalError` for one that does not fit."""
        row = (round(time_s * series.schema.ticks_per_s), cells)
        check_row(series.schema, row)
        while True:
            async with series.lock:
                if series.heir is None:
                    await self._take(series, boot, row)
                    return
            series = series.heir

    async def _take(self, series: Series, boot: int | None, row: Row) -> None:
        if series.stale or (series.encoder.rows and series.boot != boot):
            await self._close(series)
        if not series.encoder.rows:
            series.boot, series.opened = boot, self._clock.monotonic()
        if series.encoder.rows == len(series.head):
            await self._move(series)
        kept = OpenRow(series.number, boot, *row)
        await self._keep(series, kept)
        if _append(series.encoder, row, series.base):
            if len(series.head) < _HEAD_ROWS_MAX:
                series.head.append(row)
            return
        try:
            await self._close(series, kept)
        except LocalError as error:
            # The row is accepted, and so are those before it; what is to be closed is tried with the next one.
            series.stale = True
            log.warning("batch.not_closed", schema=series.number, reason=str(error))

    async def _move(self, series: Series) -> None:
        """Have the open batch go on from the newest batch that was delivered, if it has few rows so far."""
        base = await series.bases.newest(series.base)
        if base is None:
            return
        encoder = BatchEncoder(series.schema, base=await base.model())
        if all(_append(encoder, row, base) for row in series.head):
            series.encoder, series.base = encoder, base

    async def _keep(self, series: Series, row: OpenRow) -> None:
        """Make a row durable, once."""
        expected = series.encoder.rows + 1
        try:
            await self._writer.run(lambda: self._open.add(row))
        except CommitUnknownError:
            try:
                await self._outbox.durably(partial(self._open.add_once, row, expected))
            except LocalError:
                series.stale = True
                raise

    async def _close(self, series: Series, first: OpenRow | None = None) -> None:
        """Make a batch of the open rows, if there are any; `first`, which is kept too, opens the next one."""
        if series.stale:
            await self._outbox.durably(partial(self._recover, series.number))
            first = None
            series.bases.forget()
        elif series.encoder.rows:
            full = series.encoder
            parcel = await self._outbox.durably(partial(self._store_batch, series, full, first, os.urandom(16)))
            series.bases.add(series.schema, parcel, full, series.base)
        else:
            return
        series.encoder, series.base, series.head, series.stale = BatchEncoder(series.schema), None, [], False
        if first is not None:
            series.head.append((first.time, first.cells))
            series.encoder.append(series.head[0])
            series.opened = self._clock.monotonic()
        await self._on_parcel()

    async def close_due(self, moment: Moment, age_s: float) -> None:
        """Close the batches that are as old as they may become, or that this is the moment for."""
        now = self._clock.monotonic()
        for series in list(self._series.values()):
            async with series.lock:
                oldest_s = age_s if series.age_s is None else min(age_s, series.age_s)
                size = series.encoder.size_bytes
                if series.encoder.rows and moment.closes(size, now - series.opened, oldest_s):
                    await self._close(series)
                    left = moment.paid_bytes - size - BATCH_BYTES
                    moment = replace(moment, paid_bytes=max(0, left))
                elif series.stale and now - series.opened >= oldest_s:
                    await self._close(series)

    async def close_of_boot(self) -> None:
        """Close the batches whose times are monotonic."""
        for series in list(self._series.values()):
            async with series.lock:
                if series.boot is not None:
                    await self._close(series)

    async def close_all(self) -> None:
        """Close every open batch now."""
        for series in list(self._series.values()):
            async with series.lock:
                await self._close(series)

    def _store_batch(self, series: Series, full: BatchEncoder, first: OpenRow | None, token: bytes) -> Parcel:
        parcel = self._add_batch(series.number, series.schema, series.boot, full, token, series.base)
        self._open.clear(series.number)
        if first is not None:
            self._open.add(first)
        return parcel

    def _add_batch(
        self,
        number: int,
        schema: Schema,
        boot: int | None,
        encoder: BatchEncoder,
        token: bytes | None = None,
        base: Closed | None = None,
    ) -> Parcel:
        payload = Batch(number, boot, encoder.finish()).encode()
        meaning = digest(schema.encoded)
        self.closed += 1
        rows = encoder.rows
        mine = (each.precedence for each in self._series.values() if each.number == number)
        precedence = min(mine, default=Precedence.NORMAL)
        named = None if base is None else (base.key, base.digest)
        return self._outbox.add(
            ParcelKind.BATCH, precedence, payload, schema_digest=meaning, rows=rows, token=token, base=named
        )


def _append(encoder: BatchEncoder, row: Row, base: Closed | None = None) -> bool:
    """Add a row to a batch; return False when it is full."""
    room = BODY_BYTES_MAX - (0 if base is None else _BASE_BYTES)
    return encoder.rows < ROWS_MAX and encoder.append(row, bytes_max=room)
