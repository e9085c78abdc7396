"""Parquet as an independent library (pyarrow) reads it."""

from __future__ import annotations

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.series import Column, TableRow


def test_values_types_and_holes_are_read_back(write, columns, rows) -> None:
    table = pq.read_table(io.BytesIO(write("parquet", columns, rows[:1], rows[1:])))
    assert table.schema.names == ["time", "bat_v [V]", "door", "repaired"]
    assert table.schema.field("time").type == pa.timestamp("ms", tz="UTC")
    assert table["time"].cast(pa.int64()).to_pylist() == [row.time_ms for row in rows]
    assert table["bat_v [V]"].to_pylist() == [26.12, 26.5, None]
    assert table["door"].to_pylist() == [1.0, None, 0.0]
    assert table["repaired"].to_pylist() == [0, 0, 1]


@pytest.mark.parametrize("channels", [1, 20])
def test_many_row_groups_are_one_table(write, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.exports.parquet._GROUP_ROWS", 1_000)
    seeded = random.Random(5)
    columns = [Column(f"c{at}", "W") for at in range(channels)]
    rows = [
        TableRow(at * 60_000, tuple(None if seeded.random() < 0.3 else seeded.gauss(0, 1e6) for _ in columns), 0)
        for at in range(3_333)
    ]
    body = write("parquet", columns, *(rows[at : at + 250] for at in range(0, len(rows), 250)))
    file = pq.ParquetFile(io.BytesIO(body))
    assert file.num_row_groups == 4
    assert file.metadata.metadata[b"truck"] == b"ke-arrow"
    table = file.read()
    assert list(zip(*(table[column.label].to_pylist() for column in columns), strict=True)) == [
        row.values for row in rows
    ]
    assert all(
        file.metadata.row_group(group).column(at).total_uncompressed_size > 0
        for group in range(4)
        for at in range(channels + 2)
    )


def test_a_file_without_rows_or_channels_is_one_all_the_same(write, columns) -> None:
    assert pq.read_table(io.BytesIO(write("parquet", columns))).num_rows == 0
    assert pq.read_table(io.BytesIO(write("parquet", []))).schema.names == ["time", "repaired"]


def test_a_column_that_is_empty_throughout_is_all_null(write, columns) -> None:
    body = write("parquet", columns, [TableRow(0, (None, 1.0), 0), TableRow(1, (None, None), 0)])
    table = pq.read_table(io.BytesIO(body))
    assert table["bat_v [V]"].to_pylist() == [None, None]
    assert table["door"].to_pylist() == [1.0, None]
