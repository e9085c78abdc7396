"""The recorder: takes the rows of collectors, the records and events of scripts, and receipts, and has them queued.

What it has accepted is durable: rows by `edge.batches`, the rest as parcels. It also tells what the store reports of
itself, and what the times of this boot mean once the clock is known.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
from msgspec.structs import replace

from edge.batches import Cells, OpenBatches, Series
from edge.clock import Clock
from edge.ladder import Ladder
from edge.log_limit import LogLimit
from edge.moment import Moment
from edge.outbox import Outbox
from protocol.cose import SigningKey
from protocol.errors import LocalError, MalformedError, QueueFullError
from protocol.messages import Event, Parcel, Receipt
from protocol.numbers import PARCEL_BYTES_MAX, DocumentKind, ParcelKind, Precedence
from protocol.rows import check_row
from protocol.schema import CHANNELS_MAX, Channel, Schema
from store import incidents
from store.database import Database
from store.documents import Documents, Treatment
from store.errors import CommitUnknownError
from store.parcels import ParcelQueue
from store.settings import Settings
from store.writer import Writer

log = structlog.get_logger("edge.recorder")

LOCAL_SERIES = "local"
_LOCAL_PERIOD_S = 60
_SCALE_MAX = 1_000_000
_CLIMB_S = 600.0
_ENVELOPE_BYTES = 256  # the signature and the head around a payload


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
        summary_after_s: float = 0.0,
        moment: Callable[[], Moment] = Moment,
    ) -> None:
        """`summary_after_s`: detail that waits for longer is summarised; 0: never, though it is folded to make room.

        `moment` tells what a batch would cost that closes now.
        """
        self.batch_age_s = batch_age_s
        self.summary_after_s = summary_after_s
        self._moment = moment
        self._database = database
        self._writer = writer
        self._clock = clock
        self._on_parcel = on_parcel
        self._outbox = Outbox(truck, key, queue, writer, clock)
        self._batches = OpenBatches(self._outbox, database, writer, on_parcel)
        self._ladder = Ladder(self._outbox, database)
        self._climbed_at = -math.inf
        self._documents = Documents(database)
        self._settings = Settings(database)
        self._local: dict[str, Channel] = {}
        self._local_lock = asyncio.Lock()
        self._limit = LogLimit()

    @property
    def batches(self) -> int:
        """How many batches were closed since the start."""
        return self._batches.closed

    async def recover(self) -> None:
        """Close what was open when the daemon last stopped; call it once, before anything is recorded."""
        await self._batches.recover()

    async def open_series(
        self,
        name: str,
        schema: Schema,
        *,
        age_s: float | None = None,
        precedence: Precedence = Precedence.NORMAL,
    ) -> None:
        """Register the schema of a collector's rows under its name; its batches may be closed younger than others."""
        await self._batches.open_series(name, schema, age_s=age_s, precedence=precedence)

    async def offer_again(self, numbers: Sequence[int]) -> None:
        """Offer schemas that the gateway asks for; each at most once in a while, since answers may cross."""
        await self._batches.offer_again(numbers)

    async def use_codec(self, codec: int) -> None:
        """Take the newest codec that the gateway decodes."""
        await self._batches.use_codec(codec)

    async def on_row(self, name: str, monotonic_s: float, cells: Cells) -> None:
        """Take one row of a collector; it is durable when this returns."""
        series = self._batches.series(name)
        if series is None:
            raise LocalError(f"no schema is registered for the rows of {name}")
        offset_s = self._clock.offset_s
        boot = self._clock.boot if offset_s is None else None
        time_s = monotonic_s if offset_s is None else monotonic_s + offset_s
        await self._batches.take(series, boot, time_s, cells)

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
            await self._batches.take(series, boot, at_s, cells)

    async def event(
        self,
        name: str,
        precedence: Precedence,
        values: tuple[tuple[str, int | bool | str], ...] = (),
        time_s: float | None = None,
        *,
        mark: tuple[str, bytes] | None = None,
    ) -> int:
        """Take one event; return the sequence of its parcel, durable by then, and `mark` (see `remember`) with it.

        Raises `MalformedError` for what the gateway would put aside instead of storing it.
        """
        at_s, boot = self._clock.stamp() if time_s is None else (time_s, None)
        payload = _sound(Event(name, int(at_s * 1000), dict(values), boot))
        token = os.urandom(16)

        def store() -> Parcel:
            if mark is not None:
                self._settings.put(*mark)
            return self._outbox.add(ParcelKind.EVENT, precedence, payload, token=token)

        parcel = await self._outbox.durably(store)
        await self._on_parcel()
        return parcel.sequence

    async def remember(self, name: str, value: bytes) -> None:
        """Keep what somebody who tells of rows needs to know after a restart."""
        await self._outbox.durably(partial(self._settings.put, name, value))

    async def remembered(self, name: str) -> bytes | None:
        """Return what was kept under a name."""
        return await self._writer.run(partial(self._settings.get, name))

    async def receipt(self, receipt: Receipt) -> None:
        """Queue a receipt, unless it says what the last one of its document said."""
        wall_s = self._clock.wall_s()
        if not receipt.time_ms and wall_s is not None:
            receipt = replace(receipt, time_ms=int(wall_s * 1000))
        if await self._outbox.durably(partial(self._treat, receipt)):
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
            self._outbox.add(ParcelKind.RECEIPT, Precedence.PRIORITY, receipt.encode())
        return due

    async def clock_known(self) -> None:
        """Close every batch whose times are monotonic and tell the gateway what they mean."""
        await self._batches.close_of_boot()
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
        """Close the batches that are old enough, report incidents, and summarise what waits."""
        await self._batches.close_due(self._moment(), self.batch_age_s)
        await self._report_incidents()
        now = self._clock.monotonic()
        if now - self._climbed_at >= min(_CLIMB_S, self.summary_after_s / 4):
            self._climbed_at = now
            if await self._ladder.climb(self.summary_after_s):
                await self._on_parcel()

    async def close_all(self) -> None:
        """Close every open batch now (asked for by a person, or before a planned stop)."""
        await self._batches.close_all()

    def reseal(self, parcel: Parcel, meaning: bytes | None) -> bytes:
        """Seal a parcel again under a new number."""
        return self._outbox.reseal(parcel, meaning)

    async def _report_incidents(self) -> None:
        def report() -> int:
            found = incidents.unreported(self._database)
            for each in found:
                # One of before the clock was known is told by the time of this boot: they are reported at once.
                at_s, boot = (each.at_s, None) if each.at_s else self._clock.stamp()
                payload = Event(each.name, int(at_s * 1000), dict(each.values), boot).encode()
                self._outbox.add(ParcelKind.EVENT, Precedence.PRIORITY, payload)
            incidents.mark_reported(self._database, [each.id for each in found])
            return len(found)

        if await self._writer.run(report):
            await self._on_parcel()

    async def _local_series(self, values: tuple[tuple[str, float], ...]) -> Series:
        declared = dict(self._local)
        for name, value in values:
            scale = _scale_of(value)
            known = declared.get(name)
            if known is None or known.scale < scale:
                declared[name] = Channel(name=name, scale=scale)
        if len(declared) > CHANNELS_MAX:
            raise MalformedError(f"local scripts may use at most {CHANNELS_MAX} channels")
        changed, self._local = declared != self._local, declared
        old = self._batches.series(LOCAL_SERIES)
        if old is not None and not changed:
            return old
        return await self._batches.open_series(
            LOCAL_SERIES, Schema(tuple(self._local.values()), period_s=_LOCAL_PERIOD_S)
        )


def _sound(event: Event) -> bytes:
    """Return the encoded event; raise `MalformedError` unless it decodes again, as the gateway will have it."""
    try:
        payload = event.encode()
        Event.decode(payload)
        if len(payload) > PARCEL_BYTES_MAX - _ENVELOPE_BYTES:
            raise MalformedError(f"{len(payload)} bytes are more than a parcel holds")
    except (MalformedError, ValueError, OverflowError) as error:
        raise MalformedError(
            f"the event {event.name[:80]!r} cannot be recorded: {str(error)[:200]}; a name is 1 to 64 of a-z, 0-9, "
            "dots, dashes and underscores, and starts with a letter or a digit"
        ) from error
    return payload


def _scale_of(value: float) -> int:
    """Return the power of ten that makes the value an integer, as far as one may be asked for."""
    scale = 1
    while scale < _SCALE_MAX and abs(value * scale - round(value * scale)) > 1e-9 * max(1.0, abs(value * scale)):
        scale *= 10
    return scale
