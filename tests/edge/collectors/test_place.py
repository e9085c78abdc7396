"""A written position is told as it was written, and one that is nowhere on earth is refused."""

from __future__ import annotations

import msgspec
import pytest

from edge.collectors.place import PlaceCollector, PlaceSettings
from tests.edge.collectors.peers import sample


async def test_a_written_position_is_told_in_the_steps_that_it_is_good_to() -> None:
    collector = PlaceCollector(PlaceSettings(kind="place", name="home", latitude=-1.29213, longitude=36.82))
    assert [(each.name, each.unit, each.nominal) for each in collector.channels] == [
        ("home.lat", "lat", -12_921),
        ("home.lon", "lon", 368_200),
    ]
    assert await sample(collector) == {"home.lat": "-1.2921", "home.lon": "36.82"}


@pytest.mark.parametrize(("key", "value"), [("latitude", 90.01), ("longitude", -181), ("latitude", "north")])
def test_a_position_that_is_nowhere_is_refused_by_its_key(key: str, value: object) -> None:
    table = {"kind": "place", "name": "home", "latitude": 0, "longitude": 0, key: value}
    with pytest.raises(msgspec.ValidationError, match=key):
        msgspec.convert(table, PlaceSettings)
