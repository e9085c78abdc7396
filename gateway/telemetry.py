"""Telemetry on query: signed batches are decoded when somebody asks, steps of hours and days come from rollups.

No sample lies in a table: what is stored is what the truck signed, and what is answered is decoded from it. Decoding
runs in a thread, page by page, so that a long question does not hold up the trucks. A body that does not decode, though
its truck signed it, is skipped and logged; the rollup task puts it aside.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from gateway.api.services import SamplesPage, Series
from protocol import batch as bodies
from protocol.errors import PeerError
from protocol.messages import Batch, unseal
from protocol.schema import Channel, Schema, decode_schema
from store.fleet.evidence import DAY_MS, HOUR_MS, BatchRecord, Rollup
from store.fleet.fleet import FleetStore

_SCHEMAS_MAX = 1_024
_PAGE_BATCHES = 32
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """A batch's rows with wall times (Unix ms) and scaled integers, as `schema` describes them."""

    schema: Schema
    rows: Sequence[tuple[int, tuple[int | None, ...]]]


def decode_batch(record: BatchRecord, schema: Schema) -> DecodedBatch:
    """Return the rows of a stored batch whose clock is known; raise `PeerError` if it is damaged."""
    payload = Batch.decode(unseal(record.sealed).payload)
    tick_ms = 1000 // schema.ticks_per_s
    offset_ms = record.offset_ms or 0
    rows = [(time * tick_ms + offset_ms, values) for time, values in bodies.decode(schema, payload.body)]
    return DecodedBatch(schema, rows)


def physical(channel: Channel, value: int) -> float:
    """Return a scaled integer as the value in the channel's unit."""
    return float(value) if channel.scale == 1 else value / channel.scale


class SchemaCache:
    """Decoded schemas by digest: they never change, and each batch needs one."""

    def __init__(self, fleet: FleetStore) -> None:
        self._fleet = fleet
        self._known: OrderedDict[bytes, Schema] = OrderedDict()

    async def get(self, digest: bytes) -> Schema:
        """Return a schema; raise `PeerError` if the stored one does not decode, `KeyError` if it is not there."""
        known = self._known.get(digest)
        if known is None:
            encoded = await self._fleet.schema(digest)
            if encoded is None:
                raise KeyError(digest.hex())
            known = self._known[digest] = decode_schema(encoded)
            if len(self._known) > _SCHEMAS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return known

    async def decode(self, records: Sequence[BatchRecord]) -> list[tuple[BatchRecord, DecodedBatch]]:
        """Return the batches that decode, in their order; the damaged are logged and left out."""
        pairs = []
        for record in records:
            try:
                pairs.append((record, await self.get(record.schema_digest or b"")))
            except (KeyError, PeerError) as error:
                _log_damaged(record, error)
        return await asyncio.to_thread(_decode_all, pairs)


@dataclass(slots=True)
class _Step:
    """What one channel did in one step."""

    count: int = 0
    total: float = 0.0
    low: float = 0.0
    high: float = 0.0
    last: float = 0.0
    last_ms: int = -1

    def add(self, count: int, total: float, low: float, high: float, last: float, last_ms: int) -> None:
        self.low = low if self.count == 0 else min(self.low, low)
        self.high = high if self.count == 0 else max(self.high, high)
        self.count += count
        self.total += total
        if last_ms >= self.last_ms:
            self.last, self.last_ms = last, last_ms


@dataclass(slots=True)
class _Steps:
    """Steps by channel and start. A rollup knows a channel by its name alone: its unit is looked up when it is read."""

    step_ms: int
    by_unit: bool = True
    found: dict[tuple[str, str], dict[int, _Step]] = field(default_factory=dict)

    def at(self, name: str, unit: str, time_ms: int) -> _Step:
        start_ms = time_ms - time_ms % self.step_ms
        return self.found.setdefault((name, unit if self.by_unit else ""), {}).setdefault(start_ms, _Step())

    def series(self) -> list[Series]:
        return [
            Series(
                name=name,
                unit=unit,
                t_ms=sorted(steps),
                v=[steps[start].total / steps[start].count for start in sorted(steps)],
                low=[steps[start].low for start in sorted(steps)],
                high=[steps[start].high for start in sorted(steps)],
                last=[steps[start].last for start in sorted(steps)],
                count=[steps[start].count for start in sorted(steps)],
            )
            for (name, unit), steps in sorted(self.found.items())
        ]


class Telemetry:
    """Answers what a truck measured (`gateway.api.services.TelemetrySource`)."""

    def __init__(self, fleet: FleetStore) -> None:
        self._fleet = fleet
        self._schemas = SchemaCache(fleet)

    async def samples(
        self, truck: str, *, channels: Sequence[str], since_ms: int, until_ms: int, step_s: int, rows_max: int
    ) -> SamplesPage:
        """Return values in [since_ms, until_ms). Steps begin at multiples of themselves since 1970 (UTC)."""
        wanted = frozenset(channels)
        if step_s == 0:
            return await self._rows(truck, wanted, since_ms, until_ms, rows_max)
        step_ms = step_s * 1000
        since_ms -= since_ms % step_ms
        end_ms = min(until_ms, since_ms + rows_max * step_ms)
        stepped = self._rolled if step_ms % HOUR_MS == 0 else self._computed
        series = (await stepped(truck, wanted, since_ms, end_ms, step_ms)).series()
        return SamplesPage(series, end_ms if end_ms < until_ms else None)

    async def _rolled(self, truck: str, wanted: frozenset[str], since_ms: int, until_ms: int, step_ms: int) -> _Steps:
        units = await self._units(truck)
        kept_ms = DAY_MS if step_ms % DAY_MS == 0 else HOUR_MS
        steps = _Steps(step_ms)
        for each in await self._fleet.rollups(truck, sorted(wanted) or None, since_ms, until_ms, kept_ms):
            step = steps.at(each.channel, units.get(each.channel, ""), each.start_ms)
            step.add(each.count, each.sum, each.minimum, each.maximum, each.last, each.last_ms)
        return steps

    async def _computed(self, truck: str, wanted: frozenset[str], since_ms: int, until_ms: int, step_ms: int) -> _Steps:
        steps = _Steps(step_ms)
        after = None
        while records := await self._fleet.batches(truck, since_ms, until_ms, after, _PAGE_BATCHES):
            after = records[-1].cursor
            decoded = await self._schemas.decode(records)
            for _, each in decoded:
                await asyncio.to_thread(_add_steps, steps, each, wanted, (since_ms, until_ms))
        return steps

    async def _rows(
        self, truck: str, wanted: frozenset[str], since_ms: int, until_ms: int, rows_max: int
    ) -> SamplesPage:
        """Return the first `rows_max` rows in order of time, whatever order their batches came in."""
        rows: list[_TimedRow] = []
        end_ms = until_ms
        after = None
        while records := await self._fleet.batches(truck, since_ms, end_ms, after, _PAGE_BATCHES):
            after = records[-1].cursor
            for _, each in await self._schemas.decode(records):
                rows.extend(_TimedRow(t, each.schema, v) for t, v in each.rows if since_ms <= t < end_ms)
            if len(rows) > rows_max:
                rows.sort(key=_time_of)
                # All rows of one time belong to one page, or the next page could not begin between them. Batches come
                # by their first row, so the earlier end soon leaves none to ask for.
                end_ms = max(rows[rows_max].time_ms, rows[0].time_ms + 1)
                rows = [row for row in rows if row.time_ms < end_ms]
        rows.sort(key=_time_of)
        return SamplesPage(_series(rows, wanted), end_ms if end_ms < until_ms else None)

    async def _units(self, truck: str) -> dict[str, str]:
        units: dict[str, str] = {}
        for record in sorted(await self._fleet.schemas_of(truck), key=lambda each: each.registered_ms):
            try:
                schema = await self._schemas.get(record.digest)
            except (KeyError, PeerError):
                continue
            units |= {channel.name: channel.unit for channel in schema.channels}
        return units


def roll_up(batches: Iterable[tuple[str, DecodedBatch]]) -> list[Rollup]:
    """Return the hourly and daily rollups of decoded batches, each given with its truck."""
    found: dict[tuple[str, int], _Steps] = {}
    for truck, each in batches:
        for step_ms in (HOUR_MS, DAY_MS):
            _add_steps(found.setdefault((truck, step_ms), _Steps(step_ms, by_unit=False)), each, frozenset(), None)
    return [
        Rollup(truck, name, step_ms, start, step.count, step.low, step.high, step.total, step.last, step.last_ms)
        for (truck, step_ms), steps in found.items()
        for (name, _), starts in steps.found.items()
        for start, step in starts.items()
    ]


@dataclass(frozen=True, slots=True)
class _TimedRow:
    time_ms: int
    schema: Schema
    values: tuple[int | None, ...]


def _time_of(row: _TimedRow) -> int:
    return row.time_ms


def _series(rows: Sequence[_TimedRow], wanted: frozenset[str]) -> list[Series]:
    found: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for row in rows:
        for channel, value in zip(row.schema.channels, row.values, strict=True):
            if value is not None and (not wanted or channel.name in wanted):
                times, values = found.setdefault((channel.name, channel.unit), ([], []))
                times.append(row.time_ms)
                values.append(physical(channel, value))
    return [Series(name, unit, times, values) for (name, unit), (times, values) in sorted(found.items())]


def _add_steps(steps: _Steps, batch: DecodedBatch, wanted: frozenset[str], period: tuple[int, int] | None) -> None:
    columns = [pair for pair in enumerate(batch.schema.channels) if not wanted or pair[1].name in wanted]
    for time_ms, values in batch.rows:
        if period is not None and not period[0] <= time_ms < period[1]:
            continue
        for index, channel in columns:
            value = values[index]
            if value is not None:
                number = physical(channel, value)
                steps.at(channel.name, channel.unit, time_ms).add(1, number, number, number, number, time_ms)


def _decode_all(pairs: Sequence[tuple[BatchRecord, Schema]]) -> list[tuple[BatchRecord, DecodedBatch]]:
    decoded = []
    for record, schema in pairs:
        try:
            decoded.append((record, decode_batch(record, schema)))
        except PeerError as error:
            _log_damaged(record, error)
    return decoded


def _log_damaged(record: BatchRecord, error: Exception) -> None:
    _log.error("batch.damaged", truck=record.key.truck, sequence=record.key.sequence, error=str(error))
