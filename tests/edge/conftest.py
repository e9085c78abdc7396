"""What the tests of the edge share: a real gateway and trucks that have joined it, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from store.fleet.fleet import migrate
from tests.edge.rig import Hub, Rig


@pytest.fixture(scope="session")
def migrated_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gateway's database without a row: migrating one takes longer than most tests."""
    path = tmp_path_factory.mktemp("fleet") / "fleet.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make first timeouts short, so that a silent link is found out in a moment."""
    monkeypatch.setattr("protocol.pace._RTO_FIRST_S", 0.2)
    monkeypatch.setattr("protocol.pace._RTO_MIN_S", 0.15)
    monkeypatch.setattr("edge.link._HANDSHAKE_FIRST_S", 0.1)
    monkeypatch.setattr("edge.bundles._RETRY_FIRST_S", 0.2)
    monkeypatch.setattr("edge.downlink._RETRY_FIRST_S", 0.2)


@pytest.fixture
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


@pytest.fixture
async def rig(migrated_fleet: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A running gateway with a root and a delegation."""
    # Packs are made in a thread here: a process takes seconds to start.
    monkeypatch.setattr("gateway.packs.Packs._new_workers", lambda packs: ThreadPoolExecutor(1))
    # A whole collection of a test process takes longer than the rest of a gateway's start.
    monkeypatch.setattr("gateway.daemon.gc", SimpleNamespace(collect=int, freeze=int, set_threshold=lambda *each: None))
    hub = Hub(tmp_path / "hub", migrated_fleet)
    await hub.start()
    rig = Rig(tmp_path, hub)
    try:
        yield rig
    finally:
        await rig.close()
