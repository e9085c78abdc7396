"""The recorder: rows become batches, batches and events become parcels, and nothing that was accepted is lost.

Every row is durable before `on_row` returns; a batch closes when it fills a datagram, when it is old enough, or when
the clock becomes known (its times then mean something else). Closing it is one transaction: the parcel is there and
the open rows are gone, or neither.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from edge.clock import Clock
from protocol.batch import BatchEncoder
from protocol.cose import SigningKey, digest
from protocol.errors import MalformedError
from protocol.messages import Batch, Event, Parcel, Receipt, SchemaOffer, seal
from protocol.numbers import ParcelKind, Precedence
from protocol.schema import CHANNELS_MAX, Channel, Schema, SchemaError, decode_schema
from store import incidents
from store.database import Database
from store.documents import Schemas
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


@dataclass(slots=True)
class _Series:
    """One stream of rows: its schema's number on this truck and its open batch."""

    number: int
    schema: Schema
    encoder: BatchEncoder
    boot: int | None = None
    opened: float = 0.0
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
        self._open = OpenRows(database)
        self._settings = Settings(database)
        self._series: dict[str, _Series] = {}
        self._local: dict[str, Channel] = {}
        self._local_lock = asyncio.Lock()
        self._offered_at: dict[int, float] = {}

    async def recover(self) -> None:
        """Close what was open when the daemon last stopped; call it once, before anything is recorded."""
        rows = await self._writer.run(self._open.all)
        batches: dict[tuple[int, int | None], list[OpenRow]] = {}
        for row in rows:
            batches.setdefault((row.schema, row.boot), []).append(row)
        for number in {row.schema for row in rows}:
            mine = {boot: each for (schema, boot), each in batches.items() if schema == number}
            await self._writer.run(partial(self._recover_one, number, mine))
        if rows:
            log.info("rows.recovered", rows=len(rows), batches=len(batches))
            await self._on_parcel()

    def _recover_one(self, number: int, batches: dict[int | None, list[OpenRow]]) -> None:
        known = self._schemas.get(number)
        if known is not None:
            schema = decode_schema(known.schema)
            for boot, rows in batches.items():
                self._add_rows(number, schema, boot, rows)
        self._open.clear(number)

    def _add_rows(self, number: int, schema: Schema, boot: int | None, rows: Sequence[OpenRow]) -> None:
        encoder = BatchEncoder(schema)
        for row in rows:
            cells = (row.time, row.cells)
            if not encoder.append(cells, bytes_max=BODY_BYTES_MAX):
                self._add_batch(number, schema, boot, encoder)
                encoder = BatchEncoder(schema)
                encoder.append(cells)
        if encoder.rows:
            self._add_batch(number, schema, boot, encoder)

    async def open_series(self, name: str, schema: Schema) -> None:
        """Register the schema of a collector's rows under its name."""
        await self._open_series(name, schema)

    async def _open_series(self, name: str, schema: Schema) -> _Series:
        old = self._series.get(name)
        if old is not None:
            # A new configuration starts the collectors anew: what the old batch holds would be forgotten with it.
            async with old.lock:
                if old.encoder.rows:
                    await self._close(old)
        number = await self._writer.run(lambda: self._register(schema.encoded))
        series = _Series(number, schema, BatchEncoder(schema))
        self._series[name] = series
        await self._on_parcel()
        return series

    def _register(self, encoded: bytes) -> int:
        number, _ = self._schemas.number(encoded)
        mark = f"offered.{self._queue.epoch:016x}.{number}"
        if self._settings.get(mark) is None:
            self._offer(number, encoded)
            self._settings.put(mark, b"\x01")
        return number

    def _offer(self, number: int, encoded: bytes) -> None:
        self._add(ParcelKind.SCHEMA, Precedence.PRIORITY, SchemaOffer(number, encoded).encode())

    async def offer_again(self, numbers: Sequence[int]) -> None:
        """Offer schemas that the gateway asks for; each at most once in a while, since answers may cross."""
        now = self._clock.monotonic()
        for number in numbers:
            known = await self._writer.run(partial(self._schemas.get, number))
            if known is None or now - self._offered_at.get(number, -_OFFER_PAUSE_S) < _OFFER_PAUSE_S:
                continue
            self._offered_at[number] = now
            await self._writer.run(partial(self._offer, known.number, known.schema))
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
        async with self._local_lock:
            series = await self._local_series(values)
            given = dict(values)
            cells = tuple(
                round(given[channel.name] * channel.scale) if channel.name in given else None
                for channel in series.schema.channels
            )
            at_s, boot = self._clock.stamp() if time_s is None else (time_s, None)
            try:
                await self._take(series, boot, at_s, cells)
            except SchemaError as error:
                raise MalformedError(str(error)) from error

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
        parcel = await self._writer.run(lambda: self._add(ParcelKind.EVENT, precedence, payload))
        await self._on_parcel()
        return parcel.sequence

    async def receipt(self, receipt: Receipt) -> None:
        """Queue a receipt."""
        await self._writer.run(lambda: self._add(ParcelKind.RECEIPT, Precedence.PRIORITY, receipt.encode()))
        await self._on_parcel()

    async def clock_known(self) -> None:
        """Close every batch whose times are monotonic and tell the gateway what they mean."""
        for series in self._series.values():
            async with series.lock:
                if series.boot is not None and series.encoder.rows:
                    await self._close(series)
        offset_ms = round((self._clock.offset_s or 0.0) * 1000)
        await self.event("clock", Precedence.PRIORITY, (("boot", self._clock.boot), ("offset_ms", offset_ms)))

    async def run(self) -> None:
        """Close batches that are old enough and report incidents, until cancelled."""
        while True:
            await asyncio.sleep(min(5.0, max(0.2, self.batch_age_s / 4)))
            now = self._clock.monotonic()
            for series in list(self._series.values()):
                async with series.lock:
                    if series.encoder.rows and now - series.opened >= self.batch_age_s:
                        await self._close(series)
            await self._report_incidents()

    async def close_all(self) -> None:
        """Close every open batch now (asked for by a person, or before a planned stop)."""
        for series in self._series.values():
            async with series.lock:
                if series.encoder.rows:
                    await self._close(series)

    async def _report_incidents(self) -> None:
        def report() -> int:
            found = incidents.unreported(self._database)
            for each in found:
                payload = Event(each.name, each.at_s * 1000, dict(each.values)).encode()
                self._add(ParcelKind.EVENT, Precedence.PRIORITY, payload)
            incidents.mark_reported(self._database, [each.id for each in found])
            return len(found)

        if await self._writer.run(report):
            await self._on_parcel()

    async def _local_series(self, values: tuple[tuple[str, float], ...]) -> _Series:
        changed = False
        for name, value in values:
            scale = _scale_of(value)
            known = self._local.get(name)
            if known is None or known.scale < scale:
                self._local[name] = Channel(name=name, scale=scale)
                changed = True
        if len(self._local) > CHANNELS_MAX:
            for name, _ in values:
                self._local.pop(name, None)
            raise MalformedError(f"local scripts may use at most {CHANNELS_MAX} channels")
        old = self._series.get(LOCAL_SERIES)
        if old is not None and not changed:
            return old
        return await self._open_series(LOCAL_SERIES, Schema(tuple(self._local.values()), period_s=_LOCAL_PERIOD_S))

    async def _take(self, series: _Series, boot: int | None, time_s: float, cells: Cells) -> None:
        row = (round(time_s * series.schema.ticks_per_s), cells)
        async with series.lock:
            if series.encoder.rows and series.boot != boot:
                await self._close(series)
            if not series.encoder.rows:
                series.boot, series.opened = boot, self._clock.monotonic()
            kept = OpenRow(series.number, boot, *row)
            if series.encoder.append(row, bytes_max=BODY_BYTES_MAX):
                await self._writer.run(lambda: self._open.add(kept))
                return
            full, series.encoder = series.encoder, BatchEncoder(series.schema)
            series.encoder.append(row)
            series.opened = self._clock.monotonic()
            await self._durably(partial(self._store_batch, series, boot, full, kept, os.urandom(16)))
        await self._on_parcel()

    async def _close(self, series: _Series) -> None:
        full, series.encoder = series.encoder, BatchEncoder(series.schema)
        boot = series.boot
        await self._durably(partial(self._store_batch, series, boot, full, None, os.urandom(16)))
        await self._on_parcel()

    async def _durably(self, store: Callable[[], None]) -> None:
        # After an unknown COMMIT the same token finds the parcel if it is there, so that nothing is doubled or lost.
        for _ in range(_COMMIT_TRIES):
            try:
                return await self._writer.run(store)
            except CommitUnknownError as error:
                log.warning("batch.commit_unknown", reason=str(error))
        raise StoreFailedError("the disk does not take batches: the open rows stay for the next start")

    def _store_batch(
        self, series: _Series, boot: int | None, full: BatchEncoder, first: OpenRow | None, token: bytes
    ) -> None:
        self._add_batch(series.number, series.schema, boot, full, token)
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


def _scale_of(value: float) -> int:
    """Return the power of ten that makes the value an integer, as far as one may be asked for."""
    scale = 1
    while scale < _SCALE_MAX and abs(value * scale - round(value * scale)) > 1e-9 * max(1.0, abs(value * scale)):
        scale *= 10
    return scale
