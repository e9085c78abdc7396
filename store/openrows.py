"""Rows of batches that are still open: durable as soon as they are accepted, gone in the transaction that closes them.

Without this a power cut would lose hours of telemetry that a slow batch was still waiting to fill.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol import cbor
from store.database import Database


@dataclass(frozen=True, slots=True)
class OpenRow:
    """One row: its schema's number, the boot that its time counts from (None: wall time), time in ticks, cells."""

    schema: int
    boot: int | None
    time: int
    cells: tuple[int | None, ...]


class OpenRows:
    """The open rows in a STATE database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: OpenRow) -> None:
        """Keep one row."""
        values = {"schema": row.schema, "boot": row.boot, "time": row.time, "cells": cbor.encode(list(row.cells))}
        self._database.insert("open_rows", values)

    def add_once(self, row: OpenRow, count: int) -> None:
        """Keep a row that makes `count` of its schema, unless that many are there already (after an unknown COMMIT)."""
        if self.count(row.schema) < count:
            self.add(row)

    def clear(self, schema: int) -> None:
        """Forget the rows of a schema: they are in a parcel now."""
        self._database.delete("open_rows", "schema = :schema", {"schema": schema})

    def schemas(self) -> tuple[int, ...]:
        """Return the numbers of the schemas that have open rows."""
        return tuple(number for (number,) in self._database.rows("SELECT DISTINCT schema FROM open_rows ORDER BY 1"))

    def count(self, schema: int) -> int:
        """Return how many rows of a schema are open."""
        return int(self._database.value("SELECT count(*) FROM open_rows WHERE schema = :schema", {"schema": schema}))

    def of(self, schema: int) -> tuple[OpenRow, ...]:
        """Return the open rows of a schema in the order in which they came."""
        sql = "SELECT boot, time, cells FROM open_rows WHERE schema = :schema ORDER BY id"
        return tuple(
            OpenRow(schema, boot, time, tuple(cbor.decode(cells)))
            for boot, time, cells in self._database.rows(sql, {"schema": schema})
        )
