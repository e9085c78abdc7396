"""`digitruck report`: what the fleet was used for, had and cost; a file for sponsors, signed by who vouches for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.output import CommandError, encode_json, examples, note, print_table, say
from gateway.cli.session import gateway, keystore
from gateway.cli.times import instant
from gateway.impact.figures import Figures, Impact
from gateway.impact.files import cells
from protocol import cbor, cose
from protocol.errors import MalformedError

_CONTEXT = "digitruck/report/1"
_FORMATS = ("table", "html", "pdf", "csv", "json")
# Columns of the table: a terminal is narrower than a page.
_SHOWN = (0, 1, 2, 3, 4, 5, 8, 9, 13, 14)
_REPORT_BYTES_MAX = 256 * 1024 * 1024


@click.group(
    epilog=examples(
        "digitruck report impact --since 2026-01-01 --format pdf --output 2026.pdf --key asha-ops",
        "digitruck report verify 2026.pdf",
    )
)
def report() -> None:
    """Reports for sponsors and partners."""


@report.command(
    "impact",
    epilog=examples(
        "digitruck report impact",
        "digitruck report impact --since 2026-01-01 --by country",
        "digitruck report impact --since 2026-01-01 --format pdf --output 2026.pdf --key asha-ops",
        "digitruck report impact --by partner --format csv > partners.csv",
    ),
)
@click.option("--since", type=instant, metavar="TIME", help="From; a year ago when left out.")
@click.option("--until", type=instant, metavar="TIME", help="Up to, not including; now when left out.")
@click.option(
    "--by",
    type=click.Choice(["truck", "group", "country", "partner"]),
    default="truck",
    show_default=True,
    help="What the lines are of; countries and partners are in the gateway's fleet file.",
)
@click.option("--format", "form", type=click.Choice(_FORMATS), default="table", show_default=True, help="What it is.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--key", metavar="NAME", help="Sign the file with this key of yours, beside it as FILE.sig.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def report_impact(
    since: int | None, until: int | None, by: str, form: str, output: Path | None, key: str | None, as_json: bool
) -> None:
    """Learner hours, sessions, uptime, energy, data and money, content delivered, and how much of the data is here.

    Nothing in it is about a single learner: participants are numbers that teachers enter on the classroom's page.
    """
    form = "json" if as_json else form
    if output is None and form == "pdf":
        raise click.UsageError("a PDF goes to a file: give --output")
    if key is not None and output is None:
        raise click.UsageError("what is signed is a file: give --output")
    query = {"by": by, "since": _time(since), "until": _time(until), "format": "json" if form == "table" else form}
    with gateway() as client:
        answer = client.run(client.client.call("GET", "/v1/reports/impact", query=query))
    if form == "table":
        _print(_read(answer.body))
        return
    body = encode_json(msgspec.json.decode(answer.body)) if form == "json" else answer.body
    if output is None:
        sys.stdout.buffer.write(body)
        return
    output.write_bytes(body)
    say(f"{output}: {len(body)} bytes")
    if key is not None:
        signature = Path(f"{output}.sig")
        signature.write_bytes(cose.sign1(keystore().load(key).signing, cose.digest(body), _aad(output.name)))
        say(f"{signature}: signed as {key}. Who has your public line checks it: digitruck report verify {output}")


@report.command(
    "verify", epilog=examples("digitruck report verify 2026.pdf", "digitruck report verify 2026.pdf --sig s.sig")
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sig", type=click.Path(dir_okay=False, path_type=Path), help="The signature; FILE.sig when left out.")
def report_verify(file: Path, sig: Path | None) -> None:
    """Check who signed a report, among the people whose public lines are on this machine (`digitruck key show`)."""
    sig = sig or Path(f"{file}.sig")
    for each in (file, sig):
        if not each.is_file():
            raise CommandError(f"there is no file {each}")
    if file.stat().st_size > _REPORT_BYTES_MAX:
        raise CommandError(f"{file} is larger than a report is")
    people = {each.key_id: each for each in keystore().people().values()}
    try:
        signed = cose.parse(sig.read_bytes())
        keys = {identity: each.public for identity, each in people.items()}
        signers = signed.verify(keys, _aad(file.name))
    except MalformedError as error:
        raise CommandError(f"{sig} is no signature of a report: {error}") from error
    if signed.payload != cose.digest(file.read_bytes()):
        raise CommandError(f"{file} is not what was signed: it was changed, or is another report")
    names = sorted(each.name for each in people.values() if each.public in signers)
    say(f"{file} is as {', '.join(names)} signed it")


def _aad(name: str) -> bytes:
    return cbor.encode([_CONTEXT, name.rpartition(".")[2]])


def _read(body: bytes) -> Impact:
    """Return a report's figures; what a newer gateway says more is left out."""
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
        for name in ("lines", "months"):
            told[name] = [_known(Figures, each) for each in told[name]]
        told["total"] = _known(Figures, told["total"])
        return msgspec.convert(_known(Impact, told), Impact)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise CommandError(f"the gateway's answer is no report: {error}") from error


def _known(struct: type[msgspec.Struct], told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name in struct.__struct_fields__}


def _print(found: Impact) -> None:
    titles = ("name", "trucks", "sessions", "participants", "learner h", "workstation h", "coverage %", "solar kWh",
              "money", "bundles")  # fmt: skip
    rows = [cells(each) for each in (*found.lines, found.total)]
    print_table(titles, [[row[at] for at in _SHOWN] for row in rows], empty="no trucks yet")
    note("The whole of it, to print or send: --format html|pdf|csv --output FILE")


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else f"{time_ms / 1000:.3f}"
