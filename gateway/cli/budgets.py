"""`digitruck budget`: what each link may cost in its period, what is left, and until when it lasts."""

from __future__ import annotations

import click

from gateway.cli.bars import bar, sparkline
from gateway.cli.ledger import money
from gateway.cli.output import examples, json_option, print_json, print_table, size
from gateway.cli.session import gateway
from gateway.cli.times import now_ms
from gateway.moneyanswers import Budget, LinkBudget

_DAY_MS = 86_400_000


@click.group(epilog=examples("digitruck budget show", "digitruck budget show ke-arrow"))
def budget() -> None:
    """What each link may cost in its period, and what is left of it."""


@budget.command(
    "show",
    epilog=examples(
        "digitruck budget show",
        "digitruck budget show ke-arrow",
        "digitruck budget show --group kenya",
        "digitruck budget show --json",
    ),
)
@click.argument("truck", required=False)
@click.option("--group", help="The trucks of a group.")
@json_option
def budget_show(truck: str | None, group: str | None, as_json: bool) -> None:
    """Show what is left for every truck, for TRUCK or for a group, day by day, and when it will be gone.

    The date follows from what the truck used on each weekday of the last eight weeks.
    """
    if truck is not None and group is not None:
        raise click.UsageError("name either a TRUCK or a --group")
    with gateway() as client:
        found: list[Budget] = [client.budget(truck)] if truck is not None else client.budgets(group=group)
    if as_json:
        print_json(found)
        return
    now = now_ms()
    print_table(
        ["truck", "link", "used", "", "of", "left", "spent", "at its end", "gone", "day by day"],
        [
            (
                each.truck,
                link.link,
                _used(link),
                size(link.used_bytes),
                "no cap" if link.bytes_max is None else size(link.bytes_max),
                size(link.left_bytes),
                money(link.spent_milli if link.price_per_mb_milli else None, link.currency),
                size(link.expected_bytes),
                _gone(link, now),
                sparkline(link.days),
            )
            for each in found
            for link in each.links
        ],
        empty="no budgets yet: digitruck config set TRUCK links.sat.month_bytes_max=3000000",
    )


def _used(link: LinkBudget) -> str:
    if link.bytes_max is None:
        return ""
    share = link.used_bytes / link.bytes_max if link.bytes_max else 1.0
    return f"{bar(share)} {share * 100:3.0f} %"


def _gone(link: LinkBudget, now: int) -> str:
    """Return until when a budget lasts, as people say it."""
    if link.bytes_max is None:
        return "-"
    if link.exhausted_ms is None:
        return f"lasts ({(link.end_ms - now) // _DAY_MS} days)"
    if link.exhausted_ms <= now:
        return "now"
    left = (link.exhausted_ms - now) / _DAY_MS
    early = (link.end_ms - link.exhausted_ms) // _DAY_MS
    return f"in {left:.0f} days, {early} early"
