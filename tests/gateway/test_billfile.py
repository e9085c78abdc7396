"""Bills of all kinds are read, and what a bill leaves open is asked for rather than guessed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billfile import Bill, BillOptions, read_bill
from protocol.errors import MalformedError
from protocol.windows import utc
from store.zones import offset_of


def days(text: str, *, zone: str = "UTC", **options: object) -> dict[str, int]:
    """Return the billed bytes by the UTC beginning of each day."""
    bill: Bill = read_bill(text, utc if zone == "UTC" else offset_of(zone), BillOptions(**options))  # type: ignore[arg-type]
    return {datetime.fromtimestamp(each.since_s, UTC).strftime("%m-%d %H"): each.bytes for each in bill.days}


def test_a_plain_bill_of_days_in_megabytes() -> None:
    text = "Date,Data Usage (MB)\n2026-11-01,1.5\n2026-11-02,0.25\n"
    assert days(text) == {"11-01 00": 1_500_000, "11-02 00": 250_000}


def test_a_german_bill_has_semicolons_a_decimal_comma_and_an_address_above_its_table() -> None:
    text = "Satfunk GmbH;;\nRechnung 17;;\n\nDatum;Volumen (KiB);Betrag\n01.11.2026;1.024,5;3,20\n02.11.2026;2;0,10\n"
    assert days(text) == {"11-01 00": 1_024 * 1_024 + 512, "11-02 00": 2_048}


def test_sessions_of_a_sim_are_added_up_by_the_providers_day() -> None:
    text = (
        "ICCID,Session Start,Session End,Uplink bytes,Downlink bytes\n"
        "8925,2026-11-01 22:30:00,2026-11-01 22:31:00,100,50\n"
        "8925,2026-11-02T01:00:00+00:00,2026-11-02T01:01:00+00:00,7,0\n"
        "9999,2026-11-02 01:00:00,2026-11-02 01:01:00,5000,0\n"
    )
    # 22:30 in Nairobi is the first there; 01:00 UTC is 04:00 of the second.
    assert days(text, zone="Africa/Nairobi", where={"ICCID": "8925"}) == {"10-31 21": 150, "11-01 21": 7}


def test_units_in_the_cells_and_a_line_of_totals() -> None:
    text = (
        "day\tusage\n03/11/2026\t1.2 MB\n14/11/2026\t900 kB\n"
        + "".join(f"{day}/11/2026\t0 B\n" for day in range(15, 29))
        + "Total\t2.1 MB\n"
    )
    found = days(text)
    assert (found["11-03 00"], found["11-14 00"]) == (1_200_000, 900_000)


def test_columns_and_unit_are_chosen_by_name() -> None:
    text = "when,what,a,b\n1793577600,x,5,7\n"
    chosen = {"time_column": "When", "bytes_columns": ("a", "B"), "unit": "kB"}
    assert days(text, **chosen) == {"11-02 00": 12_000}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Date,Bytes\n01/02/2026,1\n", "--date-format"),
        ("Date,Usage\n2026-11-01,5\n", "--unit"),
        ("Date,MB\n2026-11-01,1.234\n", "--decimal"),
        ("Date,Total MB,Billed MB\n2026-11-01,5,6\n", "--bytes-column"),
        ("a,b\n1,2\n", "--time-column"),
        ("", "--delimiter"),
        ("Date,Bytes\nyesterday,5\n", "--date-format"),
        ("Date,Bytes\n2026-11-01,many\n", "row 1: 'many' is no number"),
        ("Date,Bytes\n2026-11-01,-5\n", "row 1"),
        ('Date,MB\n2026-11-01,"1,5"\n2026-11-02,1.5\n', "--decimal"),
    ],
)
def test_what_is_open_names_the_option_that_settles_it(text: str, says: str) -> None:
    with pytest.raises(MalformedError) as caught:
        days(text)
    assert says in str(caught.value)


def test_options_settle_what_is_open() -> None:
    assert days("Date,Bytes\n01/02/2026,1\n", date_format="%d/%m/%Y") == {"02-01 00": 1}
    assert days("Date,MB\n2026-11-01,1.234\n", decimal=",") == {"11-01 00": 1_234_000_000}


@given(st.text(max_size=400))
def test_no_text_is_anything_but_a_bill_or_malformed(text: str) -> None:
    try:
        found = read_bill(text, utc, BillOptions())
    except MalformedError:
        return
    assert found.rows >= 1
