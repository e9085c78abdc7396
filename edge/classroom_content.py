"""GET /content/NAME/...: the active bundle's files over HTTP, with ranges and revalidation (RFC 9110).

A bundle keeps its address when a new version becomes active, so browsers are told to ask each time (`no-cache`) and are
answered 304 while the file is the same; a download that goes on over a change starts again (If-Range). A reader that
stops reading is let go. Deliberately absent: compression and ranges of several parts.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from aiohttp import web

from edge.content import (
    ByteRange,
    FolderWithoutSlashError,
    NoSuchContentError,
    OpenedFile,
    OpenedFolder,
    RangeError,
    content_type,
    open_content,
    parse_range,
)
from edge.pages import CONTENT_SECURITY_POLICY, ServedBundle, choose_language, folder_page
from protocol.numbers import NAME_PATTERN, STICK_CHUNK_BYTES, STICK_PART_CHUNKS

CHUNK_BYTES: Final = 256 * 1024
CHUNK_S_MAX: Final = 60.0  # 256 kB in a minute is slower than any classroom's Wi-Fi
_NAME: Final = re.compile(NAME_PATTERN)
_OBJECT: Final = re.compile(r"([0-9a-f]{64})(?:\.([1-9][0-9]{0,5}))?")
PART_BYTES: Final = STICK_PART_CHUNKS * STICK_CHUNK_BYTES
_CACHE_CONTROL: Final = "no-cache"


class ContentSource(Protocol):
    """Where the active bundles are."""

    def active(self, name: str) -> Path | None:
        """Return the folder of the bundle's active version, None if there is none."""

    def bundles(self) -> list[ServedBundle]:
        """Return the bundles whose active version can be served, as they are to be listed."""

    def by_digest(self, digest: bytes) -> Path | None:
        """Return the file of this SHA-256 that an installed bundle holds, None if none does."""


class ContentHandler:
    """Answers requests for content."""

    def __init__(self, source: ContentSource, language: str = "en") -> None:
        """`language` is that of listings where a browser asks for none that they have."""
        self._source = source
        self._language = language

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD of /content/{name}/{path}."""
        name, path = request.match_info["name"], request.match_info["path"]
        root = self._source.active(name) if _NAME.fullmatch(name) else None
        if root is None:
            raise web.HTTPNotFound(text="no bundle of this name is active here")
        try:
            found = await asyncio.to_thread(open_content, root, path)
        except FolderWithoutSlashError:
            # Relative, so that it can only lead to this very folder.
            return web.Response(status=308, headers={"Location": f"./{quote(path.rpartition('/')[2], safe='')}/"})
        except NoSuchContentError:
            raise web.HTTPNotFound(text="the bundle has no such file") from None
        if isinstance(found, OpenedFolder):
            return self._listing(request, name, path, found)
        try:
            return await self._file(request, found)
        finally:
            os.close(found.descriptor)

    async def redirect(self, request: web.Request) -> web.StreamResponse:
        """Answer /content/{name}, which lacks the slash that relative links need."""
        return web.Response(status=308, headers={"Location": f"./{quote(request.match_info['name'], safe='')}/"})

    async def by_digest(self, request: web.Request) -> web.StreamResponse:
        """Answer GET of an object as it lies on a courier's stick (SPEC.md 9): another truck copies from this one."""
        match = _OBJECT.fullmatch(request.match_info["name"])
        path = self._source.by_digest(bytes.fromhex(match[1])) if match is not None else None
        if match is None or path is None or request.match_info["folder"] != match[1][:2]:
            raise web.HTTPNotFound(text="this truck does not hold it")
        try:
            found = await asyncio.to_thread(open_content, path.parent, path.name)
        except NoSuchContentError:
            raise web.HTTPNotFound(text="this truck does not hold it any more") from None
        assert isinstance(found, OpenedFile)
        try:
            start = int(match[2] or 0) * PART_BYTES
            size = min(PART_BYTES, found.size - start)
            if size <= 0:
                raise web.HTTPNotFound(text="the object has no such part")
            part = parse_range(request.headers.get("Range"), size)
            headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
            if part is not None:
                headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
            return await self._answer(request, found, part, ByteRange(0, size), start, headers)
        except RangeError:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        finally:
            os.close(found.descriptor)

    def _listing(self, request: web.Request, name: str, path: str, folder: OpenedFolder) -> web.Response:
        language = choose_language(request.headers.get("Accept-Language"), self._language)
        page = folder_page("/".join([name, *path.split("/")[:-1]]), folder, language)
        headers = {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Cache-Control": _CACHE_CONTROL,
            "Vary": "Accept-Language",
        }
        return web.Response(text=page, content_type="text/html", charset="utf-8", headers=headers)

    async def _file(self, request: web.Request, file: OpenedFile) -> web.StreamResponse:
        modified = formatdate(file.modified_s, usegmt=True)
        headers = {
            "ETag": file.etag,
            "Last-Modified": modified,
            "Cache-Control": _CACHE_CONTROL,
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
        }
        if is_unchanged(request, file):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = content_type(file.name)
        condition = request.headers.get("If-Range")
        wanted = (
            request.headers.get("Range") if condition is None or condition.strip() in (file.etag, modified) else None
        )
        try:
            part = parse_range(wanted, file.size) if request.method == "GET" else None
        except RangeError:
            del headers["Content-Type"]
            return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{file.size}"})
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
        return await self._answer(request, file, part, ByteRange(0, file.size), 0, headers)

    async def _answer(
        self,
        request: web.Request,
        file: OpenedFile,
        part: ByteRange | None,
        whole: ByteRange,
        start: int,
        headers: Mapping[str, str],
    ) -> web.StreamResponse:
        """Send a part of the file, or all that there is of it from `start` on."""
        wanted = part or whole
        response = web.StreamResponse(status=200 if part is None else 206, headers=headers)
        response.content_length = wanted.stop - wanted.start
        await response.prepare(request)
        if request.method != "HEAD":
            try:
                await self._send(response, file, ByteRange(start + wanted.start, start + wanted.stop))
            except (OSError, TimeoutError) as error:
                # The length is promised already: a connection that breaks off is the only honest answer.
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError(f"the file was not sent whole: {error}") from error
        return response

    @staticmethod
    async def _send(response: web.StreamResponse, file: OpenedFile, part: ByteRange) -> None:
        at = part.start
        while at < part.stop:
            chunk = await asyncio.to_thread(os.pread, file.descriptor, min(CHUNK_BYTES, part.stop - at), at)
            if not chunk:
                raise OSError("it became shorter meanwhile")
            async with asyncio.timeout(CHUNK_S_MAX):
                await response.write(chunk)
            at += len(chunk)
        await response.write_eof()


def is_unchanged(request: web.Request, file: OpenedFile) -> bool:
    """Tell whether the request's copy is still the file (RFC 9110 section 13.1.2: If-None-Match goes first)."""
    tags = request.headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or file.etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")]
    since = request.if_modified_since
    return since is not None and file.modified_s <= since.timestamp()
