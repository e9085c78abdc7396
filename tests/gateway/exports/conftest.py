"""Tables to write: rows of two channels with a hole, a repaired row, and steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.exports import FORMATS
from gateway.series import Column, TableRow

COLUMNS = [Column("bat_v", "V"), Column("door", "")]
ROWS = [
    TableRow(1_795_000_000_000, (26.12, 1.0), 0),
    TableRow(1_795_000_000_250, (26.5, None), 0),
    TableRow(1_795_000_060_000, (None, 0.0), 1),
]
STEPS = [Column("bat_v", "V", figure) for figure in ("", "min", "max", "last", "count")]

Write = Callable[..., bytes]


@pytest.fixture
def write() -> Write:
    """Write pages of rows as one file."""

    def _write(form: str, columns: list[Column], *pages: list[TableRow]) -> bytes:
        writer = FORMATS[form].make("ke-arrow", columns)
        return writer.begin() + b"".join(writer.rows(page) for page in pages) + writer.end()

    return _write


@pytest.fixture
def columns() -> list[Column]:
    return COLUMNS


@pytest.fixture
def rows() -> list[TableRow]:
    return ROWS


@pytest.fixture
def steps() -> list[Column]:
    return STEPS
