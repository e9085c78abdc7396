"""A truck's own rows are read back for learning, while its daemon runs, and nothing of it is changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.recording import RecordingError
from edge.rowlog import read_log
from edge.schema_cli import schema_group
from protocol.schema import Channel, Schema, decode_schema
from tests.edge.trucks import SCHEMA, Truck

SOLAR = Schema((Channel("solar.bat_v", "V", 100, 2600, 5), Channel("solar.pv_w", "W", 1, 0, 50)), period_s=60)


@pytest.fixture
async def truck(tmp_path: Path) -> AsyncIterator[Truck]:
    truck = Truck(tmp_path)
    await truck.start()
    await truck.recorder.open_series("other", SOLAR)
    for at in range(40):
        await truck.row(2600 + at * at % 7, at)
    await truck.recorder.close_all()
    truck.deliver()
    for at in range(20):
        await truck.row(2500 - at, 100 * at)
        await truck.row(2400, at, name="other")
    yield truck
    await truck.stop()


async def test_delivered_queued_and_open_rows_are_read_in_their_order(truck: Truck, tmp_path: Path) -> None:
    recording = read_log(tmp_path)
    assert recording.names == ("bat_v", "pv_w")
    assert (recording.scales, recording.units) == ((100, 1), ("V", "W"))
    assert [cells[1] for _, cells in recording.rows] == [*range(40), *(100 * at for at in range(20))]
    assert [time for time, _ in recording.rows] == sorted(time for time, _ in recording.rows)
    assert read_log(tmp_path / "state.db", of="solar").names == ("solar.bat_v", "solar.pv_w")
    assert len(read_log(tmp_path, of="solar.pv_w").rows) == 20


async def test_what_is_not_there_is_said_with_what_is(truck: Truck, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="of moon; there are rows of bat_v, solar"):
        read_log(tmp_path, of="moon")
    with pytest.raises(RecordingError, match="does not exist"):
        read_log(tmp_path / "nowhere.db")
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(RecordingError, match="cannot be read"):
        read_log(tmp_path / "text.db")


async def test_damaged_parcels_are_passed_over(truck: Truck, tmp_path: Path) -> None:
    await truck.recorder.close_all()
    with truck.database.atomic():
        truck.database.update("parcels", "kind = 1 AND state = 2", {}, sealed=bytes(90))
    assert len(read_log(tmp_path, of="bat_v").rows) == 20


async def test_suggest_learns_from_a_data_folder(truck: Truck, tmp_path: Path) -> None:
    kept = tmp_path / "own.schema"
    result = CliRunner().invoke(schema_group, ["suggest", str(tmp_path), "--out", str(kept), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["month_bytes"] > 0
    learnt = decode_schema(kept.read_bytes())
    assert [(each.name, each.unit, each.scale) for each in learnt.channels] == [
        (each.name, each.unit, each.scale) for each in SCHEMA.channels
    ]
    assert CliRunner().invoke(schema_group, ["suggest", "x.csv", "--of", "solar"]).exit_code == 2
