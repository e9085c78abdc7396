"""Samples: a truck's telemetry as JSON series or CSV rows, as it was or by steps.

JSON follows SenML's labels (RFC 8428: `n` name, `u` unit, `v` values), turned into columns, because a name and unit at
each value would be most of the answer. CSV has one row a time and one column a channel. Parquet is offered only where
the gateway can write it; this one cannot, and says so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta

from gateway.api.auth import VIEWER
from gateway.api.limits import CHANNELS_CHARS_MAX, SAMPLE_ROWS, SAMPLE_ROWS_MAX
from gateway.api.operations import JSON, Call, operation
from gateway.api.problem import Problem
from gateway.api.services import Series
from gateway.api.shapes import Cursor, Millis, Shape, Time, TruckPath, millis, number_cursor
from gateway.api.trucks import known_truck

_DAY_MS = 86_400_000
_CSV = "text/csv"


class SamplesQuery(Shape, frozen=True):
    """Which channels (comma-separated, all if left out), which period (the last day), which step (s; 0: every row)."""

    channels: Annotated[str, Meta(max_length=CHANNELS_CHARS_MAX)] | None = None
    since: Time | None = None
    until: Time | None = None
    step: Annotated[int, Meta(ge=0, le=31 * 86_400, description="seconds; 0 for every row")] = 0
    format: Literal["json", "csv", "parquet"] = "json"
    limit: Annotated[int, Meta(ge=1, le=SAMPLE_ROWS_MAX, description="how many rows at most")] = SAMPLE_ROWS
    after: Cursor | None = None


class SeriesShape(Shape, frozen=True, omit_defaults=True):
    """One channel: times and values of equal number. With a step `v` are means and the others tell more of each."""

    n: str
    u: str
    t_ms: list[int]
    v: list[float]
    min: tuple[float, ...] = ()
    max: tuple[float, ...] = ()
    last: tuple[float, ...] = ()
    count: tuple[int, ...] = ()


class Samples(Shape, frozen=True):
    """Series of one truck; `next` is given when there is more in the period."""

    truck: str
    since_ms: Millis
    until_ms: Millis
    step_s: int
    series: list[SeriesShape]
    next: str | None


@operation("GET", "/v1/trucks/{truck}/samples", tag="telemetry", needs=VIEWER, media=(JSON, _CSV), problems=(406,))
async def get_samples(call: Call, path: TruckPath, query: SamplesQuery) -> Samples | web.Response:
    """Read a truck's telemetry.

    Steps of an hour or a day (and multiples) come from kept rollups; other steps are computed from the rows.
    """
    if query.format == "parquet":
        raise Problem(406, "this gateway does not write parquet; ask for format=csv or format=json")
    await known_truck(call, path.truck)
    until_ms = millis(query.until, call.api.services.now_ms())
    since_ms = millis(query.since, until_ms - _DAY_MS)
    after_ms = number_cursor(query.after)
    page = await call.api.services.telemetry.samples(
        path.truck,
        channels=[name for name in (query.channels or "").split(",") if name],
        since_ms=since_ms if after_ms is None else max(since_ms, after_ms),
        until_ms=until_ms,
        step_s=query.step,
        rows_max=query.limit,
    )
    following = None if page.next_ms is None else str(page.next_ms)
    if query.format == "csv":
        response = web.Response(text=_to_csv(page.series), content_type=_CSV, charset="utf-8")
        if following is not None:
            response.headers["Link"] = f'<{call.request.rel_url.update_query(after=following)}>; rel="next"'
        return response
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
            )
            for each in page.series
        ],
        next=following,
    )


def _to_csv(series: Sequence[Series]) -> str:
    """Return the series joined on their times: RFC 4180, times as RFC 3339, nothing where a channel has no value."""
    rows: dict[int, list[float | None]] = {}
    for column, each in enumerate(series):
        for time_ms, value in zip(each.t_ms, each.v, strict=True):
            rows.setdefault(time_ms, [None] * len(series))[column] = value
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["time", *(each.name for each in series)])
    for time_ms in sorted(rows):
        stamp = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
        writer.writerow([stamp.replace("+00:00", "Z"), *("" if value is None else value for value in rows[time_ms])])
    return text.getvalue()


OPERATIONS = (get_samples,)
