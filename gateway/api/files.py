"""Files that are written while they are read from the database: a few at a time, at the pace of who reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.api.operations import Call
from gateway.api.problem import Problem

_WRITE_S = 60.0  # that a client may take for one piece


@asynccontextmanager
async def export_turn(call: Call) -> AsyncIterator[None]:
    """Wait for one's turn to read a lot; raise a 503 `Problem` if it does not come."""
    exports = call.api.exports
    try:
        async with asyncio.timeout(call.api.limits.export_wait_s):
            await exports.acquire()
    except TimeoutError as error:
        raise Problem(503, "too much is being exported; ask again later", headers={"Retry-After": "10"}) from error
    try:
        yield
    finally:
        exports.release()


async def send_file(call: Call, pieces: AsyncIterator[bytes], *, media: str, name: str) -> web.StreamResponse:
    """Send what comes as one attachment; a failure midway breaks the connection, so that no part looks whole."""
    response = web.StreamResponse(headers={"Content-Type": media, "Cache-Control": "no-store"})
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    await response.prepare(call.request)
    async for piece in pieces:
        async with asyncio.timeout(_WRITE_S):
            await response.write(piece)
    await response.write_eof()
    return response
