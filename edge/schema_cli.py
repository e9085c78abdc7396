"""`digitruck-edge schema`: fit a schema to recorded data, and measure what recorded data costs on the wire."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge.measure import Measurement, fit, measure, month_bytes
from edge.recording import Recording, read_recording
from edge.rowlog import read_log
from protocol.batch import ROWS_MAX
from protocol.errors import DigitruckError
from protocol.rows import Row
from protocol.schema import Schema, decode_schema

_SUGGEST_ROWS = 360  # more than a datagram holds: batches are cut by size, as the daemon cuts them
_SUGGEST_SAMPLE = 5_000

_csv = click.argument("csv", type=click.Path(path_type=Path))
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group("schema")
def schema_group() -> None:
    """Fit and measure schemas of recorded telemetry.

    \b
    Example:
      digitruck-edge schema suggest recording.csv.gz
    """


@schema_group.command("measure")
@_csv
@click.option(
    "--rows", "rows_max", type=click.IntRange(1, ROWS_MAX), default=60, show_default=True, help="Rows a batch."
)
@click.option("--schema", "schema_path", type=click.Path(path_type=Path), help="A schema that `suggest --out` wrote.")
@click.option("--holdout", is_flag=True, help="Fit the schema to the first half and measure only the second.")
@click.option("--alone", is_flag=True, help="Encode each batch by itself.")
@_json
def measure_command(
    csv: Path, rows_max: int, schema_path: Path | None, holdout: bool, alone: bool, as_json: bool
) -> None:
    """Encode and decode a recording, check the round trip, and print body and wire bytes a row.

    CSV (or .csv.gz): the first row names the columns, `t` in s first; the second row has the decimal scales (1, 10,
    100, ...); then scaled integers, empty where a value is missing. Without a scale row, plain decimals are read.

    Unless --schema or --holdout is given, the schema is the one that `suggest` fits to this very file; it is
    registered once, so its bytes (schema_bytes) are not part of the bytes a row. A batch is also cut when its datagram
    is full, and goes on from the one before, eight in a run, as a truck's do while there is contact; with --alone each
    is encoded by itself. Wire bytes count the signed parcel, its packet and the acknowledgement, at the IP level.

    \b
    Examples:
      digitruck-edge schema measure truck.csv.gz
      digitruck-edge schema measure truck.csv --rows 360 --json
    """
    try:
        recording = read_recording(csv)
        schema, rows = _schema_and_rows(recording, schema_path, holdout)
        result = measure(schema, rows, rows_max=rows_max, alone=alone)
    except DigitruckError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(_measurement_json(schema, result)))
    else:
        click.echo(_measurement_text(schema, result))
    if not result.round_trip:
        raise click.ClickException("the decoded rows differ from the recording; please report this file as a bug")


@schema_group.command("suggest")
@click.argument("source", metavar="CSV|DATA", type=click.Path(path_type=Path))
@click.option("--of", help="Of a truck's own rows: the collector (or channel) to learn from; default: the most rows.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the encoded schema to a file.")
@_json
def suggest_command(source: Path, of: str | None, out: Path | None, as_json: bool) -> None:
    """Fit a schema to recorded data: scales, nominals, typical errors, weights and chances; print bytes a month.

    The data is a CSV (see `measure`), or a truck's data folder: then the rows that the truck still holds, whether they
    were delivered or not. `schema = "FILE"` in the `[[collector]]` table uses what --out wrote (into the data folder).

    \b
    Examples:
      digitruck-edge schema suggest truck.csv
      digitruck-edge schema suggest /var/lib/digitruck --of solar --out /var/lib/digitruck/solar.schema
    """
    try:
        is_log = source.is_dir() or source.suffix == ".db"
        if of is not None and not is_log:
            raise click.UsageError("--of chooses among a truck's own rows: give its data folder")
        recording = read_log(source, of=of) if is_log else read_recording(source)
        schema = fit(recording)
        result = measure(schema, recording.rows[:_SUGGEST_SAMPLE], rows_max=_SUGGEST_ROWS)
        if out is not None:
            out.write_bytes(schema.encoded)
    except DigitruckError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written ({error.strerror}); choose another path") from error
    click.echo(json.dumps(_schema_json(schema, result)) if as_json else _schema_text(schema, result))


def _schema_and_rows(recording: Recording, path: Path | None, holdout: bool) -> tuple[Schema, tuple[Row, ...]]:
    if path is not None:
        try:
            schema = decode_schema(path.read_bytes())
        except OSError as error:
            raise click.ClickException(
                f"{path} cannot be read ({error.strerror}); give what `suggest --out` wrote"
            ) from error
        if [(c.name, c.scale) for c in schema.channels] != list(zip(recording.names, recording.scales, strict=True)):
            raise click.ClickException("the schema has other channels or scales than this file; fit one by `suggest`")
        return schema, recording.rows
    if not holdout:
        return fit(recording), recording.rows
    half = len(recording.rows) // 2
    if not half:
        raise click.ClickException("one row cannot be split; leave --holdout out")
    return fit(recording, recording.rows[:half]), recording.rows[half:]


def _measurement_json(schema: Schema, result: Measurement) -> dict[str, object]:
    return {
        "rows": result.rows,
        "body_bytes_per_row": round(result.body_bytes_per_row, 4),
        "wire_bytes_per_row": round(result.wire_bytes_per_row, 4),
        "round_trip": result.round_trip,
        "batches": result.batches,
        "channels": len(schema.channels),
        "schema_bytes": len(schema.encoded),
        "month_bytes": month_bytes(schema, result),
        "encode_rows_per_s": round(result.rows / max(result.encode_s, 1e-9)),
        "decode_rows_per_s": round(result.rows / max(result.decode_s, 1e-9)),
    }


def _measurement_text(schema: Schema, result: Measurement) -> str:
    return "\n".join(
        [
            f"rows         {result.rows} of {len(schema.channels)} channels in {result.batches} batches",
            f"body         {result.body_bytes_per_row:.2f} B a row",
            f"wire         {result.wire_bytes_per_row:.2f} B a row, signed and acknowledged",
            f"month        {month_bytes(schema, result) / 1000:.0f} kB at one row each {schema.period_s} s",
            f"schema       {len(schema.encoded)} B, registered once",
            f"speed        {result.rows / max(result.encode_s, 1e-9):.0f} rows/s encoded, "
            f"{result.rows / max(result.decode_s, 1e-9):.0f} decoded",
            f"round trip   {'exact' if result.round_trip else 'FAILED'}",
        ]
    )


def _schema_json(schema: Schema, result: Measurement) -> dict[str, object]:
    return {
        "period_s": schema.period_s,
        "codec": int(schema.codec),
        "schema_bytes": len(schema.encoded),
        "digest": schema.digest.hex(),
        "month_bytes": month_bytes(schema, result),
        "channels": [
            {
                "name": channel.name,
                "unit": channel.unit,
                "scale": channel.scale,
                "nominal": channel.nominal,
                "typical": channel.typical,
                "weights": {schema.channels[index].name: weight for index, weight in channel.weights},
                "history": {schema.channels[index].name: weight for index, weight in channel.history},
                "prior_bytes": len(channel.prior),
            }
            for channel in schema.channels
        ],
    }


def _schema_text(schema: Schema, result: Measurement) -> str:
    lines = [f"{'channel':<20} {'scale':>9} {'nominal':>14} {'typical error':>14}  follows"]
    for channel in schema.channels:
        follows = ", ".join(schema.channels[index].name for index, _ in channel.weights) or "-"
        typical, nominal = channel.typical / channel.scale, channel.nominal / channel.scale
        lines.append(f"{channel.name[:20]:<20} {channel.scale:>9} {nominal:>14.6g} {typical:>14.3g}  {follows}")
    lines.append(
        f"one row each {schema.period_s} s: {result.body_bytes_per_row:.2f} B a row in the body, "
        f"{month_bytes(schema, result) / 1000:.0f} kB a month on the wire; the schema has {len(schema.encoded)} B"
    )
    return "\n".join(lines)
