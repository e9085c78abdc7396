"""Scripts, styles and the map: served from memory, gzipped once, under names that change with their content."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

_MEDIA = {
    "js": "text/javascript",
    "css": "text/css",
    "json": "application/json",
    "svg": "image/svg+xml",
}
_YEAR_S = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its address holds a digest of its bytes, so that a browser may keep it for ever."""

    address: str
    media: str
    body: bytes
    gzipped: bytes


@cache
def assets() -> dict[str, Asset]:
    """Return every file below `static/` by its path there."""
    found: dict[str, Asset] = {}
    _gather(files("gateway.console").joinpath("static"), "", found)
    return found


def address_of(name: str) -> str:
    """Return the address of a file below `static/`."""
    return assets()[name].address


async def serve_asset(request: web.Request) -> web.Response:
    """Answer with a file, compressed if the browser takes that."""
    found = _by_address().get(request.path)
    if found is None:
        raise web.HTTPNotFound
    headers = {"Cache-Control": f"public, max-age={_YEAR_S}, immutable", "Vary": "Accept-Encoding"}
    body = found.body
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        body = found.gzipped
    return web.Response(body=body, content_type=found.media, charset="utf-8", headers=headers)


@cache
def _by_address() -> dict[str, Asset]:
    return {each.address: each for each in assets().values()}


def _gather(folder: Traversable, prefix: str, found: dict[str, Asset]) -> None:
    for each in folder.iterdir():
        if each.is_dir():
            _gather(each, f"{prefix}{each.name}/", found)
            continue
        stem, _, ending = each.name.rpartition(".")
        if ending in _MEDIA:
            body = each.read_bytes()
            mark = hashlib.sha256(body).hexdigest()[:12]
            address = f"/static/{prefix}{stem}.{mark}.{ending}"
            found[prefix + each.name] = Asset(address, _MEDIA[ending], body, gzip.compress(body, 9, mtime=0))
