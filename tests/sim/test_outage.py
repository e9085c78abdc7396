"""What a truck spends on links that do not answer: less and less, whatever waits."""

from __future__ import annotations

import asyncio

import pytest

from protocol.numbers import Precedence
from tests.sim.world import Plan, World, world

_HOUR_S = 3_600.0


@pytest.mark.parametrize("precedence", [Precedence.FLASH, Precedence.PRIORITY])
def test_two_dead_links_do_not_wake_each_other(precedence: Precedence) -> None:
    with world(Plan(seed=1, row_every_s=1e9)) as made:
        carried = made.run(_dead(made, precedence))
    # Each is tried a dozen times in the first minutes, then about twice an hour: `retry_s_max` is an hour here.
    assert all(0 < datagrams < 150 for datagrams in carried), carried


async def _dead(made: World, precedence: Precedence) -> list[int]:
    """Return how many datagrams each link was given in eight hours in which none answered."""
    await made.open()
    await asyncio.sleep(_HOUR_S)
    truck = made.trucks["truck-0"]
    for link in made.network.links.values():
        link.state.alive = False
    before = [link.count.sent_datagrams for link in made.network.links.values()]
    assert truck.edge is not None
    await truck.edge.recorder.event("e1", precedence)
    await asyncio.sleep(8 * _HOUR_S)
    after = [link.count.sent_datagrams for link in made.network.links.values()]
    return [now - then for now, then in zip(after, before, strict=True)]
