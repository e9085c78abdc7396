"""Requests and answers: patience, limits, and servers that are no gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gateway.apicalls import path_part
from gateway.client import ApiError, Client, UnreachableError
from protocol.errors import LocalError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
