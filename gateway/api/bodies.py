"""Request bodies under a size limit and a deadline.

Content-Encoding is refused before a byte is read: a compressed body can be a thousand times what it announces
(CVE-2025-69223), and nothing here gains from one. `100 Continue` is only sent once the sender is known and the size is
allowed, so a refused upload costs its sender nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from aiohttp import web

from gateway.api.limits import ApiLimits
from gateway.api.problem import Problem

_T = TypeVar("_T")
_CHUNK_BYTES = 256 * 1024


def check_media_type(request: web.Request, wanted: str) -> None:
    """Check that a body is of the wanted media type and not compressed; raise a 415 `Problem`."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "a compressed body is not taken; send it without Content-Encoding", close=True)
    if request.content_type != wanted:
        raise Problem(415, f"this address takes a body of type {wanted}", close=True, headers={"Accept": wanted})


async def read_body(request: web.Request, *, bytes_max: int, limits: ApiLimits) -> bytes:
    """Return the whole body; raise a `Problem`: 413 over `bytes_max`, 408 after the deadline."""
    length = request.content_length
    deadline_s = limits.body_deadline_s + (length or 0) * 8 / limits.body_rate_bps_min
    parts = bytearray()
    async for chunk in read_chunks(request, bytes_max=bytes_max, deadline_s=deadline_s):
        parts += chunk
    return bytes(parts)


async def read_chunks(request: web.Request, *, bytes_max: int, deadline_s: float) -> AsyncIterator[bytes]:
    """Yield the body in pieces of at most 256 KiB; raise a `Problem` as `read_body` does.

    The deadline is on the sender alone: the time that the consumer of the pieces takes does not count.
    """
    if request.content_length is not None and request.content_length > bytes_max:
        raise too_large(bytes_max)
    await _invite(request)
    clock = asyncio.get_running_loop().time
    total, left_s = 0, deadline_s
    while True:
        started = clock()
        try:
            async with asyncio.timeout(left_s):
                chunk = await request.content.read(_CHUNK_BYTES)
        except TimeoutError as error:
            raise Problem(408, f"the body did not arrive within {deadline_s:.0f} s", close=True) from error
        except (web.RequestPayloadError, ConnectionResetError) as error:
            raise Problem(400, "the body ended before its announced length", close=True) from error
        left_s -= clock() - started
        if not chunk:
            return
        total += len(chunk)
        if total > bytes_max:
            raise too_large(bytes_max)
        yield chunk


def decode_json(body: bytes, kind: type[_T]) -> _T:
    """Return the JSON body as a valid `kind`; raise a 400 `Problem` that names the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        detail = str(error) if isinstance(error, msgspec.ValidationError) else "the body is not valid JSON"
        raise Problem(400, detail[:300]) from error


async def defer_continue(request: web.Request) -> web.StreamResponse | None:
    """Take note of `Expect`, and leave the answer to the moment when the body is wanted."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="")
    return None


def too_large(bytes_max: int) -> Problem:
    """Return the refusal of a body that is too long."""
    return Problem(413, f"the body is larger than {bytes_max} bytes", close=True)


async def _invite(request: web.Request) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The library counts these bytes as the beginning of the answer; its own handler resets the count, too.
        request.writer.output_size = 0
