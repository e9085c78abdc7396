"""`digitruck watch`: what happens in the fleet, as it happens."""

from __future__ import annotations

import contextlib
import sys

import click

from gateway.answers import Change
from gateway.cli.output import examples, instant, print_json_line, say
from gateway.cli.session import gateway


@click.command(
    epilog=examples(
        "digitruck watch",
        "digitruck watch --truck ke-arrow --kinds event,receipt",
        "digitruck watch --json --count 10",
    )
)
@click.option("--truck", help="Only changes of one truck.")
@click.option("--kinds", help="Only these kinds, separated by commas: batch, event, receipt, config, bundle, truck ...")
@click.option("--after", type=click.IntRange(min=0), help="Go on after this change's id.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many changes.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line for scripts.")
def watch(truck: str | None, kinds: str | None, after: int | None, count: int | None, as_json: bool) -> None:
    """Follow changes live until stopped (Ctrl-C). A broken connection is taken up where it was."""
    wanted = [kind for kind in (kinds or "").split(",") if kind]
    # Ctrl-C is how one stops watching, so it is no failure.
    with gateway() as client, contextlib.suppress(KeyboardInterrupt):
        for number, change in enumerate(client.changes(truck=truck, kinds=wanted, after=after), 1):
            _print(change, as_json=as_json)
            if count is not None and number >= count:
                return


def _print(change: Change, *, as_json: bool) -> None:
    if as_json:
        print_json_line(change)
    elif change.kind == "gap":
        say(f"{instant(change.at_ms)}  older changes are no longer kept")
    else:
        say(f"{instant(change.at_ms)}  {change.kind:<10} {change.truck or '-':<20} {change.subject}")
    sys.stdout.flush()
