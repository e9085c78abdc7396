"""CSV (RFC 4180): one line a time, one column a channel with its unit in brackets, and the count of repaired clocks.

Times are RFC 3339 in UTC; a channel without a value at a time has an empty cell.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.series import Column, TableRow


class CsvWriter:
    """Writes the rows of one truck as CSV."""

    def __init__(self, truck: str, columns: Sequence[Column]) -> None:
        self._columns = columns

    def begin(self) -> bytes:
        """Return the line of names."""
        return _lines([["time", *(column.label for column in self._columns), "repaired"]])

    def rows(self, rows: Sequence[TableRow]) -> bytes:
        """Return the lines of some rows."""
        return _lines(
            [_stamp(row.time_ms), *("" if value is None else value for value in row.values), row.repaired]
            for row in rows
        )

    def end(self) -> bytes:
        """Return nothing: the file has no end of its own."""
        return b""


def _lines(rows: object) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()


def _stamp(time_ms: int) -> str:
    try:
        stamp = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms / 1000}"  # a truck may sign a time that no calendar has: seconds since 1970, then
    return stamp.replace("+00:00", "Z")
