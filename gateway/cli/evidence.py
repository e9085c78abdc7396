"""`digitruck events` and `coverage`: what happened, and how much of what trucks sent is here."""

from __future__ import annotations

import click

from gateway.cli.output import examples, json_option, print_fields, print_json, print_table, say
from gateway.cli.output import instant as shown
from gateway.cli.session import gateway
from gateway.cli.times import instant

_since = click.option("--since", type=instant, metavar="TIME", help="From: 2h (ago), 2026-11-01, 2026-11-01T06:30Z.")
_until = click.option("--until", type=instant, metavar="TIME", help="Up to, not including.")


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


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
