"""`digitruck samples`, `events` and `coverage`: what trucks measured, what happened, and what is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from gateway.answers import Series
from gateway.cli.files import write_private
from gateway.cli.output import examples, json_option, note, print_fields, print_json, print_table, say
from gateway.cli.output import instant as shown
from gateway.cli.session import gateway
from gateway.cli.times import duration, instant
from gateway.client import SyncClient

_TABLE_ROWS_MAX = 10_000
_since = click.option("--since", type=instant, metavar="TIME", help="From: 2h (ago), 2026-11-01, 2026-11-01T06:30Z.")
_until = click.option("--until", type=instant, metavar="TIME", help="Up to, not including.")


@click.command(
    epilog=examples(
        "digitruck samples ke-arrow --since 2h",
        "digitruck samples ke-arrow --channels battery_v,pv_w --since 7d --step 1h",
        "digitruck samples ke-arrow --since 2026-11-01 --until 2026-12-01 --format csv > november.csv",
        "digitruck samples ke-arrow --since 1d --format json",
    )
)
@click.argument("truck")
@click.option("--channels", help="Channels, separated by commas; all when left out.")
@_since
@_until
@click.option("--step", type=duration, default="0", help="Means over steps of 1h, 1d, 10m; every row when left out.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="What to print.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead.")
def samples(
    truck: str,
    channels: str | None,
    since: int | None,
    until: int | None,
    step: int,
    form: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Print a truck's telemetry: the last day, or the period asked for."""
    names = [name for name in (channels or "").split(",") if name]
    form = "json" if as_json else form
    with gateway() as client:
        if form in ("csv", "parquet"):
            parts = client.samples_file(truck, form, channels=names, since_ms=since, until_ms=until, step_s=step)
            _write(parts, output)
            return
        series = _series(client, truck, names, since, until, step, rows_max=None if form == "json" else _TABLE_ROWS_MAX)
    if form == "json":
        print_json(series)
    else:
        _print_series(series)


@click.command(epilog=examples("digitruck events ke-arrow", "digitruck events ke-arrow --since 7d --json"))
@click.argument("truck")
@_since
@_until
@json_option
def events(truck: str, since: int | None, until: int | None, as_json: bool) -> None:
    """List a truck's events in the order of their arrival."""
    with gateway() as client:
        found = client.events(truck, since_ms=since, until_ms=until)
    if as_json:
        print_json(found)
        return
    print_table(
        ["time", "event", "precedence", "values"],
        [
            (
                shown(each.time_ms) if each.time_ms is not None else "clock unknown",
                each.name,
                each.precedence,
                each.values,
            )
            for each in found
        ],
        empty=f"no events of {truck} in that period",
    )


@click.command(epilog=examples("digitruck coverage ke-arrow", "digitruck coverage ke-arrow --since 7d --json"))
@click.argument("truck")
@_since
@_until
@json_option
def coverage(truck: str, since: int | None, until: int | None, as_json: bool) -> None:
    """Show how much of a truck's data is at the gateway, and name every gap. The last 30 days when not told."""
    with gateway() as client:
        found = client.coverage(truck, since_ms=since, until_ms=until)
    if as_json:
        print_json(found)
        return
    print_fields(
        [
            ("period", f"{shown(found.since_ms)} to {shown(found.until_ms)}"),
            ("rows", f"{found.rows} in {found.batches} batches"),
            ("first, last", f"{shown(found.first_ms)}, {shown(found.last_ms)}"),
            ("waiting for their schema", found.parked),
            ("waiting for their clock", found.timeless),
            ("rejected", found.rejected),
        ]
    )
    gaps: list[tuple[str, str, str]] = []
    for epoch in found.epochs:
        gaps += [(epoch.epoch, _range(first, last), "not arrived yet") for first, last in epoch.missing]
        gaps += [(epoch.epoch, _range(first, last), reason) for first, last, reason in epoch.dropped]
    if gaps:
        say()
        print_table(["epoch", "parcels", "why they are not here"], gaps, empty="")
    else:
        say("No gaps.")


def _series(
    client: SyncClient,
    truck: str,
    channels: Sequence[str],
    since: int | None,
    until: int | None,
    step: int,
    *,
    rows_max: int | None,
) -> list[Series]:
    """Return the series of all pages; at most about `rows_max` rows, and then a note that says so."""
    joined: dict[str, Series] = {}
    after: str | None = None
    while True:
        page = client.samples(truck, channels=channels, since_ms=since, until_ms=until, step_s=step, after=after)
        for each in page.series:
            known = joined.setdefault(each.n, Series(each.n, each.u, [], [], [], [], [], []))
            for field in ("t_ms", "v", "min", "max", "last", "count"):
                getattr(known, field).extend(getattr(each, field))
        after = page.next
        rows = max((len(each.t_ms) for each in joined.values()), default=0)
        if after is None:
            break
        if rows_max is not None and rows >= rows_max:
            note(f"Only the first {rows} rows: ask for a shorter period, a --step, or --format csv for all.")
            break
    return list(joined.values())


def _print_series(series: Sequence[Series]) -> None:
    rows: dict[int, list[float | None]] = {}
    for column, each in enumerate(series):
        for time_ms, value in zip(each.t_ms, each.v, strict=True):
            rows.setdefault(time_ms, [None] * len(series))[column] = value
    print_table(
        ["time", *(f"{each.n} [{each.u}]" if each.u else each.n for each in series)],
        [(shown(time_ms), *rows[time_ms]) for time_ms in sorted(rows)],
        empty="no telemetry in that period: digitruck coverage tells what is here",
    )


def _write(parts: Iterator[bytes], output: Path | None) -> None:
    """Write pages of a file; of all but the first page the header line is left out."""
    whole = bytearray()
    for number, part in enumerate(parts):
        body = part if number == 0 else part.partition(b"\n")[2]
        if output is None:
            sys.stdout.buffer.write(body)
        else:
            whole += body
    sys.stdout.flush()
    if output is not None:
        write_private(output, bytes(whole))
        note(f"{output}: {len(whole)} bytes")


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
