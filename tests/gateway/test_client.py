"""The typed client against a real gateway, and against servers that are none."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tenacity
from aiohttp import web

from gateway import answers, apicalls
from gateway.api import app as api_app
from gateway.api.auth import Role
from gateway.api.limits import ApiLimits
from gateway.apicalls import path_part
from gateway.client import ApiError, Client, SyncClient, UnreachableError
from protocol.errors import LocalError
from tests.gateway.fleets import add_truck
from tests.gateway.running import TOKENS, Cutter, RunningGateway, running_gateway

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def gateway(empty_database: Path, tmp_path: Path) -> Iterator[RunningGateway]:
    with running_gateway(empty_database, tmp_path / "gateway") as running:
        yield running


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[Client]:
    """A client of a server that answers everything with `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with Client(f"http://127.0.0.1:{port}", "dt_token") as client:
            yield client
    finally:
        await runner.cleanup()


# What it reads is what the gateway declares.

SHAPES: dict[str, type[msgspec.Struct]] = {}
for _operation in api_app.OPERATIONS:
    _answer = _operation.answer_type
    if _answer is not None:
        SHAPES[f"{_operation.method} {_operation.path}"] = _answer

READ: dict[str, type[msgspec.Struct]] = {
    "GET /v1/trucks": answers.TruckPage,
    "GET /v1/trucks/{truck}": answers.TruckDetail,
    "DELETE /v1/trucks/{truck}": answers.TruckDetail,
    "POST /v1/enrolments": answers.EnrolmentCode,
    "GET /v1/trucks/{truck}/samples": answers.Samples,
    "GET /v1/trucks/{truck}/events": answers.EventPage,
    "GET /v1/trucks/{truck}/receipts": answers.ReceiptPage,
    "GET /v1/trucks/{truck}/coverage": answers.Coverage,
    "GET /v1/trucks/{truck}/ledger": answers.LedgerPage,
    "GET /v1/ledger": answers.LedgerPage,
    "GET /v1/trucks/{truck}/budget": answers.Budget,
    "GET /v1/budgets": answers.BudgetPage,
    "PUT /v1/documents": answers.DocumentRow,
    "GET /v1/documents": answers.DocumentPage,
    "GET /v1/trust": answers.Trust,
    "GET /v1/trucks/{truck}/config": answers.TruckConfig,
    "GET /v1/bundles": answers.BundlePage,
    "GET /v1/bundles/{name}/{version}": answers.BundleDetail,
    "PUT /v1/blobs/{digest}": answers.Upload,
    "POST /v1/rollouts": answers.DocumentRow,
    "GET /v1/rollouts": answers.RolloutPage,
    "GET /v1/rollouts/{id}": answers.RolloutDetail,
    "POST /v1/quotes": answers.Quote,
}


def outline(kind: Any) -> Any:
    """Return the fields of a struct with their types, inner structs opened, bounds and docs left out."""
    info = msgspec.inspect.type_info(kind)
    return _outlined(info)


def _outlined(info: msgspec.inspect.Type) -> Any:
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _outlined(inner)
        case msgspec.inspect.StructType(fields=fields):
            return {field.encode_name: (_outlined(field.type), field.required) for field in fields}
        case msgspec.inspect.ListType(item_type=inner) | msgspec.inspect.VarTupleType(item_type=inner):
            return [_outlined(inner)]
        case msgspec.inspect.UnionType(types=types):
            return sorted(repr(_outlined(each)) for each in types)
        case msgspec.inspect.DictType(value_type=inner):
            return {"*": _outlined(inner)}
        case msgspec.inspect.TupleType(item_types=types):
            return [_outlined(each) for each in types]
        case msgspec.inspect.LiteralType():
            return "StrType"
    return type(info).__name__


@pytest.mark.parametrize("route", READ)
def test_every_answer_is_read_as_the_gateway_declares_it(route: str) -> None:
    assert outline(READ[route]) == outline(SHAPES[route])


def test_sync_client_has_every_method_of_the_async_one_with_its_signature() -> None:
    public = {name for name, each in vars(Client).items() if inspect.isfunction(each) and not name.startswith("_")}
    wire = {"blob_offset", "put_piece"}  # used by publishing.push alone
    for name in public - wire:
        ours, theirs = inspect.signature(getattr(SyncClient, name)), inspect.signature(getattr(Client, name))
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name


# Against a gateway.


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


# Against servers that are no gateway.


async def test_nobody_listening_is_one_clear_error_at_once() -> None:
    async with Client("http://127.0.0.1:1", "t") as client:
        with pytest.raises(UnreachableError, match="is it running"):
            await client.trucks()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"items": 3, "next": null}', b'{"items": []}', b"\xff", b"[" * 100_000, b"null"]
)
async def test_answers_that_no_gateway_gives_are_refused(body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with answering(handler) as client:
        with pytest.raises(UnreachableError, match="does not answer like a gateway"):
            await client.trucks()


async def test_a_newer_gateways_additions_are_skipped() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"items": [], "next": None, "total": 0, "hint": {"new": True}})

    async with answering(handler) as client:
        assert await client.trucks() == []


async def test_the_token_never_follows_a_redirect() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        raise web.HTTPFound("/elsewhere")

    async with answering(handler) as client:
        with pytest.raises(UnreachableError, match="redirects"):
            await client.trucks()
    assert seen == ["/v1/trucks"]


async def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.apicalls._ANSWER_BYTES_MAX", 100_000)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(10_000))

    async with answering(handler) as client:
        with pytest.raises(UnreachableError, match="larger than"):
            await client.trucks()


async def test_a_listing_that_never_ends_is_bounded() -> None:
    count = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        return web.json_response({"items": [], "next": "same"})

    async with answering(handler) as client:
        assert await client.trucks() == []
    assert count == 2


@pytest.mark.parametrize("body", [b"{", b'{"status": "x"}', b"", b"\xff", b'{"type": 1}'])
async def test_a_refusal_that_cannot_be_read_is_still_a_refusal(body: bytes) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=418, body=body, content_type="application/problem+json")

    async with answering(handler) as client:
        with pytest.raises(ApiError) as caught:
            await client.trucks()
    assert caught.value.status == 418
    assert str(caught.value)


async def test_a_post_is_not_repeated_when_the_connection_breaks() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.method)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with answering(handler) as client:
        with pytest.raises(UnreachableError):
            await client.enrol("ke-arrow")
    assert seen == ["POST"]


async def test_odd_events_of_a_stream_are_skipped() -> None:
    text = (
        ": comment\r\n\r\nevent: x\ndata\n\nid: 5\nevent: event\n"
        'data: {"kind":"event","truck":null,"subject":"a","at_ms":1}\n\nid: \nretry: 1\n\n'
        'id: 6\ndata: {"kind":"event",\ndata: "truck":"t","subject":"b","at_ms":2}\n\n'
    )

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/event-stream")

    async with answering(handler) as client:
        changes = client.changes()
        found = [await anext(changes), await anext(changes)]
        await changes.aclose()  # type: ignore[attr-defined]
    assert [(each.id, each.subject) for each in found] == [(5, "a"), (6, "b")]


@pytest.mark.parametrize("text", ["a/b", "../x", "a?b", "a#b", "a%2Fb", "a\nb", "é"])
def test_no_name_reaches_another_route(text: str) -> None:
    part = path_part(text)
    assert part.isascii()
    assert not set(part) & set("/?#\n")


@pytest.mark.parametrize("text", ["", ".", ".."])
def test_names_that_are_steps_are_refused(text: str) -> None:
    with pytest.raises(LocalError):
        path_part(text)


def test_using_it_unopened_is_our_own_mistake() -> None:
    with pytest.raises(RuntimeError, match="context manager"):
        _ = Client("http://127.0.0.1:1", "t").http
