"""Uploads share transactions; who is acknowledged is durable, and one that fails takes no other along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import structlog

from gateway.commits import GroupCommit
from protocol.numbers import Precedence
from store.fleet.evidence import EventPart, IngestItem, IngestResult, IngestStatus
from store.fleet.fleet import FleetStore
from tests.gateway.fleets import EPOCH, NOW_MS, add_truck


def item(sequence: int, *, time_ms: int = NOW_MS, truck: str = "ke-arrow") -> IngestItem:
    part = EventPart("door", time_ms)
    return IngestItem(truck, "sat", EPOCH, sequence, Precedence.NORMAL, bytes(80), NOW_MS, part)


POISON = item(99, time_ms=1 << 63)


class Counted:
    """A fleet store that counts its transactions, and fails those that `refuses` says."""

    def __init__(self, fleet: FleetStore) -> None:
        self.fleet = fleet
        self.sizes: list[int] = []
        self.is_away = False

    async def ingest(self, items: Sequence[IngestItem]) -> list[IngestResult]:
        self.sizes.append(len(items))
        if self.is_away:
            raise OSError("no database")
        return await self.fleet.ingest(items)


@pytest.fixture
async def counted(fleet: FleetStore) -> Counted:
    await add_truck(fleet)
    return Counted(fleet)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Tracebacks of the failures that are meant to happen would take seconds to render for a terminal."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def commits(counted: Counted) -> AsyncIterator[GroupCommit]:
    group = GroupCommit(counted)  # type: ignore[arg-type]
    work = asyncio.create_task(group.run())
    yield group
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_many_uploads_take_few_transactions(commits: GroupCommit, counted: Counted) -> None:
    results = await asyncio.gather(*(commits.commit([item(n)]) for n in range(1, 301)))
    assert all(each[0].status is IngestStatus.STORED for each in results)
    assert len(counted.sizes) <= 2
    assert sum(counted.sizes) == 300


async def test_each_upload_gets_its_own_results_in_their_order(commits: GroupCommit) -> None:
    first, second = await asyncio.gather(commits.commit([item(2), item(1)]), commits.commit([item(3), item(1)]))
    assert [each.item.sequence for each in first + second] == [2, 1, 3, 1]
    assert second[1].status is IngestStatus.DUPLICATE
    assert second[1].state is not None
    assert second[1].state.cumulative == 3


async def test_what_the_database_refuses_of_one_costs_the_others_nothing(
    commits: GroupCommit, fleet: FleetStore
) -> None:
    good = [commits.commit([item(n)]) for n in (1, 2, 3)]
    results = await asyncio.gather(*good[:2], commits.commit([POISON]), good[2], return_exceptions=True)
    assert isinstance(results[2], Exception)
    assert all(isinstance(results[n], list) for n in (0, 1, 3))
    state = await fleet.epoch_state("ke-arrow")
    assert state is not None
    assert (state.cumulative, state.ranges) == (3, ())


async def test_a_database_that_is_away_acknowledges_nobody_and_is_not_asked_for_each(
    commits: GroupCommit, counted: Counted
) -> None:
    counted.is_away = True
    results = await asyncio.gather(*(commits.commit([item(n)]) for n in range(1, 51)), return_exceptions=True)
    assert all(isinstance(each, OSError) for each in results)
    assert len(counted.sizes) <= 6
    counted.is_away = False
    assert (await commits.commit([item(1)]))[0].status is IngestStatus.STORED


async def test_an_upload_that_nobody_waits_for_any_more_hurts_nobody(commits: GroupCommit, fleet: FleetStore) -> None:
    impatient = asyncio.create_task(commits.commit([item(1)]))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await commits.commit([item(2)]))[0].committed
    await asyncio.gather(impatient, return_exceptions=True)


async def test_who_waits_when_the_gateway_stops_is_told(fleet: FleetStore) -> None:
    await add_truck(fleet)

    class Stuck(Counted):
        async def ingest(self, items: Sequence[IngestItem]) -> list[IngestResult]:
            await asyncio.Event().wait()
            raise AssertionError

    group = GroupCommit(Stuck(fleet))  # type: ignore[arg-type]
    work = asyncio.create_task(group.run())
    waiting = asyncio.create_task(group.commit([item(1)]))
    await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
