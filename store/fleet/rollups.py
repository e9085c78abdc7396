"""Rollups: count, extremes, sum and last value of each channel by the hour and by the day (UTC).

A background task of the gateway decodes batches that are ready and adds what they hold. There is no cursor that could
run ahead of a slower commit: each batch itself says whether it was rolled up, and is marked in the same transaction
that adds its values, so a crash neither loses nor doubles any.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Column, Select, Table, and_, bindparam, case, func, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from store.fleet.database import Database, Executes, FleetPart, Transaction, may_start_over
from store.fleet.errors import RolledUpError
from store.fleet.evidence import HOUR_MS, BatchRecord, BatchSpan, BatchState, LatestValue, ParcelKey, Rollup
from store.fleet.limits import PAGE_MAX, TRANSACTION_ATTEMPTS_MAX
from store.fleet.schemas import OPEN
from store.fleet.tables import batches, latest_values, parcels, rollups
from store.fleet.tables import summarised as summarised_table
from store.fleet.telemetry import batch_record, select_batches

_CORRECT = (
    update(batches)
    .where(batches.c.id == bindparam("parcel_id"))
    .values(first_ms=bindparam("from_ms"), last_ms=bindparam("to_ms"))
)
_PLACE = ("truck", "channel", "unit", "step_ms", "start_ms")
_KEYS_MAX = 4_000  # asked for by one statement, which may have 32,766 parameters
_READY = batches.c.state == int(BatchState.READY)


class Rollups(FleetPart):
    """Telemetry summed up."""

    async def pending_rollups(self, limit: int = 100) -> list[BatchRecord]:
        """Return batches that are to be rolled up, oldest first."""
        query = select_batches().where(OPEN, _READY).order_by(batches.c.id).limit(min(limit, PAGE_MAX))
        async with self._database.read() as connection:
            return [batch_record(row) for row in await connection.execute(query)]

    async def add_rollups(
        self,
        rolled: Sequence[ParcelKey],
        values: Sequence[Rollup],
        spans: Sequence[BatchSpan] = (),
        *,
        told: frozenset[ParcelKey] = frozenset(),
        summarised: Sequence[ParcelKey] = (),
    ) -> None:
        """Add the values of these batches, mark the batches, and correct the times of those in `spans`: all or nothing.

        `told` are those of which a summary has told already, so that they add nothing; `summarised` are the batches
        of which `values` tell because a summary among `rolled` stands for them. Raise `RolledUpError` if that does not
        hold any more, or one of them is not waiting (another process was quicker): nothing is added, and
        `pending_rollups` says what is left to do.
        """
        for attempt in range(1, TRANSACTION_ATTEMPTS_MAX + 1):
            try:
                async with self._database.write() as transaction:
                    # A detail and its summary may be rolled up by two gateways: one of them is second, and sees it.
                    await self._database.lock(transaction, "rollups")
                    await _mark(transaction, rolled)
                    if await _summarised(transaction, rolled) != told or await _counted(transaction, summarised):
                        raise RolledUpError("what detail and what summaries tell has changed")
                    if summarised:
                        await transaction.execute(
                            self._database.insert(summarised_table), [asdict(e) for e in summarised]
                        )
                    await _merge(self._database, transaction, values)
                    await _note_latest(self._database, transaction, values)
                    if spans:
                        await transaction.execute(
                            _CORRECT,
                            [{"parcel_id": span.id, "from_ms": span.first_ms, "to_ms": span.last_ms} for span in spans],
                        )
                return
            except DBAPIError as error:
                if attempt == TRANSACTION_ATTEMPTS_MAX or not may_start_over(error):
                    raise

    async def told_in_summaries(self, keys: Sequence[ParcelKey]) -> frozenset[ParcelKey]:
        """Return which of these batches a rolled up summary stands for."""
        async with self._database.read() as connection:
            return await _summarised(connection, keys)

    async def counted(self, keys: Sequence[ParcelKey]) -> frozenset[ParcelKey]:
        """Return which of these batches are in the rollups already: by themselves, or by a summary."""
        async with self._database.read() as connection:
            return await _counted(connection, keys)

    async def rollups(
        self, truck: str, channels: Collection[str] | None, since_ms: int, until_ms: int, step_ms: int = HOUR_MS
    ) -> list[Rollup]:
        """Return the rollups that start in [since_ms, until_ms), by channel and time; None asks for every channel."""
        query = (
            select(rollups)
            .where(rollups.c.truck == truck, rollups.c.step_ms == step_ms)
            .where(rollups.c.start_ms >= since_ms, rollups.c.start_ms < until_ms)
            .order_by(rollups.c.channel, rollups.c.unit, rollups.c.start_ms)
        )
        if channels is not None:
            query = query.where(rollups.c.channel.in_(list(channels)))
        async with self._database.read() as connection:
            return [Rollup(**row) for row in (await connection.execute(query)).mappings()]

    async def channels_of(self, truck: str) -> list[str]:
        """Return the names of the channels that a truck has rollups of."""
        query = select(rollups.c.channel).where(rollups.c.truck == truck).distinct().order_by(rollups.c.channel)
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def latest_values(
        self, after: tuple[str, str, str] | None = None, limit: int = PAGE_MAX, truck: str | None = None
    ) -> list[LatestValue]:
        """Return the newest value of each channel by truck, name and unit; `after` is such a triple."""
        table = latest_values.c
        place = (table.truck, table.channel, table.unit)
        query = select(latest_values).order_by(*place).limit(min(limit, PAGE_MAX))
        if truck is not None:
            query = query.where(table.truck == truck)
        if after is not None:
            query = query.where(tuple_(*place) > after)
        async with self._database.read() as connection:
            return [LatestValue(**row) for row in (await connection.execute(query)).mappings()]

    async def latest_of_units(self, units: Collection[str], trucks: Collection[str]) -> list[LatestValue]:
        """Return the newest values of some units of some trucks (at most `PAGE_MAX` of them), by truck and channel."""
        table = latest_values.c
        query = select(latest_values).where(table.unit.in_(sorted(units)), table.truck.in_(sorted(trucks)[:PAGE_MAX]))
        async with self._database.read() as connection:
            found = (await connection.execute(query.order_by(table.truck, table.channel))).mappings()
            return [LatestValue(**row) for row in found]

    async def count_latest_values(self) -> int:
        """Return how many channels of how many trucks together have a newest value."""
        async with self._database.read() as connection:
            return (await connection.execute(select(func.count()).select_from(latest_values))).scalar_one()


async def _mark(transaction: Transaction, rolled: Sequence[ParcelKey]) -> None:
    key = tuple_(parcels.c.truck, parcels.c.epoch, parcels.c.sequence)
    keys = {(each.truck, each.epoch, each.sequence) for each in rolled}
    if not keys:
        return
    ids = select(parcels.c.id).where(key.in_(sorted(keys)))
    marked = await transaction.execute(
        update(batches).where(batches.c.id.in_(ids), _READY).values(state=int(BatchState.ROLLED))
    )
    if marked.rowcount != len(keys):
        raise RolledUpError(f"{len(keys) - marked.rowcount} of {len(keys)} batches are not to be rolled up any more")


async def _summarised(connection: Executes, keys: Sequence[ParcelKey]) -> frozenset[ParcelKey]:
    return await _found(connection, keys, select(*_key_of(summarised_table)), summarised_table)


async def _counted(connection: Executes, keys: Sequence[ParcelKey]) -> frozenset[ParcelKey]:
    rolled = select(*_key_of(parcels)).join(batches, batches.c.id == parcels.c.id)
    rolled = rolled.where(batches.c.state == int(BatchState.ROLLED))
    return await _summarised(connection, keys) | await _found(connection, keys, rolled, parcels)


def _key_of(table: Table) -> tuple[Column[Any], ...]:
    return (table.c.truck, table.c.epoch, table.c.sequence)


async def _found(
    connection: Executes, keys: Sequence[ParcelKey], query: Select[Any], table: Table
) -> frozenset[ParcelKey]:
    wanted = sorted({(each.truck, each.epoch, each.sequence) for each in keys})
    found: set[ParcelKey] = set()
    for at in range(0, len(wanted), _KEYS_MAX):
        asked = wanted[at : at + _KEYS_MAX]
        rows = await connection.execute(query.where(tuple_(*_key_of(table)).in_(asked)))
        found |= {ParcelKey(row.truck, row.epoch, row.sequence) for row in rows}
    return frozenset(found)


async def _merge(database: Database, transaction: Transaction, values: Sequence[Rollup]) -> None:
    if not values:
        return
    statement = database.insert(rollups)
    new, old = statement.excluded, rollups.c
    later = new.last_ms >= old.last_ms
    merge = statement.on_conflict_do_update(
        index_elements=["truck", "channel", "unit", "step_ms", "start_ms"],
        set_={
            "count": old.count + new.count,
            "minimum": case((new.minimum < old.minimum, new.minimum), else_=old.minimum),
            "maximum": case((new.maximum > old.maximum, new.maximum), else_=old.maximum),
            "sum": old.sum + new.sum,
            "last": case((later, new.last), else_=old.last),
            "last_ms": case((later, new.last_ms), else_=old.last_ms),
            "repaired": old.repaired + new.repaired,
            "period_s": case((new.period_s < old.period_s, new.period_s), else_=old.period_s),
        },
        where=and_(new.count > 0),
    )
    # In one order for everybody: two gateways that lock rows crosswise would wait for each other.
    rows = sorted((asdict(each) for each in values), key=lambda row: [row[name] for name in _PLACE])
    await transaction.execute(merge, rows)


async def _note_latest(database: Database, transaction: Transaction, values: Sequence[Rollup]) -> None:
    newest: dict[tuple[str, str, str], Rollup] = {}
    for each in values:
        place = (each.truck, each.channel, each.unit)
        if each.count and (place not in newest or newest[place].last_ms < each.last_ms):
            newest[place] = each
    if not newest:
        return
    statement = database.insert(latest_values)
    new, old = statement.excluded, latest_values.c
    merge = statement.on_conflict_do_update(
        index_elements=["truck", "channel", "unit"],
        set_={"time_ms": new.time_ms, "value": new.value},
        where=new.time_ms >= old.time_ms,
    )
    await transaction.execute(
        merge,
        [
            {"truck": truck, "channel": channel, "unit": unit, "time_ms": newest[place].last_ms, "value": value.last}
            for place, value in sorted(newest.items(), key=lambda item: item[0])
            for truck, channel, unit in (place,)
        ],
    )
