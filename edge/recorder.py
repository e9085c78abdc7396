"""The recorder: rows become batches, batches and events become parcels, and nothing that was accepted is lost.

Every row is durable before `on_row` returns; a batch closes when it fills a datagram, when it is old enough, or when
the clock becomes known (its times then mean something else). Closing it is one transaction: the parcel is there and
the open rows are gone, or neither. The open rows in the database are what counts; an encoder in memory mirrors them,
and where that is not certain (`stale`, after a failure of the disk) the batch is made from the database.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
from msgspec.structs import replace

from edge.clock import Clock
from edge.log_limit import LogLimit
from protocol.batch import ROWS_MAX, BatchEncoder
from protocol.cose import SigningKey, digest
from protocol.errors import LocalError, MalformedError, QueueFullError
from protocol.messages import Batch, Event, Parcel, Receipt, SchemaOffer, seal
from protocol.numbers import DocumentKind, ParcelKind, Precedence
from protocol.rows import Row, check_row
from protocol.schema import CHANNELS_MAX, Channel, Schema, decode_schema
from store import incidents
from store.database import Database
from store.documents import Documents, Schemas, Treatment
from store.errors import CommitUnknownError, StoreFailedError
from store.openrows import OpenRow, OpenRows
from store.parcels import ParcelQueue
from store.settings import Settings
from store.writer import Writer

log = structlog.get_logger("edge.recorder")

# What a datagram holds, less its upload, parcel and batch heads and its signature.
BODY_BYTES_MAX = 1_090
LOCAL_SERIES = "local"
_LOCAL_PERIOD_S = 60
_SCALE_MAX = 1_000_000
_OFFER_PAUSE_S = 600.0
_COMMIT_TRIES = 3

Cells = tuple[int | None, ...]
T = TypeVar("T")


@dataclass(slots=True)
class _Series:
    """One stream of rows: its schema's number on this truck and its open batch, alone under that number."""

    number: int
    schema: Schema
    encoder: BatchEncoder
    boot: int | None = None
    opened: float = 0.0
    stale: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Recorder:
    """Takes rows, records, events and receipts; the only place that adds parcels."""

    def __init__(
        self,
        *,
        truck: str,
        key: SigningKey,
        database: Database,
        queue: ParcelQueue,
        writer: Writer,
        clock: Clock,
        batch_age_s: float,
        on_parcel: Callable[[], Awaitable[None]],
    ) -> None:
        self.batch_age_s = batch_age_s
        self.batches = 0  # closed since the start
        self._truck = truck
        self._key = key
        self._database = database
        self._queue = queue
        self._writer = writer
        self._clock = clock
        self._on_parcel = on_parcel
        self._schemas = Schemas(database)
        self._documents = Documents(database)
        self._open = OpenRows(database)
        self._settings = Settings(database)
        self._series: dict[str, _Series] = {}
        self._local: dict[str, Channel] = {}
        self._local_lock = asyncio.Lock()
        self._offered_at: dict[int, float] = {}
        self._limit = LogLimit()

    async def recover(self) -> None:
        """Close what was open when the daemon last stopped; call it once, before anything is recorded."""
        for number in await self._writer.run(self._open.schemas):
            try:
                rows = await self._durably(partial(self._recover, number))
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

    async def open_series(self, name: str, schema: Schema) -> None:
        """Register the schema of a collector's rows under its name."""
        await self._open_series(name, schema)

    async def _open_series(self, name: str, schema: Schema) -> _Series:
        number, kept = await self._durably(lambda: self._register(schema.encoded))
        old = self._series.get(name)
        if old is not None and old.number == number:
            return old
        # Two names may declare the very same channels: their rows share a batch then, as they share the number.
        series = next((each for each in self._series.values() if each.number == number), None)
        if series is None:
            series = _Series(number, schema, BatchEncoder(schema), opened=self._clock.monotonic(), stale=kept > 0)
        self._series[name] = series
        if old is not None and old not in self._series.values():
            # A new configuration starts the collectors anew: what the old batch holds would be forgotten with it.
            async with old.lock:
                try:
                    await self._close(old)
                except QueueFullError as error:
                    log.warning("rows.kept", schema=old.number, reason=str(error))
        await self._on_parcel()
        return series

    def _register(self, encoded: bytes) -> tuple[int, int]:
        """Return a schema's number and how many rows are open under it; offer it once in each epoch."""
        number, _ = self._schemas.number(encoded)
        mark = f"offered.{self._queue.epoch:016x}.{number}"
        if self._settings.get(mark) is None:
            try:
                self._offer(number, encoded)
                self._settings.put(mark, b"\x01")
            except QueueFullError:
                # The gateway asks for a schema that it does not know.
                log.warning("schema.not_offered", schema=number)
        return number, self._open.count(number)

    def _offer(self, number: int, encoded: bytes) -> None:
        self._add(ParcelKind.SCHEMA, Precedence.PRIORITY, SchemaOffer(number, encoded).encode())

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

    async def on_row(self, name: str, monotonic_s: float, cells: Cells) -> None:
        """Take one row of a collector; it is durable when this returns."""
        series = self._series[name]
        offset_s = self._clock.offset_s
        boot = self._clock.boot if offset_s is None else None
        time_s = monotonic_s if offset_s is None else monotonic_s + offset_s
        await self._take(series, boot, time_s, cells)

    async def record(self, values: tuple[tuple[str, float], ...], time_s: float | None) -> None:
        """Take one row of (channel, value) from a local script; its channels are declared as they appear."""
        if not all(math.isfinite(value) for _, value in values):
            raise MalformedError("a value is a finite number")
        async with self._local_lock:
            series = await self._local_series(values)
            given = dict(values)
            cells = tuple(
                round(given[channel.name] * channel.scale) if channel.name in given else None
                for channel in series.schema.channels
            )
            at_s, boot = self._clock.stamp() if time_s is None else (time_s, None)
            try:
                check_row(series.schema, (round(at_s * series.schema.ticks_per_s), cells))
            except LocalError as error:
                raise MalformedError(str(error)[:200]) from error
            await self._take(series, boot, at_s, cells)

    async def event(
        self,
        name: str,
        precedence: Precedence,
        values: tuple[tuple[str, int | bool | str], ...] = (),
        time_s: float | None = None,
    ) -> int:
        """Take one event; return the sequence of its parcel, durable by then."""
        at_s, boot = self._clock.stamp() if time_s is None else (time_s, None)
        payload = Event(name, int(at_s * 1000), dict(values), boot).encode()
        token = os.urandom(16)
        parcel = await self._durably(lambda: self._add(ParcelKind.EVENT, precedence, payload, token=token))
        await self._on_parcel()
        return parcel.sequence

    async def receipt(self, receipt: Receipt) -> None:
        """Queue a receipt, unless it says what the last one of its document said."""
        wall_s = self._clock.wall_s()
        if not receipt.time_ms and wall_s is not None:
            receipt = replace(receipt, time_ms=int(wall_s * 1000))
        if await self._durably(partial(self._treat, receipt)):
            await self._on_parcel()

    def _treat(self, receipt: Receipt) -> bool:
        treatment = Treatment(
            receipt.document,
            receipt.name,
            receipt.version,
            receipt.digest,
            receipt.outcome,
            receipt.reason,
            self._clock.at_least_s(),
        )
        # A gateway that goes on naming a desired state has not got its receipt: that one may be repeated.
        due = self._documents.treat(treatment) or receipt.document is DocumentKind.DESIRED
        if due:
            self._add(ParcelKind.RECEIPT, Precedence.PRIORITY, receipt.encode())
        return due

    async def clock_known(self) -> None:
        """Close every batch whose times are monotonic and tell the gateway what they mean."""
        for series in list(self._series.values()):
            async with series.lock:
                if series.boot is not None:
                    await self._close(series)
        offset_ms = round((self._clock.offset_s or 0.0) * 1000)
        await self.event("clock", Precedence.PRIORITY, (("boot", self._clock.boot), ("offset_ms", offset_ms)))

    async def run(self) -> None:
        """Close batches that are old enough and report incidents, until cancelled."""
        while True:
            try:
                await self.tick()
            except (QueueFullError, CommitUnknownError) as error:
                if (kept_back := self._limit.admit("recorder.waits", self._clock.monotonic())) is not None:
                    log.warning("recorder.waits", reason=str(error), kept_back=kept_back)
            await asyncio.sleep(min(5.0, max(0.2, self.batch_age_s / 4)))

    async def tick(self) -> None:
        """Close the batches that are old enough and report incidents."""
        now = self._clock.monotonic()
        for series in list(self._series.values()):
            async with series.lock:
                if now - series.opened >= self.batch_age_s:
                    await self._close(series)
        await self._report_incidents()

    async def close_all(self) -> None:
        """Close every open batch now (asked for by a person, or before a planned stop)."""
        for series in list(self._series.values()):
            async with series.lock:
                await self._close(series)

    async def _report_incidents(self) -> None:
        def report() -> int:
            found = incidents.unreported(self._database)
            for each in found:
                # One of before the clock was known is told by the time of this boot: they are reported at once.
                at_s, boot = (each.at_s, None) if each.at_s else self._clock.stamp()
                payload = Event(each.name, int(at_s * 1000), dict(each.values), boot).encode()
                self._add(ParcelKind.EVENT, Precedence.PRIORITY, payload)
            incidents.mark_reported(self._database, [each.id for each in found])
            return len(found)

        if await self._writer.run(report):
            await self._on_parcel()

    async def _local_series(self, values: tuple[tuple[str, float], ...]) -> _Series:
        declared = dict(self._local)
        for name, value in values:
            scale = _scale_of(value)
            known = declared.get(name)
            if known is None or known.scale < scale:
                declared[name] = Channel(name=name, scale=scale)
        if len(declared) > CHANNELS_MAX:
            raise MalformedError(f"local scripts may use at most {CHANNELS_MAX} channels")
        changed, self._local = declared != self._local, declared
        old = self._series.get(LOCAL_SERIES)
        if old is not None and not changed:
            return old
        return await self._open_series(LOCAL_SERIES, Schema(tuple(self._local.values()), period_s=_LOCAL_PERIOD_S))

    async def _take(self, series: _Series, boot: int | None, time_s: float, cells: Cells) -> None:
        row = (round(time_s * series.schema.ticks_per_s), cells)
        check_row(series.schema, row)
        async with series.lock:
            if series.stale or (series.encoder.rows and series.boot != boot):
                await self._close(series)
            if not series.encoder.rows:
                series.boot, series.opened = boot, self._clock.monotonic()
            kept = OpenRow(series.number, boot, *row)
            await self._keep(series, kept)
            if _append(series.encoder, row):
                return
            try:
                await self._close(series, kept)
            except LocalError as error:
                # The row is accepted, and so are those before it; what is to be closed is tried with the next one.
                series.stale = True
                log.warning("batch.not_closed", schema=series.number, reason=str(error))

    async def _keep(self, series: _Series, row: OpenRow) -> None:
        """Make a row durable, once."""
        expected = series.encoder.rows + 1
        try:
            await self._writer.run(lambda: self._open.add(row))
        except CommitUnknownError:
            try:
                await self._durably(partial(self._open.add_once, row, expected))
            except LocalError:
                series.stale = True
                raise

    async def _close(self, series: _Series, first: OpenRow | None = None) -> None:
        """Make a batch of the open rows, if there are any; `first`, which is kept too, opens the next one."""
        if series.stale:
            await self._durably(partial(self._recover, series.number))
            first = None
        elif series.encoder.rows:
            await self._durably(partial(self._store_batch, series, series.encoder, first, os.urandom(16)))
        else:
            return
        series.encoder, series.stale = BatchEncoder(series.schema), False
        if first is not None:
            series.encoder.append((first.time, first.cells))
            series.opened = self._clock.monotonic()
        await self._on_parcel()

    async def _durably(self, store: Callable[[], T]) -> T:
        # After an unknown COMMIT the same token finds the parcel if it is there, so that nothing is doubled or lost.
        for _ in range(_COMMIT_TRIES):
            try:
                return await self._writer.run(store)
            except CommitUnknownError as error:
                log.warning("store.commit_unknown", reason=str(error))
        raise StoreFailedError("the disk takes nothing: what was accepted stays for the next start")

    def _store_batch(self, series: _Series, full: BatchEncoder, first: OpenRow | None, token: bytes) -> None:
        self._add_batch(series.number, series.schema, series.boot, full, token)
        self._open.clear(series.number)
        if first is not None:
            self._open.add(first)

    def _add_batch(
        self, number: int, schema: Schema, boot: int | None, encoder: BatchEncoder, token: bytes | None = None
    ) -> None:
        payload = Batch(number, boot, encoder.finish()).encode()
        meaning = digest(schema.encoded)
        self.batches += 1
        rows = encoder.rows
        self._add(ParcelKind.BATCH, Precedence.NORMAL, payload, schema_digest=meaning, rows=rows, token=token)

    def _add(
        self,
        kind: ParcelKind,
        precedence: Precedence,
        payload: bytes,
        *,
        schema_digest: bytes | None = None,
        rows: int = 0,
        token: bytes | None = None,
    ) -> Parcel:
        # Tombstones that make room are sealed through the same function: only a batch has a schema to sign.
        return self._queue.add(
            kind,
            precedence,
            payload,
            lambda parcel: seal(
                self._key, parcel, self._truck, schema_digest if parcel.kind is ParcelKind.BATCH else None
            ),
            self._clock.at_least_s(),
            schema_digest=schema_digest,
            rows=rows,
            token=token,
        )

    def reseal(self, parcel: Parcel, schema_digest: bytes | None) -> bytes:
        """Seal a parcel again under a new number."""
        return seal(self._key, parcel, self._truck, schema_digest)


def _append(encoder: BatchEncoder, row: Row) -> bool:
    """Add a row to a batch; return False when it is full."""
    return encoder.rows < ROWS_MAX and encoder.append(row, bytes_max=BODY_BYTES_MAX)


def _scale_of(value: float) -> int:
    """Return the power of ten that makes the value an integer, as far as one may be asked for."""
    scale = 1
    while scale < _SCALE_MAX and abs(value * scale - round(value * scale)) > 1e-9 * max(1.0, abs(value * scale)):
        scale *= 10
    return scale
