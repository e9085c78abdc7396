"""Bars and rows of blocks are as wide as they should be, whatever the numbers."""

from gateway.cli.bars import bar, sparkline


def test_a_bar_is_as_full_as_its_share_and_never_wider() -> None:
    assert [bar(share, width=4) for share in (0.0, 0.5, 1.0, 7.0, -1.0)] == ["░░░░", "██░░", "████", "████", "░░░░"]
    assert bar(0.3125, width=4) == "█▎░░"


def test_days_are_blocks_scaled_to_the_highest_and_days_without_use_are_dots() -> None:
    assert sparkline([0, 1, 50, 100]) == "·▁▄█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "··"
    assert len(sparkline(list(range(100)), width=31)) == 31
