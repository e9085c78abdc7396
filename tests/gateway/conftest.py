"""What the gateway's tests share: an empty fleet store, copied from one that was migrated once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.fleet.fleet import FleetStore, migrate
from tests.gateway.coapside import Clock, ScriptedTruck, Side, enrol_directly, open_side, open_truck
from tests.gateway.fleets import Signers, copied_fleet


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without a row."""
    path = tmp_path_factory.mktemp("fleet") / "fleet.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
async def fleet(empty_database: Path, tmp_path: Path) -> AsyncIterator[FleetStore]:
    """An empty fleet store."""
    async with copied_fleet(empty_database, tmp_path / "fleet.db") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    """A clock that only the test moves."""
    return Clock()


@pytest.fixture
async def side(fleet: FleetStore, tmp_path: Path, clock: Clock) -> AsyncIterator[Side]:
    """The gateway's CoAP side, listening on loopback, with a root."""
    async with open_side(fleet, tmp_path, clock) as opened:
        await opened.documents.accept(Signers().root_document(), "a test")
        yield opened


@pytest.fixture
async def truck(side: Side) -> AsyncIterator[ScriptedTruck]:
    """An enrolled truck without a session."""
    async with open_truck(side.address) as opened:
        await enrol_directly(side.fleet, opened)
        yield opened
