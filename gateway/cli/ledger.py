"""`digitruck ledger` and `budget`: every byte and what it cost, and what is left of the month."""

from __future__ import annotations

import click

from gateway.answers import Budget, LedgerLine
from gateway.cli.output import examples, json_option, print_json, print_table, say, size
from gateway.cli.output import instant as shown
from gateway.cli.session import gateway
from gateway.cli.times import duration, instant


@click.command(
    epilog=examples(
        "digitruck ledger",
        "digitruck ledger ke-arrow --since 7d",
        "digitruck ledger ke-arrow --step 1d --json",
        "digitruck ledger --source truck",
    )
)
@click.argument("truck", required=False)
@click.option("--since", type=instant, metavar="TIME", help="From; the begin of this month (UTC) when left out.")
@click.option("--until", type=instant, metavar="TIME", help="Up to, not including.")
@click.option("--step", type=duration, help="A line for each step of hours or days: 1h, 1d.")
@click.option(
    "--source",
    type=click.Choice(["gateway", "truck"]),
    default="gateway",
    show_default=True,
    help="Who counted.",
)
@json_option
def ledger(
    truck: str | None, since: int | None, until: int | None, step: int | None, source: str, as_json: bool
) -> None:
    """Add up bytes and money of the fleet, or of TRUCK: by link, precedence, cause and direction."""
    lines: list[LedgerLine] = []
    total, after = 0, None
    with gateway() as client:
        while True:
            page = client.ledger(truck, since_ms=since, until_ms=until, source=source, step_s=step, after=after)
            lines += page.items
            total, after = page.total_bytes, page.next
            if after is None:
                break
    if as_json:
        print_json(lines)
        return
    timed = step is not None
    print_table(
        [
            *(["from"] if timed else []),
            "truck", "link", "precedence", "cause", "way", "bytes", "datagrams", "money",
        ],
        [
            (
                *((shown(each.start_ms),) if timed else ()),
                each.truck or "(strangers)",
                each.link,
                each.precedence,
                each.cause,
                each.direction,
                each.bytes,
                each.datagrams,
                money(each.money_milli, each.currency),
            )
            for each in lines
        ],
        empty="no bytes in that period",
    )  # fmt: skip
    if lines:
        say(f"{total} bytes ({size(total)})")


@click.group(epilog=examples("digitruck budget show", "digitruck budget show ke-arrow"))
def budget() -> None:
    """What each link may cost this month, and what is left of it."""


@budget.command(
    "show",
    epilog=examples("digitruck budget show", "digitruck budget show ke-arrow", "digitruck budget show --json"),
)
@click.argument("truck", required=False)
@json_option
def budget_show(truck: str | None, as_json: bool) -> None:
    """Show what is left of this month for every truck, or for TRUCK.

    Budgets are part of a truck's signed configuration: `digitruck config set ke-arrow
    links.sat.month_bytes_max=3000000` changes one.
    """
    with gateway() as client:
        found: list[Budget] = [client.budget(truck)] if truck is not None else client.budgets()
    if as_json:
        print_json(found)
        return
    print_table(
        ["truck", "link", "cap", "used", "left", "reserve", "spent", "runs out"],
        [
            (
                each.truck,
                link.link,
                size(link.bytes_max) if link.bytes_max is not None else "no cap",
                size(link.used_bytes),
                size(link.left_bytes),
                size(link.reserve_bytes),
                money(link.spent_milli if link.price_per_mb_milli else None, link.currency),
                shown(link.exhausted_ms) if link.exhausted_ms is not None else "not this month",
            )
            for each in found
            for link in each.links
        ],
        empty="no budgets yet: digitruck config set TRUCK links.sat.month_bytes_max=3000000",
    )


def money(milli: int | None, currency: str | None) -> str:
    """Return an amount (thousandths) with its currency; None is an amount that nobody knows."""
    return "no price known" if milli is None or not currency else f"{milli / 1000:.3f} {currency}"
