"""`digitruck events` and `coverage`: what happened, and how much of what trucks sent is here."""

from __future__ import annotations

import click

from gateway.answers import Event
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
                _when(each),
                each.name,
                each.precedence,
                each.values,
            )
            for each in found
        ],
        empty=f"no events of {truck} in that period",
    )


@click.command(
    epilog=examples(
        "digitruck coverage ke-arrow",
        "digitruck coverage ke-arrow --since 7d --json",
        "digitruck coverage ke-arrow --since 365d --step 1d --json",
    )
)
@click.argument("truck")
@_since
@_until
@click.option("--step", type=click.Choice(["1h", "1d"]), help="Count by hours or by days; hours up to 92 days.")
@json_option
def coverage(truck: str, since: int | None, until: int | None, step: str | None, as_json: bool) -> None:
    """Show how much of a truck's data is at the gateway, and name every gap. The last 30 days when not told.

    JSON has the count of every channel and hour, beside what was due at the channel's period.
    """
    step_s = None if step is None else {"1h": 3_600, "1d": 86_400}[step]
    with gateway() as client:
        found = client.coverage(truck, since_ms=since, until_ms=until, step_s=step_s)
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
            ("clock set later", f"{found.repaired_rows} rows of {len(found.repaired)} boots"),
            ("rejected", found.rejected),
            ("not counted below yet", found.to_roll_up),
        ]
    )
    say()
    unit = "hours" if found.step_s == 3_600 else "days"
    print_table(
        ["channel", "values", "due", "here", f"{unit} without any", "clock set later"],
        [
            (
                each.n,
                sum(each.count),
                sum(each.due),
                f"{_percent(sum(each.count), sum(each.due))}",
                sum(1 for count, due in zip(each.count, each.due, strict=True) if due and not count),
                sum(each.repaired),
            )
            for each in found.channels
        ],
        empty="no channel has a value yet",
    )
    gaps: list[tuple[str, str, str]] = []
    for epoch in found.epochs:
        gaps += [(epoch.epoch, _range(first, last), "not arrived yet") for first, last in epoch.missing]
        gaps += [(epoch.epoch, _range(first, last), reason) for first, last, reason in epoch.dropped]
    say()
    if gaps:
        print_table(["epoch", "parcels", "why they are not here"], gaps, empty="")
    else:
        say("No parcel is missing.")


def _when(event: Event) -> str:
    if event.time_ms is None:
        return "clock unknown"
    return shown(event.time_ms) + (" (clock set later)" if event.repaired else "")


def _percent(count: int, due: int) -> str:
    """Return a share rounded down: 100 % says that nothing is missing."""
    return "-" if not due else f"{count * 1000 // due / 10:.1f} %"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
