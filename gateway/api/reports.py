"""Reports: what the fleet was used for, had and cost, for sponsors; as JSON, a page, a PDF or a table."""

from __future__ import annotations

import asyncio
from typing import Literal

from aiohttp import web

from gateway.api.auth import VIEWER
from gateway.api.files import export_turn
from gateway.api.operations import JSON, Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Shape, Time, millis
from gateway.impact.figures import By, Impact, impact
from gateway.impact.files import to_csv, to_html, to_pdf

_DAY_MS = 86_400_000
_PERIOD_MS = 365 * _DAY_MS
_PERIOD_MS_MAX = 10 * 366 * _DAY_MS
_FILES = {
    "html": ("text/html", "html", to_html),
    "pdf": ("application/pdf", "pdf", to_pdf),
    "csv": ("text/csv", "csv", to_csv),
}


class ImpactQuery(Shape, frozen=True):
    """The period (the last year if nothing is given), what the lines are of, and the form."""

    since: Time | None = None
    until: Time | None = None
    by: By = "truck"
    format: Literal["json", "html", "pdf", "csv"] = "json"


@operation(
    "GET",
    "/v1/reports/impact",
    tag="reports",
    needs=VIEWER,
    media=(JSON, "text/html", "application/pdf", "text/csv"),
    streams=True,  # years of a large fleet take longer than an answer may otherwise
)
async def get_impact(call: Call, query: ImpactQuery) -> Impact | web.Response:
    """Report what the fleet was used for, what it had, and what it cost."""
    api = call.api
    now_ms = api.services.now_ms()
    until_ms = min(millis(query.until, now_ms), now_ms)
    since_ms = millis(query.since, until_ms - _PERIOD_MS)
    if not since_ms < until_ms:
        raise Problem(400, "the period is empty: `since` must be before `until` and before now")
    if until_ms - since_ms > _PERIOD_MS_MAX:
        raise Problem(400, "the period is longer than ten years; ask for a shorter one")
    async with export_turn(call):
        found = await impact(
            api.fleet,
            api.services.described(),
            since_ms=since_ms,
            until_ms=until_ms,
            now_ms=now_ms,
            by=query.by,
        )
        if query.format == "json":
            return found
        media, ending, write = _FILES[query.format]
        body = await asyncio.to_thread(write, found)
    response = web.Response(body=body, content_type=media, charset=None if query.format == "pdf" else "utf-8")
    response.headers["Content-Disposition"] = f'inline; filename="impact.{ending}"'
    if query.format == "html":
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    return response


OPERATIONS = (get_impact,)
