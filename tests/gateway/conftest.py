"""What the gateway's tests share: an empty fleet store, copied from one that was migrated once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.fleet.fleet import FleetStore, migrate
from tests.gateway.fleets import copied_fleet


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
