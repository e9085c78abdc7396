"""Where a courier's folder is read from: a mounted stick, any folder, or another truck or depot by HTTP.

Both hand out small files whole and bounded, and objects chunk by chunk; what of it is believed is not decided here.
HTTP follows no redirect, takes no compression, and reads no more than was asked for. All of it blocks: use a thread.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from protocol.errors import MalformedError
from protocol.numbers import STICK_PART_CHUNKS
from store.stickfolder import FOLDER, StickError, StickFolder
from store.stickobjects import ObjectForm, read_chunks

_TIMEOUT_S: Final = 20.0
_PACE_BYTES_A_S: Final = 20_000  # slower is no classroom's network: who trickles must not hold the desk for ever
_READ_BYTES: Final = 64 * 1024
_USER_AGENT: Final = "digitruck-edge"


class Source(Protocol):
    """What objects and small files are read from; `name` is how people know it."""

    name: str

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """Return a whole file, None if there is none; raise `MalformedError` over the limit, `StickError`."""

    def chunks(self, form: ObjectForm, first: int = 0) -> Iterator[bytes]:
        """Yield an object's chunks from one on; raise `MalformedError` for a short or changed one, `StickError`."""

    def has(self, form: ObjectForm) -> bool:
        """Return whether the object seems to be there."""


class FolderSource:
    """A stick that is mounted at `path`, or any folder."""

    def __init__(self, path: Path) -> None:
        self.folder = StickFolder(path)
        self.folder.require()
        self.name = str(path)

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """Return a whole file."""
        return self.folder.read(name, bytes_max)

    def chunks(self, form: ObjectForm, first: int = 0) -> Iterator[bytes]:
        """Yield an object's chunks."""
        return read_chunks(self.folder, form, first)

    def has(self, form: ObjectForm) -> bool:
        """Return whether its first file is there."""
        return form.size == 0 or self.folder.size(form.path(0)) is not None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class HttpSource:
    """A folder that a web server shows below `url`, such as another truck's classroom service."""

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StickError(f"{url} is no address: give http://ADDRESS:PORT of a truck or depot")
        self.name = f"{parts.scheme}://{parts.netloc}"
        self._base = f"{self.name}{parts.path.rstrip('/')}/{FOLDER}/"
        # No proxy, no redirect: a classroom's network is the only one that this is for.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """Return a whole file."""
        found = self._get(name, 0)
        if found is None:
            return None
        with closing(found):
            data = self._read(found, bytes_max + 1)
        if len(data) > bytes_max:
            raise MalformedError(f"{name} at {self.name} is larger than {bytes_max} bytes")
        return data

    def chunks(self, form: ObjectForm, first: int = 0) -> Iterator[bytes]:
        """Yield an object's chunks; each of its files is one request."""
        number = first
        while number < form.chunks:
            part, within = divmod(number, STICK_PART_CHUNKS)
            found = self._get(form.path(part), within * form.chunk_bytes)
            if found is None:
                raise MalformedError(f"{self.name} does not have an object that it should")
            with closing(found):
                while number < form.chunks and number // STICK_PART_CHUNKS == part:
                    yield form.load(number, self._read(found, form.stored_bytes(number)))
                    number += 1

    def has(self, form: ObjectForm) -> bool:
        """Return True: asking costs as much as trying."""
        return True

    def _get(self, name: str, offset: int) -> http.client.HTTPResponse | None:
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(self._base + name, headers=headers)  # noqa: S310 - the scheme was checked
        try:
            found: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                return None
            raise StickError(f"{self.name} answers {error.code}: is it a truck's or depot's address?") from error
        except (OSError, http.client.HTTPException) as error:
            raise StickError(f"{self.name} cannot be reached ({error}): it goes on when it is there again") from error
        if offset and found.status != 206:
            # A server without ranges sends all of it.
            left = offset
            while left and (skipped := self._read(found, min(left, 1 << 20))):
                left -= len(skipped)
        return found

    def _read(self, found: http.client.HTTPResponse, count: int) -> bytes:
        data, end = bytearray(), self._monotonic() + _TIMEOUT_S + count / _PACE_BYTES_A_S
        try:
            while len(data) < count and (part := found.read1(min(_READ_BYTES, count - len(data)))):
                data += part
                if self._monotonic() > end:
                    raise StickError(f"{self.name} is too slow: what came is kept; try again nearer to it")
        except (OSError, http.client.HTTPException) as error:
            raise StickError(f"{self.name} broke off ({error}): what came is kept; try again") from error
        return bytes(data)


def open_source(text: str) -> Source:
    """Return the source that a person named: an http(s) address or a path; raise `StickError`."""
    return HttpSource(text) if text.startswith(("http://", "https://")) else FolderSource(Path(text))
