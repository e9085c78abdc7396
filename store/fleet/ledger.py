"""The ledger: bytes and money by truck, link, precedence, cause and direction, added up by the hour (UTC).

The gateway's own count and what trucks report are two sources beside each other, so that they can be compared. Lines
are only ever added to. Bytes of strangers count too, under the truck "".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

from sqlalchemy import Select, case, func, literal_column, select

from protocol.numbers import Precedence
from store.fleet.database import FleetPart
from store.fleet.evidence import DAY_MS, HOUR_MS
from store.fleet.records import Contacts, DayUse, Direction, LedgerEntry, LedgerSource, LedgerSum
from store.fleet.tables import ledger_lines

_PLACE: Final = ("source", "truck", "hour_ms", "link", "precedence", "cause", "direction", "currency")
_COUNTS: Final = ("bytes", "datagrams", "billed_bytes", "money_nano")
_LINE: Final = ("truck", "link", "precedence", "cause", "direction", "currency")


class Ledger(FleetPart):
    """The account of every byte."""

    async def ledger_add(self, entries: Sequence[LedgerEntry]) -> None:
        """Add what the gateway counted."""
        await self._write(entries, LedgerSource.GATEWAY)

    async def ledger_reported(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep the totals of an hour that a truck reports; a later report of the hour counts where it is higher."""
        await self._write(entries, LedgerSource.TRUCK)

    async def ledger(
        self,
        truck: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        *,
        source: LedgerSource = LedgerSource.GATEWAY,
        step_ms: int | None = None,
    ) -> list[LedgerSum]:
        """Return sums over the hours that start in [since_ms, until_ms), by step if one is given (whole hours)."""
        line = [ledger_lines.c[name] for name in _LINE]
        sums = [func.sum(ledger_lines.c[name]).label(name) for name in _COUNTS]
        query = select(*line, *sums).where(ledger_lines.c.source == source.value)
        if step_ms is not None:
            # Bound as a literal: PostgreSQL takes two parameters for two expressions and refuses the GROUP BY.
            start = (ledger_lines.c.hour_ms - ledger_lines.c.hour_ms % literal_column(str(int(step_ms)))).label(
                "start_ms"
            )
            query = query.add_columns(start).group_by(*line, start).order_by(start, *line)
        else:
            query = query.group_by(*line).order_by(*line)
        if truck is not None:
            query = query.where(ledger_lines.c.truck == truck)
        if since_ms is not None:
            query = query.where(ledger_lines.c.hour_ms >= since_ms)
        if until_ms is not None:
            query = query.where(ledger_lines.c.hour_ms < until_ms)
        async with self._database.read() as connection:
            return [_sum(row) for row in (await connection.execute(query)).mappings()]

    async def ledger_days(
        self, trucks: Sequence[str], since_ms: int, until_ms: int
    ) -> dict[tuple[str, str], dict[int, DayUse]]:
        """Return what trucks used of each link by day (days since 1970, UTC), as the gateway counted it.

        Days of [since_ms, until_ms) on which nothing was carried are left out.
        """
        start = (ledger_lines.c.hour_ms - ledger_lines.c.hour_ms % literal_column(str(DAY_MS))).label("start_ms")
        query = _use(trucks, since_ms, until_ms).add_columns(start).group_by(start)
        found: dict[tuple[str, str], dict[int, DayUse]] = {}
        async with self._database.read() as connection:
            for row in (await connection.execute(query)).mappings():
                found.setdefault((row["truck"], row["link"]), {})[row["start_ms"] // DAY_MS] = _day_use(row)
        return found

    async def ledger_use(self, trucks: Sequence[str], since_ms: int, until_ms: int) -> dict[tuple[str, str], DayUse]:
        """Return what trucks used of each link in the hours that start in [since_ms, until_ms)."""
        async with self._database.read() as connection:
            found = (await connection.execute(_use(trucks, since_ms, until_ms))).mappings()
            return {(row["truck"], row["link"]): _day_use(row) for row in found}

    async def ledger_contacts(self, truck: str, since_ms: int, until_ms: int) -> dict[str, Contacts]:
        """Return how often each link of a truck was there, and what it brought in its best hour, in whole hours."""
        content = case((ledger_lines.c.cause == "content", ledger_lines.c.bytes), else_=0)
        hours = (
            select(
                ledger_lines.c.link,
                ledger_lines.c.hour_ms,
                func.sum(case((ledger_lines.c.direction == Direction.DOWN.value, content), else_=0)).label("content"),
            )
            .where(
                ledger_lines.c.source == LedgerSource.GATEWAY.value,
                ledger_lines.c.truck == truck,
                ledger_lines.c.hour_ms >= since_ms,
                ledger_lines.c.hour_ms < until_ms,
            )
            .group_by(ledger_lines.c.link, ledger_lines.c.hour_ms)
            .subquery()
        )
        query = select(hours.c.link, func.count().label("hours"), func.max(hours.c.content).label("best"))
        async with self._database.read() as connection:
            found = await connection.execute(query.group_by(hours.c.link))
            return {row.link: Contacts(int(row.hours), int(row.best or 0)) for row in found}

    async def _write(self, entries: Sequence[LedgerEntry], source: LedgerSource) -> None:
        lines: dict[tuple[Any, ...], LedgerEntry] = {}
        for entry in entries:
            place = _place(entry, source)
            lines[place] = _plus(lines.get(place), entry)
        if not lines:
            return
        rows = [
            dict(zip(_PLACE, place, strict=True)) | {name: getattr(line, name) for name in _COUNTS}
            for place, line in sorted(lines.items(), key=lambda item: item[0])
        ]
        statement = self._database.insert(ledger_lines)
        new, old = statement.excluded, ledger_lines.c
        if source is LedgerSource.GATEWAY:
            # One place has one currency, and "" has no money: a sum is never of both.
            merge = statement.on_conflict_do_update(
                index_elements=list(_PLACE), set_={name: old[name] + new[name] for name in _COUNTS}
            )
        else:
            merge = statement.on_conflict_do_update(
                index_elements=list(_PLACE),
                set_={name: new[name] for name in _COUNTS},
                where=new.bytes >= old.bytes,
            )
        async with self._database.write() as transaction:
            await transaction.execute(merge, rows)


def _plus(before: LedgerEntry | None, entry: LedgerEntry) -> LedgerEntry:
    """Return an entry with another one of its place added; its counts as the table has them."""
    if (entry.money_nano is None) != (not entry.currency):
        raise ValueError("money has a currency, and what has none has no money")
    if entry.billed_bytes is None:
        entry = replace(entry, billed_bytes=entry.bytes)
    if before is None:
        return entry
    sums = {name: getattr(before, name) + getattr(entry, name) for name in _COUNTS[:-1]}
    money = None if before.money_nano is None or entry.money_nano is None else before.money_nano + entry.money_nano
    return replace(entry, **sums, money_nano=money)


def _place(entry: LedgerEntry, source: LedgerSource) -> tuple[Any, ...]:
    hour_ms = entry.at_ms - entry.at_ms % HOUR_MS
    return (
        source.value,
        entry.truck,
        hour_ms,
        entry.link,
        int(entry.precedence),
        entry.cause,
        entry.direction.value,
        entry.currency,
    )


def _sum(row: Any) -> LedgerSum:
    values = {each.name: row.get(each.name) for each in fields(LedgerSum)}
    values["precedence"] = Precedence(row["precedence"])
    values["direction"] = Direction(row["direction"])
    for name in _COUNTS:
        values[name] = None if row[name] is None else int(row[name])  # PostgreSQL sums bigints to a decimal
    return LedgerSum(**values)


def _use(trucks: Sequence[str], since_ms: int, until_ms: int) -> Select[Any]:
    line = (ledger_lines.c.truck, ledger_lines.c.link)
    sums = [func.sum(ledger_lines.c[name]).label(name) for name in _COUNTS]
    return (
        select(*line, *sums)
        .where(
            ledger_lines.c.source == LedgerSource.GATEWAY.value,
            ledger_lines.c.truck.in_(trucks),
            ledger_lines.c.hour_ms >= since_ms,
            ledger_lines.c.hour_ms < until_ms,
        )
        .group_by(*line)
    )


def _day_use(row: Any) -> DayUse:
    return DayUse(*(int(row[name] or 0) for name in _COUNTS))
