"""What a collector's table says of its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from edge.collectors.base import ChannelSpec
from edge.collectors.check import ChannelSample, CollectorCheck
from edge.collectors.registry import CollectorConfigError
from edge.series import check_told, series_schema, split_tables
from protocol.schema import Channel, Schema


@dataclass
class Source:
    """As much of a collector as its schema needs."""

    name: str = "solar"
    period_s: float = 60.0
    channels: tuple[ChannelSpec, ...] = (ChannelSpec("bat_v", "V", 100, 2600, 5),)


def schema(learnt: Path | None) -> Schema:
    source: Any = Source()
    return series_schema(source, learnt)


def test_a_learnt_schema_is_used_and_one_of_other_channels_is_not(tmp_path: Path) -> None:
    declared = schema(None)
    learnt = Schema((Channel("bat_v", "V", 100, 2512, 7, prior=b"\1\2\3"),), period_s=60)
    (tmp_path / "good").write_bytes(learnt.encoded)
    (tmp_path / "other").write_bytes(Schema((Channel("bat_v", "V", 10),)).encoded)
    (tmp_path / "damaged").write_bytes(b"\x85")
    assert schema(tmp_path / "good") == learnt
    (tmp_path / "no units").write_bytes(replace(learnt, channels=(replace(learnt.channels[0], unit=""),)).encoded)
    assert schema(tmp_path / "no units") == learnt
    assert [schema(tmp_path / name) for name in ("other", "damaged", "missing")] == [declared] * 3


def test_a_table_is_split_into_what_the_collector_knows_and_what_is_for_its_rows() -> None:
    limit = {"channel": "bat_v", "below": 24, "clear": 25}
    table = {"kind": "x", "name": "solar", "port": "p", "schema": "f", "limits": [limit], "on_change": {"a": "flash"}}
    (left,), series = split_tables([table])
    assert left == {"kind": "x", "name": "solar", "port": "p"}
    assert (series["solar"].schema, series["solar"].limits[0].below) == ("f", 24.0)
    assert series["solar"].on_change == {"a": "flash"}


def test_check_names_a_channel_that_is_told_of_and_not_there() -> None:
    _, series = split_tables(
        [
            {"name": "solar", "limits": [{"channel": "bat_v", "above": 1}], "on_change": {"solar.mode": "flash"}},
            {"name": "host", "on_change": {"nothing": "normal"}},
        ]
    )
    samples = (ChannelSample("solar.bat_v", "1", "V"), ChannelSample("solar.mode", "1", ""))
    solar, host = CollectorCheck("solar", samples=samples), CollectorCheck("host", samples=samples)
    told = check_told([solar, host, CollectorCheck("other")], series)
    assert [each.error for each in told] == ["", "it has no channel 'nothing'", ""]


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("schema", 5, "schema"),
        ("limits", [{"channel": "a", "above": "much"}], r"limits\[0\]"),
        ("limits", [{"channel": "a"}], r"limits\[0\]"),
        ("on_change", {"a": "soon"}, "on_change"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: object, named: str) -> None:
    with pytest.raises(CollectorConfigError, match=rf"collector\[0\]\.{named}"):
        split_tables([{"kind": "x", "name": "solar", key: value}])
