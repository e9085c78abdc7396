"""Hostile bodies: too large, too slow, too deep, compressed, cut short, of the wrong type."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from gateway.api.limits import ApiLimits
from tests.gateway.api.conftest import Gateway, Opener

JSON = {"Content-Type": "application/json"}
ENROLMENT = json.dumps({"truck": "ke-arrow"}).encode()


async def raw(gateway: Gateway, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send bytes as they are and return what comes back until the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause_s)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


def head(gateway: Gateway, *headers: str, path: str = "/v1/enrolments", method: str = "POST") -> bytes:
    from gateway.api.auth import Role

    token = gateway.tokens[Role.ADMIN]
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"truck"',
        b'{"truck":"ke-arrow","colour":"red"}',
        b'{"truck":"Ke Arrow"}',
        b'{"truck":"ke-arrow","expires_in_s":1}',
        b'{"truck":"ke-arrow","expires_in_s":1e400}',
        b'{"truck":"ke-arrow","expires_in_s":' + b"9" * 5_000 + b"}",
        b'{"truck":["ke-arrow"]}',
        b"\xff\xfe{}",
        b"[" * 60_000,
        b'{"truck":' * 6_000,
        b'{"truck":"ke-arrow","group":"\xed\xa0\x80"}',
    ],
)
async def test_a_body_that_is_not_what_is_asked_for_is_a_400(gateway: Gateway, body: bytes) -> None:
    answer = await gateway.ask("POST", "/v1/enrolments", data=body, headers=JSON)
    assert (answer.status, answer.media) == (400, "application/problem+json")
    assert await gateway.fleet.enrolments() == []


async def test_a_large_body_is_refused_by_its_announced_length(gateway: Gateway) -> None:
    answer = await raw(gateway, head(gateway, "Content-Type: application/json", "Content-Length: 99999999"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


async def test_a_large_body_is_refused_while_it_comes_in_chunks(gateway: Gateway) -> None:
    async def endless():
        for _ in range(64):
            yield b"x" * 4_096

    answer = await gateway.ask("POST", "/v1/enrolments", data=endless(), headers=JSON)
    assert answer.status == 413


async def test_a_body_that_never_comes_is_a_408(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(body_deadline_s=0.05, body_rate_bps_min=10**9)) as gateway:
        answer = await raw(gateway, head(gateway, "Content-Type: application/json", "Content-Length: 20"), b'{"truck"')
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_dripping_body_does_not_get_more_time(open_gateway: Opener) -> None:
    async with open_gateway(ApiLimits(body_deadline_s=0.15, body_rate_bps_min=10**9)) as gateway:
        drops = [bytes([each]) for each in ENROLMENT]
        announced = f"Content-Length: {len(ENROLMENT)}"
        started = asyncio.get_running_loop().time()
        answer = await raw(
            gateway, head(gateway, "Content-Type: application/json", announced), *drops[:12], pause_s=0.02
        )
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert asyncio.get_running_loop().time() - started < 3


async def test_a_compressed_body_is_refused_and_not_unpacked(gateway: Gateway) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    answer = await gateway.ask("POST", "/v1/enrolments", data=bomb, headers=JSON | {"Content-Encoding": "gzip"})
    assert answer.status == 415
    honest = gzip.compress(ENROLMENT)
    answer = await gateway.ask("POST", "/v1/enrolments", data=honest, headers=JSON | {"Content-Encoding": "gzip"})
    assert answer.status == 415


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_of_another_type_is_a_415(gateway: Gateway, media: str) -> None:
    answer = await gateway.ask("POST", "/v1/enrolments", data=ENROLMENT, headers={"Content-Type": media})
    assert (answer.status, answer.headers["Accept"]) == (415, "application/json")


async def test_an_upload_is_invited_only_after_sign_in(gateway: Gateway) -> None:
    expecting = "Expect: 100-continue", "Content-Type: application/json", f"Content-Length: {len(ENROLMENT)}"
    invited = await raw(gateway, head(gateway, *expecting, "Connection: close"), ENROLMENT)
    assert invited.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")
    stranger = b"POST /v1/enrolments HTTP/1.1\r\nHost: x\r\n" + "\r\n".join(expecting).encode() + b"\r\n\r\n"
    assert (await raw(gateway, stranger)).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ["/v1/enrolments", "/no/such/place"])
async def test_an_expectation_that_nobody_knows_is_a_417(gateway: Gateway, path: str) -> None:
    answer = await raw(gateway, head(gateway, "Expect: miracles", "Connection: close", path=path))
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b"application/problem+json" in answer


async def test_a_body_on_a_request_without_one_is_ignored(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", "/v1/session", data=b"x" * 1_000)
    assert answer.status == 200
