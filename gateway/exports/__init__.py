"""Files of telemetry: a table written in one of several formats, a few rows at a time, in bounded memory.

A writer is made for one file: `begin`, then `rows` for each page, then `end`; each returns the bytes to add to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.exports.delimited import CsvWriter
from gateway.exports.parquet import ParquetWriter
from gateway.exports.senml import SenmlCborWriter, SenmlJsonWriter
from gateway.series import Column, Table, TableRow


class Writer(Protocol):
    """Writes one file."""

    def begin(self) -> bytes: ...
    def rows(self, rows: Sequence[TableRow]) -> bytes: ...
    def end(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Format:
    """A format by its media type and the end of a file's name; `make` takes the truck and the columns."""

    media: str
    suffix: str
    make: Callable[[str, Sequence[Column]], Writer]


FORMATS = {
    "csv": Format("text/csv", ".csv", CsvWriter),
    "senml-json": Format("application/senml+json", ".senml.json", SenmlJsonWriter),
    "senml-cbor": Format("application/senml+cbor", ".senml.cbor", SenmlCborWriter),
    "parquet": Format("application/vnd.apache.parquet", ".parquet", ParquetWriter),
}


async def written(table: Table, form: Format, truck: str, *, rows_max: int | None = None) -> AsyncIterator[bytes]:
    """Yield the bytes of a file of `table`, at most `rows_max` rows of it."""
    writer = form.make(truck, table.columns)
    yield writer.begin()
    left = rows_max
    async for page in table.pages:
        data = writer.rows(page if left is None else page[:left])
        if data:
            yield data
        if left is not None:
            left -= len(page)
            if left <= 0:
                break
    yield writer.end()
