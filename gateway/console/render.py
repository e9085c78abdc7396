"""Templates to text: escaped by default, in the reader's language, with the few filters that all pages use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import jinja2
import msgspec

from gateway.api.auth import OPERATOR, PUBLISHER, Role
from gateway.api.operations import Call
from gateway.console.assets import address_of
from gateway.console.words import NAMES, translate

# Leaflet and uPlot place what they draw by the object model, which this allows; style attributes it does not.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_NO_VALUE = "–"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gateway.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        instant=instant, size=size, number=number, json=lambda value: msgspec.json.encode(value).decode()
    )
    environment.globals["asset"] = address_of
    return environment


async def render(template: str, values: dict[str, Any], call: Call, language: str) -> str:
    """Return a page's text."""
    _: Callable[..., str] = partial(translate, language)
    now_ms = call.api.services.now_ms()
    given = {
        "_": _,
        "language": language,
        "languages": NAMES,
        "actor": call.actor,
        "may_operate": call.actor.role.may(OPERATOR),
        "may_publish": call.actor.role.may(PUBLISHER),
        "is_admin": call.actor.role is Role.ADMIN,
        "path": call.request.path,
        "now_ms": now_ms,
        "ago": lambda time_ms: ago(time_ms, now_ms, _),
        "span": lambda seconds: span(seconds, _),
    }
    # A page of a thousand trucks takes some tens of milliseconds, in which uploads must not wait.
    return await asyncio.to_thread(_environment().get_template(template).render, **(given | values))


def instant(time_ms: int | None) -> str:
    """Return a time (Unix ms) in UTC."""
    if time_ms is None:
        return _NO_VALUE
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return _NO_VALUE


def ago(time_ms: int | None, now_ms: int, _: Callable[..., str]) -> str:
    """Return how long ago a time (Unix ms) was."""
    if time_ms is None:
        return _("never")
    return _("{span} ago", span=span(max(0, now_ms - time_ms) // 1000, _))


def span(seconds: float, _: Callable[..., str]) -> str:
    """Return a length of time in its largest unit of which there are two or more."""
    for unit, length_s in (("{n} d", 86_400), ("{n} h", 3_600), ("{n} min", 60)):
        if seconds >= 2 * length_s:
            return _(unit, n=int(seconds // length_s))
    return _("{n} s", n=int(seconds))


def size(count: int | None) -> str:
    """Return a number of bytes as people read it (kB = 1000)."""
    if count is None:
        return _NO_VALUE
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def number(value: float | None) -> str:
    """Return a reading with the digits that a person wants."""
    if value is None:
        return _NO_VALUE
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
