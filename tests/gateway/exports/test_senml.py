"""SenML, read as RFC 8428 says: base values carried on, relative times and names resolved."""

from __future__ import annotations

import io
import json

import cbor2

LABELS = {-2: "bn", -3: "bt", 0: "n", 1: "u", 2: "v", 6: "t"}


def resolve(records: list[dict]) -> list[tuple]:
    """Return (name, unit, value, time) of each record (section 4.6)."""
    name, time = "", 0.0
    found = []
    for record in records:
        name, time = record.get("bn", name), record.get("bt", time)
        found.append((name + record["n"], record.get("u"), record["v"], time + record.get("t", 0)))
    return found


EXPECTED = [
    ("ke-arrow/bat_v", "V", 26.12, 1_795_000_000),
    ("ke-arrow/door", None, 1, 1_795_000_000),
    ("ke-arrow/bat_v", "V", 26.5, 1_795_000_000.25),
    ("ke-arrow/door", None, 0, 1_795_000_060),
]


def test_json_resolves_to_what_was_measured(write, columns, rows) -> None:
    records = json.loads(write("senml-json", columns, rows[:1], [], rows[1:]))
    assert resolve(records) == EXPECTED
    assert [record.get("repaired") for record in records] == [None, None, None, True]


def test_cbor_has_the_same_records_under_the_registered_labels(write, columns, rows) -> None:
    body = write("senml-cbor", columns, rows[:1], rows[1:])
    assert (body[0], body[-1]) == (0x9F, 0xFF)
    records = [{LABELS.get(key, key): value for key, value in each.items()} for each in cbor2.load(io.BytesIO(body))]
    assert resolve(records) == EXPECTED
    assert records == json.loads(write("senml-json", columns, rows))


def test_figures_of_steps_have_names_of_their_own_and_a_gap_has_no_record(write, steps, rows) -> None:
    from gateway.series import TableRow

    pages = [TableRow(0, (2.0, 1.0, 3.0, 2.5, 4), 0), TableRow(3_600_000, (None,) * 5, 0)]
    records = json.loads(write("senml-json", steps, pages))
    assert [(each["n"], each["u"], each["v"]) for each in records] == [
        ("bat_v", "V", 2),
        ("bat_v.min", "V", 1),
        ("bat_v.max", "V", 3),
        ("bat_v.last", "V", 2.5),
        ("bat_v.count", "count", 4),
    ]


def test_nothing_is_an_empty_array(write, columns) -> None:
    assert json.loads(write("senml-json", columns)) == []
    assert cbor2.loads(write("senml-cbor", columns)) == []
