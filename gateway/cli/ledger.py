"""`digitruck ledger`: every byte and what it cost, by whatever columns are asked for."""

from __future__ import annotations

from typing import Any

import click

from gateway.answers import LedgerLine
from gateway.cli.compare import ledger_compare
from gateway.cli.output import examples, json_option, print_json, print_table, say, size
from gateway.cli.output import instant as shown
from gateway.cli.reconcile import ledger_reconcile
from gateway.cli.session import gateway
from gateway.cli.times import duration, instant
from gateway.client import SyncClient

_COLUMNS = ("truck", "link", "precedence", "cause", "direction", "day")
_TITLES = {"direction": "way", "day": "from"}


class _ShowsByItself(click.Group):
    """A group whose first word may be a truck: `digitruck ledger ke-arrow` is `digitruck ledger show ke-arrow`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_ShowsByItself,
    epilog=examples(
        "digitruck ledger",
        "digitruck ledger ke-arrow --since 7d",
        "digitruck ledger ke-arrow --by cause,day",
        "digitruck ledger reconcile november.csv --truck ke-arrow --link sat",
    ),
)
def ledger() -> None:
    """Every byte and what it cost. Without a word of the list below: `show`."""


def _columns(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(dict.fromkeys(each.strip() for each in value.split(",") if each.strip()))
    wrong = [each for each in names if each not in _COLUMNS]
    if wrong or not names:
        raise click.BadParameter(f"{', '.join(wrong) or 'nothing'} is no column: give some of {', '.join(_COLUMNS)}")
    return names


ledger.add_command(ledger_reconcile)
ledger.add_command(ledger_compare)


@ledger.command(
    "show",
    epilog=examples(
        "digitruck ledger",
        "digitruck ledger ke-arrow --since 7d",
        "digitruck ledger ke-arrow --by cause,day",
        "digitruck ledger --by truck,link --since 2026-11-01 --until 2026-12-01",
        "digitruck ledger show ke-arrow --step 1h --json",
        "digitruck ledger --source truck",
    ),
)
@click.argument("truck", required=False)
@click.option("--since", type=instant, metavar="TIME", help="From; the begin of this month (UTC) when left out.")
@click.option("--until", type=instant, metavar="TIME", help="Up to, not including.")
@click.option("--by", metavar="COLUMN,..", callback=_columns, help=f"A line for each of {', '.join(_COLUMNS)}.")
@click.option("--step", type=duration, help="A line for each step of hours or days: 1h, 1d.")
@click.option(
    "--source",
    type=click.Choice(["gateway", "truck"]),
    default="gateway",
    show_default=True,
    help="Who counted.",
)
@json_option
def ledger_show(
    truck: str | None,
    since: int | None,
    until: int | None,
    by: tuple[str, ...] | None,
    step: int | None,
    source: str,
    as_json: bool,
) -> None:
    """Add up bytes and money of the fleet, or of TRUCK."""
    if step is not None and by is not None and "day" in by:
        raise click.UsageError("--by day is --step 1d: give one of the two")
    with gateway() as client:
        lines, total = read_lines(
            client, truck, since_ms=since, until_ms=until, source=source, step_s=step, by=by or ()
        )
    if as_json:
        print_json(lines)
        return
    columns = [each for each in _COLUMNS[:-1] if by is None or each in by]
    timed = step is not None or (by is not None and "day" in by)
    titles = [*(["from"] if timed else []), *(_TITLES.get(each, each) for each in columns)]
    print_table(
        [*titles, "bytes", "datagrams", "money"],
        [
            (
                *((_start(each, whole_days=step is None),) if timed else ()),
                *(_cell(each, column) for column in columns),
                each.bytes,
                each.datagrams,
                money(each.money_milli, each.currency),
            )
            for each in lines
        ],
        empty="no bytes in that period",
    )
    if lines:
        sums = totals(lines)
        say(f"{total} bytes ({size(total)})" + (f", {sums}" if sums else ""))


def read_lines(client: SyncClient, truck: str | None, **query: Any) -> tuple[list[LedgerLine], int]:
    """Return all lines that a query of the ledger has, and their bytes in all."""
    lines: list[LedgerLine] = []
    after: str | None = None
    while True:
        page = client.ledger(truck, after=after, **query)
        lines += page.items
        after = page.next
        if after is None:
            return lines, page.total_bytes


def totals(lines: list[LedgerLine]) -> str:
    """Return the money of lines, each currency apart; lines whose price nobody knows are left out."""
    sums: dict[str, int] = {}
    for each in lines:
        if each.money_milli is not None and each.currency:
            sums[each.currency] = sums.get(each.currency, 0) + each.money_milli
    return ", ".join(money(milli, currency) for currency, milli in sorted(sums.items()))


def money(milli: int | None, currency: str | None) -> str:
    """Return an amount (thousandths) with its currency; None is an amount that nobody knows."""
    return "no price known" if milli is None or not currency else f"{milli / 1000:.3f} {currency}"


def _start(line: LedgerLine, *, whole_days: bool) -> str:
    return shown(line.start_ms)[:10] if whole_days else shown(line.start_ms)


def _cell(line: LedgerLine, column: str) -> object:
    value = getattr(line, column)
    return "(strangers)" if column == "truck" and value == "" else value
