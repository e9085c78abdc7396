"""`digitruck samples`: what a truck measured, on the screen, in a pipe or in a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click
import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gateway.answers import Series
from gateway.cli.files import private_file
from gateway.cli.output import CommandError, encode_json, examples, note, print_table, size
from gateway.cli.output import instant as shown
from gateway.cli.session import gateway
from gateway.cli.times import duration, instant
from gateway.client import SyncClient
from gateway.exports import FORMATS

_TABLE_ROWS_MAX = 10_000
_GAPS_SHOWN = 5
_BINARY = frozenset({"parquet", "senml-cbor"})
_BAR = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
_FORMS = ("table", "json", *FORMATS)


@click.command(
    epilog=examples(
        "digitruck samples ke-arrow --since 2h",
        "digitruck samples ke-arrow --channels battery_v,pv_w --since 7d --step 1h",
        "digitruck samples ke-arrow --since 2026-11-01 --until 2026-12-01 --output november.parquet",
        "digitruck samples ke-arrow --since 30d --format csv | gzip > month.csv.gz",
        "digitruck samples ke-arrow --since 1d --format senml-json",
    )
)
@click.argument("truck")
@click.option("--channels", help="Channels, separated by commas; all when left out.")
@click.option("--since", type=instant, metavar="TIME", help="From: 2h (ago), 2026-11-01, 2026-11-01T06:30Z.")
@click.option("--until", type=instant, metavar="TIME", help="Up to, not including.")
@click.option(
    "--step",
    type=duration,
    default="0",
    help="Mean, min, max, last and count over steps of 1h, 1d, 10m; every row when left out.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMS),
    help="What to print: a table, or by the end of the name of --output, when left out. Files of any length stream; "
    "table and json are held in memory.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to a file, which appears once it is whole: .csv, .json, .parquet, .senml.json, .senml.cbor.",
)
def samples(
    truck: str,
    channels: str | None,
    since: int | None,
    until: int | None,
    step: int,
    form: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Print a truck's telemetry: the last day, or the period asked for.

    Values carry their units. Gaps and values whose clock was set later than they were taken are pointed out; among
    steps in a file, a row without values stands where a gap begins.
    """
    names = [name for name in (channels or "").split(",") if name]
    form = "json" if as_json else form or _form_of(output)
    if form in _BINARY and output is None and sys.stdout.isatty():
        raise CommandError(f"{form} is not for a terminal: give --output FILE, or pipe it")
    if form == "table" and output is not None:
        raise CommandError("a table is for the screen: give --format csv, or another end of the file's name")
    with gateway() as client:
        if form in FORMATS:
            pieces = client.samples_file(truck, form, channels=names, since_ms=since, until_ms=until, step_s=step)
        else:
            rows_max = None if form == "json" else _TABLE_ROWS_MAX
            series = _series(client, truck, names, since, until, step, rows_max=rows_max)
            if form == "table":
                _print_series(series)
                return
            pieces = (encode_json(each) for each in [series])
        with contextlib.closing(pieces), _opened(output) as file:
            written = _copy(pieces, file)
    if output is not None:
        note(f"{output}: {size(written)}")


def _form_of(output: Path | None) -> str:
    if output is None:
        return "table"
    known = {".json": "json"} | {each.suffix: name for name, each in FORMATS.items()}
    # The longest end first: .senml.json is not .json.
    for suffix in sorted(known, key=len, reverse=True):
        if output.name.endswith(suffix):
            return known[suffix]
    raise CommandError(f"{output.name} does not say which format: give --format, or a name that ends in .csv")


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with private_file(output) as file:
        yield file


def _copy(pieces: Iterator[bytes], file: BinaryIO) -> int:
    """Write what comes, showing on a terminal how it goes on; return how many bytes it was."""
    written = 0
    with _progress(is_shown=file is not sys.stdout.buffer or not sys.stdout.isatty()) as progress:
        task = progress.add_task("receiving", total=None)
        for piece in pieces:
            file.write(piece)
            written += len(piece)
            progress.update(task, completed=written)
    return written


def _progress(*, is_shown: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not (is_shown and sys.stderr.isatty()),
    )


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
    joined: dict[tuple[str, str], Series] = {}
    after: str | None = None
    with Progress(*_BAR, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("reading", total=None)
        while True:
            page = client.samples(truck, channels=channels, since_ms=since, until_ms=until, step_s=step, after=after)
            for each in page.series:
                known = joined.setdefault((each.n, each.u), Series(each.n, each.u, [], [], [], [], [], [], [], []))
                for field in ("t_ms", "v", "min", "max", "last", "count", "gaps_ms"):
                    getattr(known, field).extend(getattr(each, field))
                known.repaired.extend(each.repaired or [0] * len(each.v))
            # The first answer fixes the period, which may end now.
            since, until, after = page.since_ms, page.until_ms, page.next
            rows = max((len(each.t_ms) for each in joined.values()), default=0)
            if after is not None:
                progress.update(task, total=until - since, completed=int(after) - since)
            if after is None:
                break
            if rows_max is not None and rows >= rows_max:
                note(f"Only the first {rows} rows: ask for a shorter period, a --step, or --format csv for all.")
                break
    return [each if any(each.repaired) else msgspec.structs.replace(each, repaired=[]) for each in joined.values()]


def _print_series(series: Sequence[Series]) -> None:
    rows: dict[int, list[float | None]] = {}
    repaired: set[int] = set()
    for column, each in enumerate(series):
        for time_ms, value in zip(each.t_ms, each.v, strict=True):
            rows.setdefault(time_ms, [None] * len(series))[column] = value
        repaired |= {time_ms for time_ms, count in zip(each.t_ms, each.repaired, strict=False) if count}
    print_table(
        ["time", *(f"{each.n} [{each.u}]" if each.u else each.n for each in series)],
        [(shown(time_ms) + (" *" if time_ms in repaired else ""), *rows[time_ms]) for time_ms in sorted(rows)],
        empty="no telemetry in that period: digitruck coverage tells what is here",
    )
    if repaired:
        note(f"* {len(repaired)} of {len(rows)} times are of a clock that was not set yet; it became known later.")
    gaps = _common_gaps(series)
    for first_ms, end_ms in gaps[:_GAPS_SHOWN]:
        note(f"No values from {shown(first_ms)} to {shown(end_ms)}.")
    if len(gaps) > _GAPS_SHOWN:
        note(f"... and {len(gaps) - _GAPS_SHOWN} more gaps: digitruck samples ... --json has them all.")


def _common_gaps(series: Sequence[Series]) -> list[tuple[int, int]]:
    """Return the spans in which no channel has a value."""
    common: list[tuple[int, int]] | None = None
    for each in series:
        gaps = each.gaps_ms
        if common is None:
            common = list(gaps)
            continue
        met = ((max(a, c), min(b, d)) for a, b in common for c, d in gaps if a < d and c < b)
        common = sorted(met)
    return common or []
