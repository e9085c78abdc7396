"""The impact report: sums that can be checked by hand, no number of single learners, the same in every form."""

from __future__ import annotations

import csv
import io
import itertools
from datetime import UTC, datetime

import pytest

from gateway.fleetfile import FleetTruck
from gateway.impact.figures import Figures, impact, month_starts
from gateway.impact.files import cells, to_csv, to_html, to_pdf
from gateway.rollups import RollupTask
from protocol.numbers import DocumentKind, Precedence
from protocol.schema import Channel, Schema
from store.fleet.fleet import FleetStore
from store.fleet.records import Direction, LedgerEntry
from tests.gateway.fleets import Truck, add_truck

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SCHEMA = Schema((Channel("solar.pv_w", "W", 1, 0, 10), Channel("room.on", "count", 1, 0, 1)), period_s=600)
DESCRIBED = {
    "ke-arrow": FleetTruck(
        name="ke-arrow",
        display_name="Arrow",
        place="Nairobi",
        country_code="KE",
        country="Kenya",
        partner="Arrow",
        latitude_deg=-1.3,
        longitude_deg=36.8,
        workstations=21,
    )
}


@pytest.fixture
async def used(fleet: FleetStore) -> tuple[Truck, int]:
    """A truck that taught two lessons on its second day, and the start (Unix ms) of that day."""
    truck = await add_truck(fleet)
    record = await fleet.truck("ke-arrow")
    assert record is not None
    day_ms = record.enrolled_ms - record.enrolled_ms % DAY_MS + DAY_MS
    await truck.register(SCHEMA)
    # Four hours at 500 W with ten workstations on.
    rows = [(day_ms // 1000 + 600 * at, (500, 10)) for at in range(24)]
    await truck.batch(rows, schema=SCHEMA)
    await RollupTask(fleet).catch_up()
    await truck.event("class.session", day_ms + HOUR_MS, '{"participants":18,"minutes":90}')
    await truck.event("class.session", day_ms + 4 * HOUR_MS, '{"participants":12,"minutes":60}')
    await truck.event("class.session", day_ms + 5 * HOUR_MS, '{"participants":100000,"minutes":60}')
    await truck.event("class.session", day_ms + 6 * HOUR_MS, '{"participants":true,"minutes":"60"}')
    entries = [
        LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.UP, day_ms, 1_500_000, 2),
        LedgerEntry("ke-arrow", "sat", Precedence.NORMAL, "batch", Direction.DOWN, day_ms, 90_000, 2),
    ]
    await fleet.ledger_add(entries)
    return truck, day_ms


async def test_the_figures_are_what_was_signed_and_counted(fleet: FleetStore, used: tuple[Truck, int]) -> None:
    _, day_ms = used
    found = await impact(
        fleet, DESCRIBED, since_ms=day_ms, until_ms=day_ms + DAY_MS, now_ms=day_ms + DAY_MS, by="truck"
    )
    (line,) = found.lines
    assert (line.name, line.sessions, line.participants) == ("ke-arrow", 2, 30)
    assert line.learner_hours == 18 * 1.5 + 12
    assert line.solar_kwh == 2.0
    assert line.workstation_hours == 40.0
    assert (line.heard_hours, line.due_hours) == (4, 24)
    assert (line.bytes_up, line.bytes_down) == (1_500_000, 90_000)
    assert line.coverage_percent is not None
    assert 15 < line.coverage_percent < 18.5  # four hours of twenty-four
    assert found.total == Figures(**{**_fields(line), "name": "all"})
    assert [each.name for each in found.months] == [datetime.fromtimestamp(day_ms / 1000, UTC).strftime("%Y-%m")]


@pytest.mark.parametrize(
    ("by", "name"), [("group", "kenya"), ("country", "Kenya"), ("partner", "Arrow"), ("truck", "ke-arrow")]
)
async def test_lines_are_of_what_was_asked_for(fleet: FleetStore, used: tuple[Truck, int], by: str, name: str) -> None:
    _, day_ms = used
    period = {"since_ms": day_ms, "until_ms": day_ms + DAY_MS, "now_ms": day_ms + DAY_MS}
    found = await impact(fleet, DESCRIBED, **period, by=by)  # type: ignore[arg-type]
    assert [each.name for each in found.lines] == [name]
    unknown = await impact(fleet, {}, **period, by="country")
    assert [each.name for each in unknown.lines] == ["(not in the fleet file)"]


async def test_few_participants_are_not_told(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    record = await fleet.truck("ke-arrow")
    assert record is not None
    at_ms = record.enrolled_ms + HOUR_MS
    await truck.event("class.session", at_ms, '{"participants":4,"minutes":60}')
    found = await impact(fleet, {}, since_ms=at_ms - DAY_MS, until_ms=at_ms + DAY_MS, now_ms=at_ms + DAY_MS, by="truck")
    assert found.total.sessions == 1
    assert found.total.participants is None
    assert found.total.learner_hours is None
    assert cells(found.total)[3:5] == ["few", "few"]


async def test_every_form_says_the_same(fleet: FleetStore, used: tuple[Truck, int]) -> None:
    _, day_ms = used
    found = await impact(fleet, {}, since_ms=day_ms, until_ms=day_ms + DAY_MS, now_ms=day_ms + DAY_MS, by="truck")
    rows = list(csv.reader(io.StringIO(to_csv(found).decode())))
    assert [row[0] for row in rows] == ["of", "truck", "month", "all"]
    assert rows[1][1:] == cells(found.lines[0])
    page = to_html(found).decode()
    assert "39" in page
    assert "http" not in page.replace("http-equiv", "")
    paper = to_pdf(found)
    assert paper.startswith(b"%PDF-")
    assert len(paper) > 2_000


async def test_a_cell_is_never_a_formula(fleet: FleetStore, used: tuple[Truck, int]) -> None:
    _, day_ms = used
    described = {"ke-arrow": FleetTruck(**{**_fields(DESCRIBED["ke-arrow"]), "partner": "=cmd()|'x'!A1"})}
    found = await impact(
        fleet, described, since_ms=day_ms, until_ms=day_ms + DAY_MS, now_ms=day_ms + DAY_MS, by="partner"
    )
    assert b"'=cmd()" in to_csv(found)
    assert b"\n=cmd" not in to_csv(found)


async def test_a_bundle_counts_once_when_it_was_applied(fleet: FleetStore) -> None:
    truck = await add_truck(fleet)
    record = await fleet.truck("ke-arrow")
    assert record is not None
    for _ in range(2):
        await truck.receipt(DocumentKind.MANIFEST, b"m" * 32, name="maths")
    until_ms = record.enrolled_ms + DAY_MS
    found = await impact(fleet, {}, since_ms=0, until_ms=until_ms, now_ms=until_ms, by="truck")
    assert found.total.bundles == 1


def test_months_are_cut_to_the_period() -> None:
    start = round(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
    end = round(datetime(2027, 1, 2, tzinfo=UTC).timestamp() * 1000)
    found = month_starts(start, end)
    assert [name for name, _, _ in found] == ["2026-11", "2026-12", "2027-01"]
    assert (found[0][1], found[-1][2]) == (start, end)
    assert all(one[2] == other[1] for one, other in itertools.pairwise(found))


def _fields(struct: object) -> dict[str, object]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}  # type: ignore[attr-defined]
