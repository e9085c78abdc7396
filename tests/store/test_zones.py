"""Local time by the machine's own database."""

from __future__ import annotations

import pytest

from store.zones import UnknownZoneError, offset_of


def test_offsets_follow_the_zones_rules() -> None:
    assert offset_of("Africa/Nairobi")(1_800_000_000) == 3 * 3_600
    berlin = offset_of("Europe/Berlin")
    assert {berlin(1_768_000_000), berlin(1_784_000_000)} == {3_600, 7_200}


@pytest.mark.parametrize("zone", ["Africa/Atlantis", "Africa", "../etc/passwd", ""])
def test_a_zone_that_is_not_known_is_named(zone: str) -> None:
    with pytest.raises(UnknownZoneError, match="not known here"):
        offset_of(zone)
