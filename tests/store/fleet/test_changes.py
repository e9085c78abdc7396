"""The feed tells of each commit, in order, to whoever listens, from wherever they left off."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from store.fleet import changes_table
from store.fleet.changes import KINDS
from store.fleet.evidence import EventPart, IngestItem
from store.fleet.fleet import FleetStore
from store.fleet.records import Change


async def take(feed: AsyncIterator[Change], number: int) -> list[Change]:
    async def some() -> list[Change]:
        return [await anext(feed) for _ in range(number)]

    return await asyncio.wait_for(some(), 60)


@pytest.fixture(autouse=True)
async def _truck(enrol: Callable) -> None:
    await enrol()


async def test_a_subscriber_hears_what_is_committed_from_now_on(fleet: FleetStore) -> None:
    feed = fleet.changes.subscribe()
    waiting = asyncio.create_task(take(feed, 2))
    await asyncio.sleep(0.05)
    await fleet.heard("ke-arrow", "sat", 5)
    await fleet.set_status("ke-arrow", "{}", 6)
    heard, status = await waiting
    assert (heard.kind, heard.truck, heard.subject, heard.at_ms) == ("heard", "ke-arrow", "sat", 5)
    assert status.kind == "status"
    assert status.id == heard.id + 1


async def test_a_reader_resumes_after_the_last_id_it_saw(fleet: FleetStore) -> None:
    start = await fleet.changes.newest()
    for n in range(5):
        await fleet.heard("ke-arrow", str(n), n)
    everything = await take(fleet.changes.subscribe(start), 5)
    assert [change.subject for change in everything] == ["0", "1", "2", "3", "4"]
    assert await take(fleet.changes.subscribe(everything[2].id), 2) == everything[3:]


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_the_other_gateways_commits_are_heard_at_once(fleet: FleetStore, other: FleetStore) -> None:
    feed = fleet.changes.subscribe()
    waiting = asyncio.create_task(take(feed, 1))
    await asyncio.sleep(0.1)
    began = asyncio.get_running_loop().time()
    await other.heard("ke-arrow", "lte", 5)
    assert [change.subject for change in await waiting] == ["lte"]
    assert asyncio.get_running_loop().time() - began < 3


async def test_what_rolled_back_is_not_told(fleet: FleetStore) -> None:
    start = await fleet.changes.newest()

    async def note_and_fail() -> None:
        async with fleet._database.write() as transaction:
            transaction.note("truck", truck="ke-arrow")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await note_and_fail()
    await fleet.heard("ke-arrow", "sat", 5)
    assert [change.kind for change in await take(fleet.changes.subscribe(start), 1)] == ["heard"]


async def test_old_changes_are_forgotten_and_a_late_reader_is_told(
    fleet: FleetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_table, "CHANGES_KEPT", 10)
    monkeypatch.setattr(changes_table, "CHANGES_PRUNE_EVERY", 5)
    first = await fleet.changes.newest()
    for n in range(30):
        await fleet.heard("ke-arrow", str(n), n)
    gap, *kept = await take(fleet.changes.subscribe(first), 6)
    assert gap.kind == "gap"
    assert kept[0].id == gap.id + 1
    newest = await fleet.changes.newest()
    async with fleet._database.read() as connection:
        assert newest - await changes_table.oldest_id(connection) < 15


async def test_an_id_of_another_database_starts_from_now(fleet: FleetStore) -> None:
    feed = fleet.changes.subscribe(10**9)
    (gap,) = await take(feed, 1)
    assert (gap.kind, gap.id) == ("gap", await fleet.changes.newest())
    await fleet.heard("ke-arrow", "sat", 5)
    assert [change.kind for change in await take(feed, 1)] == ["heard"]


async def test_one_ingest_tells_once_for_each_kind_and_truck(fleet: FleetStore, item: Callable) -> None:
    start = await fleet.changes.newest()
    items: list[IngestItem] = [item(n, EventPart("e", 1)) for n in (1, 2, 3)]
    await fleet.ingest(items)
    await fleet.ingest(items)
    await fleet.heard("ke-arrow", "sat", 5)
    event, heard = await take(fleet.changes.subscribe(start), 2)
    assert (event.kind, event.subject, heard.kind) == ("event", "7/3", "heard")
    assert {event.kind, heard.kind} <= set(KINDS)


async def test_closing_ends_subscriptions(fleet: FleetStore) -> None:
    async def until_the_end() -> int:
        return len([change async for change in fleet.changes.subscribe()])

    waiting = asyncio.create_task(until_the_end())
    await asyncio.sleep(0.05)
    await fleet.changes.close()
    assert await asyncio.wait_for(waiting, 60) == 0


async def test_closing_right_after_a_commit_does_not_wait_for_ever(fleet: FleetStore) -> None:
    feed = fleet.changes.subscribe()
    waiting = asyncio.create_task(take(feed, 1))
    await asyncio.sleep(0.05)
    fleet.changes._wake.set()
    await asyncio.sleep(0)  # the follower's wait is over, but the follower has not run yet
    closing = asyncio.create_task(fleet.changes.close())
    # Not wait_for: its cancellation would end the follower after all.
    done, _ = await asyncio.wait({closing}, timeout=2)
    closing.cancel()
    waiting.cancel()
    assert done == {closing}
