"""`digitruck budget`: what each link may cost in its period, what is left, and until when it lasts."""

from __future__ import annotations

import click

from gateway.cli.bars import bar, sparkline
from gateway.cli.budgetset import budget_history, budget_set
from gateway.cli.configs import addressee_of, newest_config, say_lines
from gateway.cli.ledger import money
from gateway.cli.output import CommandError, examples, json_option, print_json, print_table, size
from gateway.cli.pools import budget_grant, budget_pool
from gateway.cli.session import gateway
from gateway.cli.settings import settings_of, to_toml
from gateway.cli.spending import spending_of
from gateway.cli.times import now_ms
from gateway.cli.whatif import budget_whatif
from gateway.client import SyncClient
from gateway.moneyanswers import Budget, LinkBudget

_DAY_MS = 86_400_000


@click.group(
    epilog=examples(
        "digitruck budget show ke-arrow",
        "digitruck budget set ke-arrow tariffs.sat.price_per_mb=5.50 budgets.sat.bytes_max=3MB --key asha",
        "digitruck budget history ke-arrow",
    )
)
def budget() -> None:
    """What links cost, how much of it may be spent, what is left, and until when it lasts."""


budget.add_command(budget_set)
budget.add_command(budget_history)
budget.add_command(budget_pool)
budget.add_command(budget_grant)
budget.add_command(budget_whatif)


@budget.command(
    "show",
    epilog=examples(
        "digitruck budget show",
        "digitruck budget show ke-arrow",
        "digitruck budget show --group kenya",
        "digitruck budget show --json",
        "digitruck budget show ke-arrow --toml > tariffs.toml",
    ),
)
@click.argument("truck", required=False)
@click.option("--group", help="The trucks of a group.")
@click.option("--toml", "as_toml", is_flag=True, help="The tariffs and budgets in force, as `budget set --file` takes.")
@json_option
def budget_show(truck: str | None, group: str | None, as_toml: bool, as_json: bool) -> None:
    """Show what is left for every truck, for TRUCK or for a group, day by day, and when it will be gone.

    The date follows from what the truck used on each weekday of the last eight weeks.
    """
    if truck is not None and group is not None:
        raise click.UsageError("name either a TRUCK or a --group")
    if as_toml and as_json:
        raise click.UsageError("give either --toml or --json")
    with gateway() as client:
        if as_toml:
            _print_toml(client, truck, group)
            return
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
                _caps(link),
                _left(link),
                _money(link, link.spent_milli),
                f"{size(link.expected_bytes)}{_after(_money(link, link.expected_milli))}",
                _gone(link, now),
                sparkline(link.days),
            )
            for each in found
            for link in each.links
        ],
        empty="no budgets yet: digitruck budget set TRUCK budgets.sat.bytes_max=3MB --key NAME",
    )


def _print_toml(client: SyncClient, truck: str | None, group: str | None) -> None:
    config = newest_config(client, addressee_of(truck, group)).config
    lines = to_toml(spending_of(settings_of(config)))
    if not lines:
        raise CommandError("no tariffs or budgets were set: digitruck budget set --help has examples")
    say_lines(lines.splitlines())


def _used(link: LinkBudget) -> str:
    share = max(
        (used / cap if cap else 1.0)
        for used, cap in ((link.used_bytes, link.bytes_max), (link.spent_milli, link.money_max_milli), (0, 1))
        if cap is not None
    )
    return f"{bar(share)} {share * 100:3.0f} %" if _capped(link) else ""


def _capped(link: LinkBudget) -> bool:
    return link.bytes_max is not None or link.money_max_milli is not None


def _caps(link: LinkBudget) -> str:
    caps = [] if link.bytes_max is None else [size(link.bytes_max)]
    if link.money_max_milli is not None:
        caps.append(money(link.money_max_milli, link.currency))
    return (", ".join(caps) or "no cap") + (" (pool)" if link.pooled else "")


def _left(link: LinkBudget) -> str:
    left = [] if link.left_bytes is None else [size(link.left_bytes)]
    if link.left_milli is not None:
        left.append(money(link.left_milli, link.currency))
    return ", ".join(left) or "-"


def _money(link: LinkBudget, milli: int) -> str:
    return money(milli if milli or link.price_per_mb_milli else None, link.currency)


def _after(text: str) -> str:
    return "" if text == money(None, None) else f", {text}"


def _gone(link: LinkBudget, now: int) -> str:
    """Return until when a budget lasts, as people say it."""
    if not _capped(link):
        return "-"
    if link.exhausted_ms is None:
        hours = max(0, link.end_ms - now) // 3_600_000
        return f"lasts ({hours // 24} days)" if hours >= 48 else f"lasts ({hours} h)"
    if link.exhausted_ms <= now:
        return "now"
    left = (link.exhausted_ms - now) / _DAY_MS
    early = (link.end_ms - link.exhausted_ms) // _DAY_MS
    return f"in {left:.0f} days, {early} early"
