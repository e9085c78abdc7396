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

    def clear(self, schema: int) -> None:
        """Forget the rows of a schema: they are in a parcel now."""
        self._database.delete("open_rows", "schema = :schema", {"schema": schema})

    def all(self) -> tuple[OpenRow, ...]:
        """Return every open row in the order in which they came."""
        sql = "SELECT schema, boot, time, cells FROM open_rows ORDER BY id"
        return tuple(
            OpenRow(schema, boot, time, tuple(cbor.decode(cells)))
            for schema, boot, time, cells in self._database.rows(sql)
        )
