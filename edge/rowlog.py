"""A truck's own rows as a recording: what its queue still holds, delivered or not, and what is open.

`digitruck-edge schema suggest /var/lib/digitruck --of solar` learns from them what a collector's channels are really
like. The database is only read; a daemon may be running. Rows of one set of channels belong together, whatever schema
they were encoded by. Deliberately absent: rows that were folded or dropped, and what a summary tells.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.recording import Recording, RecordingError
from protocol import cbor
from protocol.errors import PeerError
from protocol.messages import Batch, unseal
from protocol.numbers import ParcelKind
from protocol.rows import Row
from protocol.schema import Codec, Schema, decode_schema
from store.bases import Key, Runs
from store.database import open_reader

ROWS_MAX: Final = 50_000  # the newest: a month of minutes, decoded in seconds
_ROWS_MIN: Final = 3

_Channels = tuple[tuple[str, str, int], ...]


@dataclass(slots=True)
class _Series:
    schema: Schema
    rows: list[Row] = field(default_factory=list)


def read_log(data: Path, *, of: str | None = None) -> Recording:
    """Return the rows of a truck's data folder: those of the collector (or channel) `of`, or the most there are."""
    path = data / "state.db" if data.is_dir() else data
    if not path.exists():
        raise RecordingError(f"{path} does not exist; give the data folder of a truck, or a CSV file")
    found: dict[_Channels, _Series] = {}
    try:
        for schema, rows in _batches(path):
            channels = tuple((each.name, each.unit, each.scale) for each in schema.channels)
            found.setdefault(channels, _Series(schema)).rows.extend(rows)
    except sqlite3.Error as error:
        raise RecordingError(f"{path} cannot be read ({error}); give the data folder of a truck") from error
    names = sorted({each.schema.channels[0].name.partition(".")[0] for each in found.values()})
    wanted = [each for each in found.values() if of is None or _is_of(each.schema, of)]
    series = max(wanted, key=lambda each: len(each.rows), default=None)
    if series is None or len(series.rows) < _ROWS_MIN:
        there = f"there are rows of {', '.join(names)}" if names else "let the truck record for a day first"
        raise RecordingError(f"{path} holds too few rows{'' if of is None else f' of {of}'}; {there}")
    schema = series.schema
    return Recording(
        names=tuple(each.name for each in schema.channels),
        scales=tuple(each.scale for each in schema.channels),
        ticks_per_s=schema.ticks_per_s,
        rows=tuple(series.rows[-ROWS_MAX:]),
        units=tuple(each.unit for each in schema.channels),
    )


def _is_of(schema: Schema, name: str) -> bool:
    return any(each.name == name or each.name.startswith(f"{name}.") for each in schema.channels)


def _batches(path: Path) -> Iterator[tuple[Schema, list[Row]]]:
    """Yield the rows of each batch that is held, oldest first, and then the open rows of each schema."""
    database = open_reader(path)
    try:
        schemas = {}
        for number, encoded in database.execute("SELECT number, schema FROM schemas"):
            schema = decode_schema(encoded)
            if schema.codec is not Codec.SUMMARY:
                schemas[number] = schema

        def sealed_of(key: Key) -> bytes | None:
            sql = "SELECT sealed FROM parcels WHERE epoch = ? AND sequence = ? AND length(sealed) > 0"
            row = database.execute(sql, [key[0].to_bytes(8, "big"), key[1]]).fetchone()
            return None if row is None else bytes(row[0])

        runs = Runs(sealed_of)
        sql = "SELECT epoch, sequence, sealed FROM parcels WHERE kind = ? AND length(sealed) > 0 ORDER BY id"
        for epoch, sequence, sealed in database.execute(sql, [int(ParcelKind.BATCH)]):
            try:
                batch = Batch.decode(unseal(sealed).payload)
                if batch.schema in schemas:
                    schema = schemas[batch.schema]
                    yield schema, runs.rows(schema, (int.from_bytes(epoch, "big"), sequence), batch)
            except PeerError:
                continue  # damaged: the daemon reports it, here it is only missing
        for number, time, cells in database.execute("SELECT schema, time, cells FROM open_rows ORDER BY id"):
            if number in schemas:
                yield schemas[number], [(time, tuple(cbor.decode(cells)))]
    finally:
        database.conn.close()
