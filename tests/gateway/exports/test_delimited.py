"""CSV that a spreadsheet reads: units in the names, empty cells where there is nothing."""

from __future__ import annotations

import csv
import io


def test_every_row_is_a_line_with_units_in_the_names(write, columns, rows) -> None:
    lines = list(csv.reader(io.StringIO(write("csv", columns, rows[:1], [], rows[1:]).decode(), newline="")))
    assert lines == [
        ["time", "bat_v [V]", "door", "repaired"],
        ["2026-11-18T11:06:40.000Z", "26.12", "1.0", "0"],
        ["2026-11-18T11:06:40.250Z", "26.5", "", "0"],
        ["2026-11-18T11:07:40.000Z", "", "0.0", "1"],
    ]


def test_steps_have_a_column_for_each_figure(write, steps) -> None:
    assert write("csv", steps).decode().strip() == (
        "time,bat_v [V],bat_v.min [V],bat_v.max [V],bat_v.last [V],bat_v.count,repaired"
    )


def test_a_time_beyond_every_calendar_is_written_all_the_same(write, columns, rows) -> None:
    from dataclasses import replace

    body = write("csv", columns, [replace(rows[0], time_ms=1 << 60)]).decode()
    assert body.splitlines()[1].startswith("1152921504606847.0,")
