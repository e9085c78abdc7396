"""Recordings: telemetry in a CSV file (plain or .gz), read into scaled integers.

The first row names the columns, the time `t` first. A second row of decimal scales (1, 10, 100, ...: units per 1) is
optional: with it every value is a scaled integer; without it values are plain decimals and the scale of each column is
found. An empty cell is a missing value. Deliberately absent: guessing at separators, encodings or time formats.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from io import TextIOWrapper
from pathlib import Path
from typing import Final, TypeAlias

from protocol.errors import LocalError
from protocol.rows import TIME_MAX, TIME_MIN, Row
from protocol.schema import CHANNELS_MAX, NAME_CHARS_MAX, SCALE_MAX, VALUE_MAX, VALUE_MIN

_MISSING: Final = frozenset({"", "nan", "null", "none", "na"})
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9\-:./_]+")
_CLOCK_S_MIN: Final = 100_000_000  # 1973: beyond, a time is of a clock, not of a stopwatch
_DECIMALS_MAX: Final = 6
_CELL_CHARS_MAX: Final = 40
_EXPONENT_MAX: Final = 18
_TICKS: Final = (1, 1000)

_Parser: TypeAlias = Callable[[str], int | None]


class RecordingError(LocalError):
    """A file that cannot be read as a recording; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Channel names and scales, ticks of the time column a second, the rows, and units where they are known."""

    names: tuple[str, ...]
    scales: tuple[int, ...]
    ticks_per_s: int
    rows: tuple[Row, ...]
    units: tuple[str, ...] = ()


def read_recording(path: Path) -> Recording:
    """Read a CSV or CSV.gz file; raise `RecordingError` with the line and the next step."""
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            return _parse(csv.reader(TextIOWrapper(file, encoding="utf-8-sig", newline="")), path.name)
    except FileNotFoundError:
        raise RecordingError(f"{path} does not exist; give the path of a CSV or CSV.gz file") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{path} cannot be read ({error}); give a CSV or CSV.gz file in UTF-8") from error


def _parse(lines: Iterator[list[str]], name: str) -> Recording:
    header = [cell.strip() for cell in next(lines, [])]
    if len(header) < 2 or header[0].lower() != "t":
        raise RecordingError(f"{name}, line 1: the first row names the columns, `t` (time in s) first, then channels")
    if len(header) - 1 > CHANNELS_MAX:
        raise RecordingError(f"{name}, line 1: {len(header) - 1} channels; keep at most {CHANNELS_MAX} columns")
    cells = [(number, [cell.strip() for cell in line]) for number, line in enumerate(lines, start=2) if any(line)]
    for number, line in cells:
        if len(line) != len(header):
            raise RecordingError(f"{name}, line {number}: {len(line)} cells under {len(header)} names; make them equal")
    scales = _scale_row(cells[0][1]) if cells else None
    if scales is None and len(cells) > 1:
        _check_no_scales(cells[0][1], cells[1][1], name)
    if scales is not None:
        cells = cells[1:]
    if not cells:
        raise RecordingError(f"{name}: no rows of values; record some first")
    if scales is None:
        scales = [_found_scale([line[column] for _, line in cells]) for column in range(len(header))]
        scales[0] = 1 if scales[0] == 1 else 1000
        parsers: list[_Parser] = [_decimal(scale) for scale in scales]
    else:
        parsers = [_integer] * len(header)
    if scales[0] not in _TICKS:
        raise RecordingError(f"{name}, line 2: the scale of `t` is 1 (seconds) or 1000 (milliseconds)")
    rows = tuple(_row(line, parsers, f"{name}, line {number}") for number, line in cells)
    return Recording(_distinct(header[1:]), tuple(scales[1:]), scales[0], rows)


def _scale_row(cells: list[str]) -> list[int] | None:
    powers = {str(10**digits) for digits in range(len(str(SCALE_MAX)))}
    if cells[0] not in {str(ticks) for ticks in _TICKS} or not all(cell in powers for cell in cells):
        return None
    return [int(cell) for cell in cells]


def _check_no_scales(first: list[str], second: list[str], name: str) -> None:
    """Refuse a second row that is meant as scales and is none: it would be read as values of January 1970."""
    time = _decimal(1)(second[0])
    if first[0] in {str(ticks) for ticks in _TICKS} and time is not None and time >= _CLOCK_S_MIN:
        powers = {str(10**digits) for digits in range(len(str(SCALE_MAX)))}
        wrong = next(cell for cell in first if cell not in powers)
        raise RecordingError(f"{name}, line 2: {wrong[:20]!r} is no scale: they are 1, 10, 100, ... up to {SCALE_MAX}")


def _found_scale(column: list[str]) -> int:
    digits = 0
    for cell in column:
        if "." in cell and len(cell) <= _CELL_CHARS_MAX:
            digits = max(digits, len(cell.rstrip("0").partition(".")[2].lower().partition("e")[0]))
    return int(10 ** min(digits, _DECIMALS_MAX))


def _row(line: list[str], parsers: Sequence[_Parser], where: str) -> Row:
    values: list[int | None] = []
    for cell, parse in zip(line, parsers, strict=True):
        if cell.lower() in _MISSING:
            values.append(None)
            continue
        value = parse(cell) if len(cell) <= _CELL_CHARS_MAX else None
        if value is None:
            raise RecordingError(
                f"{where}: {cell[:_CELL_CHARS_MAX]!r} is no number that fits; see `--help` for the form"
            )
        values.append(value)
    time = values[0]
    if time is None or not TIME_MIN <= time <= TIME_MAX:
        raise RecordingError(f"{where}: the time is missing or out of bounds; give seconds in the first column")
    return time, tuple(values[1:])


def _integer(cell: str) -> int | None:
    try:
        value = int(cell)
    except ValueError:
        return None
    return value if VALUE_MIN <= value <= VALUE_MAX else None


def _decimal(scale: int) -> _Parser:
    def parse(cell: str) -> int | None:
        try:
            value = Decimal(cell)
        except InvalidOperation:
            return None
        if not value.is_finite() or value.adjusted() > _EXPONENT_MAX:
            return None
        scaled = int((value * scale).to_integral_value())
        return scaled if VALUE_MIN <= scaled <= VALUE_MAX else None

    return parse


def _distinct(names: list[str]) -> tuple[str, ...]:
    # SenML allows letters, digits and a few signs; what a spreadsheet has beyond that becomes an underscore.
    distinct: list[str] = []
    for at, name in enumerate(names, start=1):
        clean = _NO_NAME.sub("_", name).strip("_-:./")[: NAME_CHARS_MAX - 4] or f"c{at}"
        distinct.append(clean if clean not in distinct else f"{clean}_{at}")
    return tuple(distinct)
