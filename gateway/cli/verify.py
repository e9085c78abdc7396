"""`digitruck verify`: what a truck signed, checked again on this machine, from the gateway or from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from gateway.cli.files import private_file
from gateway.cli.output import (
    examples,
    json_option,
    note,
    print_fields,
    print_json,
    print_table,
    say,
)
from gateway.cli.output import (
    instant as shown,
)
from gateway.cli.session import gateway
from gateway.cli.times import instant
from gateway.evidence import LINE_BYTES_MAX, EvidenceError, Verification, Verifier

_FINDINGS_SHOWN = 20


@click.command(
    epilog=examples(
        "digitruck verify ke-arrow",
        "digitruck verify ke-arrow --since 2026-11-01 --until 2026-12-01 --output november.evidence.jsonl",
        "digitruck verify --file november.evidence.jsonl --key 8a88e3dd7409f195fd52db2d3cba5d72...",
        "digitruck verify ke-arrow --at-gateway --json",
    )
)
@click.argument("truck", required=False)
@click.option("--since", type=instant, metavar="TIME", help="From: 2h (ago), 2026-11-01; everything when left out.")
@click.option("--until", type=instant, metavar="TIME", help="Up to, not including.")
@click.option("--file", "file", type=click.Path(dir_okay=False, path_type=Path), help="Verify this file, offline.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Keep the evidence in a file.")
@click.option(
    "--key", "key_hex", metavar="HEX", help="The truck's signing key, known from elsewhere; none other counts."
)
@click.option("--at-gateway", is_flag=True, help="Have the gateway verify: quicker, but its word must be taken.")
@json_option
def verify(
    truck: str | None,
    since: int | None,
    until: int | None,
    file: Path | None,
    output: Path | None,
    key_hex: str | None,
    at_gateway: bool,
    as_json: bool,
) -> int:
    """Check every signature of TRUCK's evidence again, and the schemas that they cover.

    The evidence is downloaded and verified on this machine; with --output it is kept, and verifies with --file for
    ever, without a gateway. Batches are of the period if they have rows in it. Exit code 1 if anything does not verify.
    """
    if (truck is None) == (file is None):
        raise click.UsageError("name a TRUCK, or a --file")
    if file is not None and (output is not None or at_gateway or since is not None or until is not None):
        raise click.UsageError("--file is verified whole and as it is")
    if at_gateway and (output is not None or key_hex is not None):
        raise click.UsageError("--at-gateway verifies nothing on this machine: leave out --output and --key")
    verifier = Verifier(_key(key_hex))
    if file is not None:
        with file.open("rb") as source:
            found = _verified(verifier, iter(lambda: source.readline(LINE_BYTES_MAX), b""))
    else:
        assert truck is not None, "one of the two is there"
        with gateway() as client:
            if at_gateway:
                found = client.verification(truck, since_ms=since, until_ms=until)
            else:
                pieces = client.evidence(truck, since_ms=since, until_ms=until)
                with closing(pieces), private_file(output) if output is not None else nullcontext() as kept:
                    found = _verified(verifier, _lines(pieces, kept))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if output is not None:
        note(f"The evidence is in {output}: digitruck verify --file {output}")
    return 0 if found.holds else 1


def _key(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise click.BadParameter("a signing key is 64 hex digits: digitruck truck NAME shows it")
    return bytes.fromhex(text)


def _lines(pieces: Iterable[bytes], kept: BinaryIO | None) -> Iterator[bytes]:
    """Yield the lines of what comes in pieces, each with its line end, and keep all of it."""
    rest = b""
    for piece in pieces:
        if kept is not None:
            kept.write(piece)
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > LINE_BYTES_MAX:
            raise EvidenceError("a line is longer than any of evidence")
    if rest:
        yield rest


def _verified(verifier: Verifier, lines: Iterator[bytes]) -> Verification:
    for line in lines:
        verifier.line(line)
    verifier.check_whole()
    return verifier.result()


def _print(found: Verification) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items())
    print_fields(
        [
            ("truck", found.truck),
            ("period", f"{shown(found.since_ms)} to {shown(found.until_ms)}"),
            ("verified", f"{found.verified} of {found.parcels} parcels" + (f": {kinds}" if kinds else "")),
            ("schemas", f"{found.schemas}, each bound by the signatures of its batches"),
            *(("signed by", f"{each.signing_key} ({each.parcels} parcels)") for each in found.keys),
            ("waiting for their schema", found.waiting),
            ("refused when they came", found.refused),
            ("failed", found.failed),
        ]
    )
    if found.findings:
        say()
        print_table(
            ["epoch", "parcel", "kind", "why"],
            [(each.epoch, each.sequence, each.kind, each.reason) for each in found.findings[:_FINDINGS_SHOWN]],
            empty="",
        )
        if found.failed > _FINDINGS_SHOWN:
            note(f"... and {found.failed - _FINDINGS_SHOWN} more: --json names them.")
    if not found.holds:
        say("Not everything verifies: the parcels named above are not what the truck signed.")
    elif found.parcels:
        say("Everything verifies.")
    else:
        say("Nothing of that period is here.")
