"""Blobs: the files of bundles, named by their SHA-256, uploaded in pieces that survive a broken connection.

An upload goes on where it stopped: `Content-Range: bytes FIRST-LAST/SIZE` names the piece, `Upload-Offset` in each
answer names the next byte that is wanted. A piece is kept as far as it came. A blob appears only when all of it is
there and its digest is right, so nobody can ever read a wrong one. Downloads take one range and are never rendered by
a browser: what lies in a bundle must not run on the API's origin.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from gateway.api.auth import PUBLISHER, VIEWER
from gateway.api.bodies import check_media_type, read_chunks, too_large
from gateway.api.dispatch import is_unchanged, not_modified
from gateway.api.operations import JSON, OCTETS, Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Bytes, DigestPath, Shape
from store.errors import DigestMismatchError

_CHUNK_BYTES = 256 * 1024
_WRITE_S = 30.0
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_OFFSET = "Upload-Offset"
_COMPLETE = "Upload-Complete"


class UploadShape(Shape, frozen=True):
    """How far an upload is: `received` of `size` bytes."""

    digest: str
    received: Bytes
    size: Bytes


@operation("HEAD", "/v1/blobs/{digest}", tag="bundles", needs=VIEWER, statuses=(204,), media=())
async def head_blob(call: Call, path: DigestPath) -> web.StreamResponse:
    """Ask whether a blob is here.

    200 with its length if it is; 204 with `Upload-Offset` if only its beginning is; 404 if nothing is.
    """
    size = await asyncio.to_thread(call.api.blobs.size, path.raw)
    if size is not None:
        response = web.StreamResponse(headers={"Accept-Ranges": "bytes", _COMPLETE: "?1"})
        response.content_type = OCTETS
        response.content_length = size
        response.etag = path.digest
        return response
    received = await asyncio.to_thread(call.api.blobs.partial_size, path.raw)
    if received == 0:
        raise Problem(404, "no blob of that digest is here")
    return web.Response(status=204, headers={_OFFSET: str(received), _COMPLETE: "?0"})


@operation(
    "GET",
    "/v1/blobs/{digest}",
    tag="bundles",
    needs=VIEWER,
    statuses=(206, 304),
    media=(OCTETS,),
    streams=True,
    problems=(416,),
)
async def get_blob(call: Call, path: DigestPath) -> web.StreamResponse:
    """Fetch a blob, or one range of it; or a pack that a stick names."""
    size, pack = await asyncio.to_thread(call.api.blobs.size, path.raw), None
    if size is None and call.api.services.couriers is not None:
        pack = call.api.services.couriers.pack_path(path.raw)
        size = None if pack is None else (await asyncio.to_thread(pack.stat)).st_size
    if size is None:
        raise Problem(404, "no blob of that digest is here")
    first, end = _wanted(call.request, path.digest, size)
    response = web.StreamResponse(status=200 if (first, end) == (0, size) else 206)
    response.content_type = OCTETS
    response.content_length = end - first
    response.etag = path.digest
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    response.headers["Content-Disposition"] = "attachment"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    if is_unchanged(call.request, path.digest):
        return not_modified(response)
    await response.prepare(call.request)
    while first < end:
        count = min(_CHUNK_BYTES, end - first)
        if pack is None:
            data = await asyncio.to_thread(call.api.blobs.read, path.raw, first, count)
        else:
            data = await asyncio.to_thread(_read_at, pack, first, count)
        async with asyncio.timeout(_WRITE_S):
            await response.write(data)
        first += len(data)
    await response.write_eof()
    return response


@operation(
    "PUT",
    "/v1/blobs/{digest}",
    tag="bundles",
    needs=PUBLISHER,
    status=201,
    statuses=(200, 202),
    consumes=OCTETS,
    streams=True,
    problems=(409, 411, 422, 507),
)
async def put_blob(call: Call, path: DigestPath) -> UploadShape | web.StreamResponse:
    """Upload a blob, whole or a piece of it.

    201 when it is complete, 200 when it was complete before, 202 when more is wanted, 409 with the right offset when
    the piece does not begin where the last one ended, 422 when the whole does not have this digest (start over).
    """
    check_media_type(call.request, OCTETS)
    piece = _piece(call.request)
    if piece.size > call.api.limits.blob_bytes_max:
        raise too_large(call.api.limits.blob_bytes_max)
    async with _alone(call, path.raw):
        size = await asyncio.to_thread(call.api.blobs.size, path.raw)
        if size is not None:
            # A gateway that died between the folder and the database notes it now.
            await call.api.fleet.put_blob(path.raw, size, call.actor.name, call.api.services.now_ms())
            return _answer(200, UploadShape(digest=path.digest, received=size, size=size))
        try:
            received = await _receive(call, path.raw, piece)
            if received == piece.size:
                await asyncio.to_thread(call.api.blobs.finish, path.raw)
        except DigestMismatchError as error:
            raise Problem(422, "the bytes do not have this digest; start over", offset=0, close=True) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Problem(507, "the gateway's disk is full", close=True) from error
        progress = UploadShape(digest=path.digest, received=received, size=piece.size)
        if received < piece.size:
            return _answer(202, progress)
        await call.api.fleet.put_blob(path.raw, piece.size, call.actor.name, call.api.services.now_ms())
        return _answer(201, progress)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes [first, first + length) of a blob of `size`."""

    first: int
    length: int
    size: int


def _piece(request: web.Request) -> _Piece:
    """Return which piece a request brings; raise a `Problem` for headers that do not agree."""
    length = request.content_length
    if length is None:
        raise Problem(411, "an upload says its length in Content-Length", close=True)
    text = request.headers.get("Content-Range")
    if text is None:
        return _Piece(0, length, length)
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise Problem(400, "Content-Range is `bytes FIRST-LAST/SIZE`", close=True)
    first, last, size = (int(group) for group in match.groups())
    if not first <= last < size or last - first + 1 != length:
        raise Problem(400, "Content-Range and Content-Length do not agree", close=True)
    return _Piece(first, length, size)


async def _receive(call: Call, digest: bytes, piece: _Piece) -> int:
    """Write a piece as it comes; return how many bytes of the blob are here then. What came before a break is kept."""
    blobs, limits = call.api.blobs, call.api.limits
    at = await asyncio.to_thread(blobs.partial_size, digest)
    if at >= piece.size > 0:
        # All of it came, but the gateway died before it could check; or somebody announced another size before.
        return piece.size
    if at != piece.first:
        raise Problem(409, f"go on from byte {at}", offset=at, headers={_OFFSET: str(at)}, close=True)
    deadline_s = limits.body_deadline_s + piece.length * 8 / limits.body_rate_bps_min
    try:
        if piece.size == 0:
            await asyncio.to_thread(blobs.append, digest, 0, b"")
        async for chunk in read_chunks(call.request, bytes_max=piece.length, deadline_s=deadline_s):
            at = await asyncio.to_thread(blobs.append, digest, at, chunk)
    finally:
        if at > piece.first:
            now_ms = call.api.services.now_ms()
            await call.api.fleet.note_upload(digest, piece.size, at, call.actor.name, now_ms)
    return at


@asynccontextmanager
async def _alone(call: Call, digest: bytes) -> AsyncIterator[None]:
    """Hold a blob's upload for one request; raise a 409 `Problem` if another one has it."""
    if digest in call.api.uploading:
        raise Problem(409, "another upload of this blob is under way; ask again later", kind="busy", close=True)
    call.api.uploading.add(digest)
    try:
        yield
    finally:
        call.api.uploading.discard(digest)


def _read_at(path: Path, first: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(first)
        return file.read(count)


def _answer(status: int, progress: UploadShape) -> web.Response:
    complete = progress.received == progress.size
    return web.Response(
        status=status,
        body=msgspec.json.encode(progress),
        content_type=JSON,
        headers={_OFFSET: str(progress.received), _COMPLETE: "?1" if complete else "?0"},
    )


def _wanted(request: web.Request, digest: str, size: int) -> tuple[int, int]:
    """Return the first byte and the end of what is asked for; raise a 416 `Problem` (RFC 9110 section 14)."""
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() != f'"{digest}"':
        return 0, size
    try:
        asked = request.http_range
    except ValueError:
        return 0, size  # a range that is not understood is as good as none
    first = asked.start or 0
    if first < 0:
        first = max(0, size + first)
    end = size if asked.stop is None else min(asked.stop, size)
    if first >= size and (asked.start or asked.stop is not None):
        raise Problem(416, f"the blob has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return first, end


OPERATIONS = (head_blob, get_blob, put_blob)
