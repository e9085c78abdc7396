"""A scripted gateway and the truck that listens to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.attacks.rig import Gateway, Good, Truck


@pytest.fixture
def gateway() -> Gateway:
    """A gateway with all of its keys."""
    return Gateway()


@pytest.fixture
async def truck(tmp_path: Path, gateway: Gateway) -> AsyncIterator[Truck]:
    """A truck that has just joined."""
    new = Truck(tmp_path, gateway)
    yield new
    await new.close()


@pytest.fixture
async def served(truck: Truck, gateway: Gateway) -> Good:
    """What the truck has applied and installed: version 1 of everything, honestly."""
    good = Good.make(1)
    gateway.publish(good.files, good.manifest)
    gateway.want(*good.all)
    assert await truck.sync() is None
    assert await truck.install()
    assert (truck.config_version(), truck.active()) == (1, "v1")
    truck.receipts.clear()
    gateway.requests.clear()
    return good
