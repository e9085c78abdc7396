"""`digitruck ledger compare`: what a truck counted beside what the gateway saw of it."""

from __future__ import annotations

import click

from gateway.cli.output import examples, instant, json_option, note, print_json, print_table, say, size
from gateway.cli.session import gateway


@click.command(
    "compare", epilog=examples("digitruck ledger compare ke-arrow", "digitruck ledger compare ke-arrow --json")
)
@click.argument("truck")
@json_option
def ledger_compare(truck: str, as_json: bool) -> None:
    """Hold the account that TRUCK told against the gateway's, over the same time.

    What left one side and did not arrive on the other was lost on the way. The truck pays for all that leaves it and
    all that reaches it. It tells its account every four weeks (`account_days` of its edge.toml).
    """
    with gateway() as client:
        found = client.account(truck)
    if as_json:
        print_json(found)
        return
    note(f"{instant(found.since_ms)} to {instant(found.until_ms)}, to the hour")
    print_table(
        ["link", "precedence", "way", "truck", "gateway", "lost", "%"],
        [
            (
                each.link,
                each.precedence,
                each.direction,
                each.truck_bytes,
                each.gateway_bytes,
                each.lost_bytes,
                _percent(each.lost_bytes, max(each.truck_bytes, each.gateway_bytes)),
            )
            for each in found.lines
        ],
        empty="nothing was carried",
    )
    for link in found.links:
        money = f", {link.money_milli / 1000:.3f} in its currency" if link.money_milli else ""
        say(f"{link.link}: billed {size(link.billed_bytes)}{money}, by the truck's account")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
