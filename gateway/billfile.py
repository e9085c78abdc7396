"""A provider's bill as a CSV file: which bytes it counts on which day, whatever its columns are called. Pure.

Providers agree on nothing: delimiter, decimal sign, units, date order and time zone are found out where the file leaves
no doubt, and asked for where it does. A guess is never silent: what was understood is returned beside the days.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from protocol.errors import MalformedError
from protocol.windows import DAY_S, Offset, to_utc

BYTES_MAX: Final = 32 << 20
ROWS_MAX: Final = 500_000
DAYS_MAX: Final = 800
_HEADER_WITHIN: Final = 40
UNITS: Final = {
    "B": 1, "KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000,
    "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30,
}  # fmt: skip
_UNIT = re.compile(r"(?<![a-z])(bytes?|octets?|[kmg]?i?b)(?:ytes)?(?![a-z])", re.IGNORECASE)
_TIME = re.compile(r"date|time|day|start|begin|datum|zeit|fecha|jour", re.IGNORECASE)
_NO_TIME = re.compile(r"end|stop|zone|duration|until|last", re.IGNORECASE)
_TOTAL = re.compile(r"total|sum|usage|volume|consum|billed|rated|data", re.IGNORECASE)
_WAY = re.compile(
    r"\b(up|down|rx|tx|in|out)\b|upload|download|uplink|downlink|sent|received|inbound|outbound", re.IGNORECASE
)
_FORMATS: Final = (
    "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%Y%m%d", "%d %b %Y", "%d-%b-%Y",
    "%b %d, %Y", "%d/%m/%y", "%m/%d/%y",
)  # fmt: skip
_TIMES: Final = ("", " %H:%M", " %H:%M:%S", " %I:%M:%S %p", " %I:%M %p", "T%H:%M:%S")


@dataclass(frozen=True, slots=True)
class BillOptions:
    """What the file leaves open: column names, unit, decimal sign, date format (strptime), and which rows count."""

    time_column: str | None = None
    bytes_columns: tuple[str, ...] = ()
    unit: str | None = None
    decimal: str | None = None
    delimiter: str | None = None
    date_format: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BillDay:
    """Billed bytes of one local day, from `since_s` to `until_s` (Unix)."""

    since_s: int
    until_s: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Bill:
    """The days of a bill, ascending, and how its file was understood, to be shown."""

    days: tuple[BillDay, ...]
    rows: int
    skipped: int
    understood: str


def read_bill(text: str, offset: Offset, options: BillOptions) -> Bill:
    """Return the days of a bill in the provider's time zone; raise `MalformedError` saying which option helps."""
    table = _rows(text, options)
    header, rows = _split(table, options)
    time_at = _time_column(header, options)
    columns = _bytes_columns(header, options, time_at)
    wanted = [(_at(header, name), value.strip().casefold()) for name, value in options.where.items()]
    kept = [row for row in rows if all(_cell(row, at).casefold() == value for at, value in wanted)]
    if wanted and not kept:
        raise MalformedError("no row has what --where asks for")
    when = _reader(kept, time_at, options)
    decimal = options.decimal or _decimal([_cell(row, at) for row in kept for at, _ in columns])
    sums: dict[int, int] = {}
    read = 0
    for number, row in enumerate(kept, start=1):
        at_s = when(row)
        if at_s is None:
            continue
        local = at_s if isinstance(at_s, int) else to_utc(_local_s(at_s), offset)
        day = (local + offset(local)) // DAY_S
        sums[day] = sums.get(day, 0) + sum(_bytes(_cell(row, at), unit, decimal, number) for at, unit in columns)
        read += 1
    if not read:
        raise MalformedError(
            f"no row of the bill has a time that can be read in {header[time_at]!r}: give --date-format"
        )
    if len(sums) > DAYS_MAX:
        raise MalformedError(f"the bill is of more than {DAYS_MAX} days")
    days = tuple(
        BillDay(to_utc(day * DAY_S, offset), to_utc((day + 1) * DAY_S, offset), count)
        for day, count in sorted(sums.items())
    )
    named = " + ".join(f"{header[at]!r} ({_named(unit)})" for at, unit in columns)
    return Bill(days, read, len(kept) - read, f"times of {header[time_at]!r}, bytes of {named}")


def _rows(text: str, options: BillOptions) -> list[list[str]]:
    lines = text.lstrip("﻿").splitlines()
    if options.delimiter is not None:
        delimiters: Sequence[str] = [options.delimiter]
    else:
        delimiters = (",", ";", "\t", "|")
    best: list[list[str]] = []
    for delimiter in delimiters:
        try:
            rows = [row for row, _ in zip(csv.reader(lines, delimiter=delimiter), range(ROWS_MAX + 1), strict=False)]
        except csv.Error as error:
            raise MalformedError(f"this is no CSV file: {error}") from error
        if len(rows) > ROWS_MAX:
            raise MalformedError(f"the bill has more than {ROWS_MAX} rows")
        if _width(rows) > _width(best):
            best = rows
    if _width(best) < 2:
        raise MalformedError("this is no table with columns: give --delimiter")
    return best


def _width(rows: Sequence[Sequence[str]]) -> int:
    """Return how many columns most of the first rows have."""
    widths = sorted(len(row) for row in rows[:_HEADER_WITHIN] if row)
    return widths[len(widths) // 2] if widths else 0


def _split(rows: Sequence[list[str]], options: BillOptions) -> tuple[list[str], Sequence[list[str]]]:
    """Return the header and what is below: providers put their address above it."""
    named = [each for each in (options.time_column, *options.bytes_columns) if each is not None]
    for at, row in enumerate(rows[:_HEADER_WITHIN]):
        header = [cell.strip() for cell in row]
        folded = [cell.casefold() for cell in header]
        if named and all(name.strip().casefold() in folded for name in named):
            return header, rows[at + 1 :]
        is_header = any(_TIME.search(cell) for cell in header) and any(
            _TOTAL.search(cell) or _WAY.search(cell) or _UNIT.search(cell) for cell in header
        )
        if not named and len(header) > 1 and is_header:
            return header, rows[at + 1 :]
    told = ", ".join(repr(cell) for cell in rows[0][:12])
    raise MalformedError(
        f"no row names the columns for time and bytes: give --time-column and --bytes-column (of {told})"
    )


def _time_column(header: Sequence[str], options: BillOptions) -> int:
    if options.time_column is not None:
        return _at(header, options.time_column)
    found = [at for at, cell in enumerate(header) if _TIME.search(cell) and not _NO_TIME.search(cell)]
    if not found:
        raise MalformedError(f"no column is a time: give --time-column, one of {', '.join(map(repr, header))}")
    # The first that speaks of a date or a beginning: an invoice's own date comes later, if at all.
    return next((at for at in found if re.search(r"start|begin|usage|session", header[at], re.IGNORECASE)), found[0])


def _bytes_columns(header: Sequence[str], options: BillOptions, time_at: int) -> list[tuple[int, int | None]]:
    """Return the columns whose sum is billed, with their units (None: each cell says its own)."""
    if options.bytes_columns:
        chosen = [_at(header, name) for name in options.bytes_columns]
    else:
        others = [at for at in range(len(header)) if at != time_at and not _TIME.search(header[at])]
        totals = [at for at in others if _TOTAL.search(header[at]) and not _WAY.search(header[at])]
        totals = [at for at in totals if _UNIT.search(header[at])] or totals
        ways = [at for at in others if _WAY.search(header[at])]
        bare = [at for at in others if _UNIT.search(header[at])]
        chosen = totals or ways or bare
        if len(totals) > 1:
            names = ", ".join(repr(header[at]) for at in totals)
            raise MalformedError(f"any of {names} may be what is billed: choose with --bytes-column")
        if not chosen:
            raise MalformedError(f"no column is of bytes: give --bytes-column, one of {', '.join(map(repr, header))}")
    unit = None if options.unit is None else _unit(options.unit)
    return [(at, unit or _unit_in(header[at])) for at in chosen]


def _at(header: Sequence[str], name: str) -> int:
    folded = [cell.casefold() for cell in header]
    if name.strip().casefold() not in folded:
        raise MalformedError(f"there is no column {name!r}, only {', '.join(map(repr, header))}")
    return folded.index(name.strip().casefold())


def _unit(text: str) -> int:
    name = text.strip().upper()
    if name not in UNITS:
        raise MalformedError(f"{text!r} is no unit: B, kB, MB, GB (decimal), KiB, MiB or GiB")
    return UNITS[name]


def _unit_in(text: str) -> int | None:
    found = _UNIT.search(text)
    if found is None:
        return None
    word = found[1].upper()
    return 1 if word[0] in "BO" else UNITS[word]


def _named(unit: int | None) -> str:
    names = {1: "B", **{count: name for name, count in UNITS.items() if count > 1}}
    return "each with its unit" if unit is None else names[unit].replace("K", "k").replace("IB", "iB")


def _cell(row: Sequence[str], at: int) -> str:
    return row[at].strip() if at < len(row) else ""


# -- numbers -----------------------------------------------------------------------------------------------------------


def _decimal(cells: Iterable[str]) -> str:
    """Return the decimal sign that the cells speak for; raise `MalformedError` where both could be meant."""
    signs = set()
    doubtful = False
    for cell in cells:
        marks = [char for char in cell if char in ".,"]
        if len(set(marks)) == 2:
            signs.add(marks[-1])
        elif len(marks) > 1:
            signs.add("." if marks[0] == "," else ",")
        elif marks:
            digits = re.search(r"[.,]([0-9]+)", cell)
            if digits is not None and len(digits[1]) != 3:
                signs.add(marks[0])
            else:
                doubtful = True
    if len(signs) > 1:
        raise MalformedError("numbers with a decimal point and with a decimal comma: give --decimal")
    if not signs and doubtful:
        raise MalformedError("whether 1.234 is a thousand or one is not clear from this bill: give --decimal . or ,")
    return signs.pop() if signs else "."


def _bytes(cell: str, unit: int | None, decimal: str, number: int) -> int:
    if not cell or cell in ("-", "n/a", "N/A"):
        return 0
    own = _unit_in(cell)
    bare = _UNIT.sub("", cell).strip().replace(" ", "").replace("\xa0", "").replace("'", "")
    bare = bare.replace("," if decimal == "." else ".", "").replace(decimal, ".")
    factor = own if own is not None else unit
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,12})?", bare):
        raise MalformedError(f"row {number}: {cell[:40]!r} is no number of bytes")
    if factor is None:
        raise MalformedError(f"nothing says in which unit {cell[:40]!r} is: give --unit")
    whole, _, fraction = bare.partition(".")
    return int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)


# -- times -------------------------------------------------------------------------------------------------------------


def _reader(
    rows: Sequence[Sequence[str]], at: int, options: BillOptions
) -> Callable[[Sequence[str]], int | datetime | None]:
    """Return what reads a row's time: Unix seconds where it is certain, else local time; None for rows without one."""
    cells = [text for row in rows if (text := _cell(row, at))]
    if options.date_format is not None:
        chosen = [options.date_format]
    else:
        if cells and all(re.fullmatch(r"[0-9]{10}", cell) for cell in cells):
            return lambda row: int(_cell(row, at)) if _cell(row, at) else None
        if any(_iso(cell) is not None for cell in cells):
            return lambda row: _iso(_cell(row, at))
        likely = cells[:2_000]
        share = max(1, len(likely) * 9 // 10)  # a line of totals has none
        every = [day + time for day in _FORMATS for time in _TIMES]
        chosen = [each for each in every if sum(_strp(cell, each) is not None for cell in likely) >= share]
        meant = {tuple(_strp(cell, each) for cell in likely) for each in chosen}
        if len(meant) > 1:
            names = " or ".join(chosen[:3])
            raise MalformedError(f"days and months cannot be told apart in {likely[0]!r}: give --date-format ({names})")
        if not chosen:
            raise MalformedError(f"{likely[0] if likely else ''!r} is no time that is known here: give --date-format")
    return lambda row: _strp(_cell(row, at), chosen[0])


def _iso(cell: str) -> int | datetime | None:
    if not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell):
        return None
    try:
        moment = datetime.fromisoformat(cell.replace(" UTC", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo is None else int(moment.timestamp())


def _strp(cell: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(cell, form)  # noqa: DTZ007 - local time, whose zone the caller knows
    except ValueError:
        return None


def _local_s(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
