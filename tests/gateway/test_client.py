"""The typed client against a real gateway, and against servers that are none."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import tenacity
from aiohttp import web

from gateway import apicalls
from gateway.api.auth import Role
from gateway.api.limits import ApiLimits
from gateway.client import ApiError, Client, SyncClient
from tests.gateway.fleets import add_truck
from tests.gateway.running import TOKENS, Cutter, RunningGateway, running_gateway

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def gateway(empty_database: Path, tmp_path: Path) -> Iterator[RunningGateway]:
    with running_gateway(empty_database, tmp_path / "gateway") as running:
        yield running


def test_sync_client_has_every_method_of_the_async_one_with_its_signature() -> None:
    public = {name for name, each in vars(Client).items() if inspect.isfunction(each) and not name.startswith("_")}
    wire = {"blob_offset", "put_piece"}  # used by publishing.push alone
    for name in public - wire:
        ours, theirs = inspect.signature(getattr(SyncClient, name)), inspect.signature(getattr(Client, name))
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name


def test_all_pages_of_a_listing_are_one_list(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        gateway.run(add_truck(gateway.fleet, f"truck-{number}"))
    monkeypatch.setattr("gateway.apicalls.PAGE_ITEMS", 3)
    with SyncClient(gateway.url, TOKENS[Role.VIEWER]) as client:
        assert [each.truck for each in client.trucks()] == [f"truck-{number}" for number in range(7)]
        assert len(client.trucks(limit=4)) == 4
        assert client.trucks(group="none") == []


async def test_refusals_carry_status_kind_and_what_to_do(gateway: RunningGateway) -> None:
    async with Client(gateway.url, TOKENS[Role.VIEWER]) as client:
        with pytest.raises(ApiError, match="no truck of that name") as caught:
            await client.truck("nobody")
        assert (caught.value.status, caught.value.kind) == (404, "urn:digitruck:problem:not-found")
        with pytest.raises(ApiError, match="role") as caught:
            await client.enrol("ke-arrow")
        assert caught.value.status == 403
    async with Client(gateway.url, "dt_" + "x" * 43) as client:
        with pytest.raises(ApiError) as caught:
            await client.trucks()
        assert caught.value.status == 401


async def test_a_gateway_that_asks_for_patience_gets_it(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    wait_s = apicalls._wait_s

    def short_wait(state: tenacity.RetryCallState) -> float:
        waited.append(wait_s(state))
        return 0.15

    monkeypatch.setattr(apicalls, "_wait_s", short_wait)
    limits = ApiLimits(token_rate=10.0, token_burst=2.0)
    with running_gateway(empty_database, tmp_path / "slow", limits) as running:
        async with Client(running.url, TOKENS[Role.VIEWER]) as client:
            for _ in range(4):
                assert await client.trucks() == []
    assert waited
    assert set(waited) == {1.0}  # what Retry-After says


def test_changes_go_on_after_the_connection_broke(gateway: RunningGateway) -> None:
    cutter = Cutter(gateway, 10_000_000)
    truck = gateway.run(add_truck(gateway.fleet))
    with SyncClient(gateway.run(cutter.start()), TOKENS[Role.VIEWER]) as client:
        changes = client.changes(kinds=["event"], after=0)
        gateway.run(truck.event("one"))
        first = next(changes)
        gateway.run(cutter.cut_all())
        gateway.run(truck.event("two"))
        second = next(changes)
        assert (first.kind, second.kind) == ("event", "event")
        assert second.id > first.id
        changes.close()  # type: ignore[attr-defined]
    gateway.run(cutter.stop())
