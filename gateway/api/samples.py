"""Samples: a truck's telemetry as JSON series or as a file, as it was or by steps.

JSON follows SenML's labels (RFC 8428: `n` name, `u` unit, `v` values), turned into columns, because a name and unit at
each value would be most of the answer; it comes in pages. Files (CSV, SenML, Parquet) hold the whole period and are
written while it is read, in bounded memory.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta

from gateway.api.auth import VIEWER
from gateway.api.files import export_turn, send_file
from gateway.api.limits import CHANNELS_CHARS_MAX, SAMPLE_ROWS, SAMPLE_ROWS_MAX
from gateway.api.operations import JSON, Call, operation
from gateway.api.problem import Problem
from gateway.api.shapes import Cursor, Millis, Shape, Time, TruckPath, millis, number_cursor
from gateway.api.trucks import known_truck
from gateway.exports import FORMATS, Format, written

_DAY_MS = 86_400_000


_Rows = Annotated[int, Meta(ge=1, le=SAMPLE_ROWS_MAX, description="rows at most; a file has all if left out")]


class SamplesQuery(Shape, frozen=True):
    """Which channels (comma-separated, all if left out), which period (the last day), which step (s; 0: every row).

    Without a format the Accept header chooses one, JSON if it names none of them.
    """

    channels: Annotated[str, Meta(max_length=CHANNELS_CHARS_MAX)] | None = None
    since: Time | None = None
    until: Time | None = None
    step: Annotated[int, Meta(ge=0, le=31 * 86_400, description="seconds; 0 for every row")] = 0
    format: Literal["json", "csv", "senml-json", "senml-cbor", "parquet"] | None = None
    limit: _Rows | None = None
    after: Cursor | None = None


class SeriesShape(Shape, frozen=True, omit_defaults=True):
    """One channel: times and values of equal number. With a step `v` are means and the others tell more of each.

    `repaired` says of each value (of each step: of how many) that the truck's clock was not set when it was taken, and
    its time told later; it is left out where there is none. `gaps_ms` are the spans [from, to) of this page that have
    no value.
    """

    n: str
    u: str
    t_ms: list[int]
    v: list[float]
    min: tuple[float, ...] = ()
    max: tuple[float, ...] = ()
    last: tuple[float, ...] = ()
    count: tuple[int, ...] = ()
    repaired: tuple[int, ...] = ()
    gaps_ms: tuple[tuple[int, int], ...] = ()


class Samples(Shape, frozen=True):
    """Series of one truck; `next` is given when there is more in the period. `repaired` is the sum of the series'."""

    truck: str
    since_ms: Millis
    until_ms: Millis
    step_s: int
    series: list[SeriesShape]
    repaired: int
    next: str | None


@operation(
    "GET",
    "/v1/trucks/{truck}/samples",
    tag="telemetry",
    needs=VIEWER,
    media=(JSON, *(each.media for each in FORMATS.values())),
    streams=True,
)
async def get_samples(call: Call, path: TruckPath, query: SamplesQuery) -> Samples | web.StreamResponse:
    """Read a truck's telemetry.

    Steps of an hour or a day (and multiples) come from kept rollups; other steps are computed from the rows. JSON comes
    in pages; the other formats are one file of the whole period. In a file of steps, a row without values stands where
    a gap begins.
    """
    await known_truck(call, path.truck)
    until_ms = millis(query.until, call.api.services.now_ms())
    since_ms = millis(query.since, until_ms - _DAY_MS)
    after_ms = number_cursor(query.after)
    from_ms = since_ms if after_ms is None else max(since_ms, after_ms)
    channels = [name for name in (query.channels or "").split(",") if name]
    form = query.format or _accepted(call.request)
    if form != "json":
        return await _send_file(call, path.truck, query, FORMATS[form], channels, (from_ms, until_ms))
    try:
        async with asyncio.timeout(call.api.limits.answer_deadline_s):
            page = await call.api.services.telemetry.samples(
                path.truck,
                channels=channels,
                since_ms=from_ms,
                until_ms=until_ms,
                step_s=query.step,
                rows_max=query.limit or SAMPLE_ROWS,
            )
    except TimeoutError as error:
        raise Problem(503, "the answer took too long; ask for less, or again later") from error
    return Samples(
        truck=path.truck,
        since_ms=since_ms,
        until_ms=until_ms,
        step_s=query.step,
        series=[
            SeriesShape(
                n=each.name,
                u=each.unit,
                t_ms=list(each.t_ms),
                v=list(each.v),
                min=tuple(each.low),
                max=tuple(each.high),
                last=tuple(each.last),
                count=tuple(each.count),
                repaired=tuple(each.repaired),
                gaps_ms=tuple(each.gaps_ms),
            )
            for each in page.series
        ],
        repaired=sum(sum(each.repaired) for each in page.series),
        next=None if page.next_ms is None else str(page.next_ms),
    )


def _accepted(request: web.Request) -> str:
    """Return the first format that the Accept header names; weights are not looked at."""
    known = {JSON: "json", "*/*": "json"} | {each.media: name for name, each in FORMATS.items()}
    asked = (each.partition(";")[0].strip().lower() for each in request.headers.get("Accept", "").split(","))
    return next((known[media] for media in asked if media in known), "json")


async def _send_file(
    call: Call, truck: str, query: SamplesQuery, form: Format, channels: list[str], period_ms: tuple[int, int]
) -> web.StreamResponse:
    """Write a file of the whole period while it is read."""
    async with export_turn(call):
        table = await call.api.services.telemetry.table(
            truck, channels=channels, since_ms=period_ms[0], until_ms=period_ms[1], step_s=query.step
        )
        pieces = written(table, form, truck, rows_max=query.limit)
        return await send_file(call, pieces, media=form.media, name=f"{truck}{form.suffix}")


OPERATIONS = (get_samples,)
