"""`digitruck budget whatif`: another policy replayed over a truck's own recorded weeks, beside what happened."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.answers import LedgerLine
from gateway.cli.configs import newest_config
from gateway.cli.ledger import money, read_lines
from gateway.cli.output import CommandError, examples, json_option, note, print_json, print_table, say, size
from gateway.cli.session import gateway
from gateway.cli.settings import apply_pairs, make_config, read_toml, settings_of
from gateway.cli.spending import spending_of, with_spending
from gateway.cli.times import duration, instant, now_ms
from gateway.moneyanswers import History
from gateway.replay import Item, LinkRecord, Outcome, Replayed, outcomes, replay
from gateway.terms import links_of, terms_of
from protocol.documents import Addressee, Config
from protocol.numbers import Precedence
from store.zones import offset_of

_DAY_MS = 86_400_000


@click.command(
    "whatif",
    epilog=examples(
        "digitruck budget whatif ke-arrow --file policy.toml",
        "digitruck budget whatif ke-arrow budgets.sat.bytes_max=1MB --since 60d",
        "digitruck budget whatif ke-arrow budgets.sat.shares=20/60/0 --no-bulk sat --always sat --json",
    ),
)
@click.argument("truck")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option(
    "--file", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="A policy as `budget set` takes it."
)
@click.option("--since", type=instant, metavar="TIME", help="From; 30d ago when left out.")
@click.option("--until", type=instant, metavar="TIME", help="Up to, not including; now when left out.")
@click.option(
    "--always", multiple=True, metavar="LINK", help="This link is always there; the dearest if none is named."
)
@click.option("--no-bulk", multiple=True, metavar="LINK", help="It carries no content (`bulk = false` on the truck).")
@click.option("--patience", type=duration, default="15m", show_default=True, help="As `patience_s` on the truck.")
@json_option
def budget_whatif(
    truck: str,
    pairs: tuple[str, ...],
    file: Path | None,
    since: int | None,
    until: int | None,
    always: tuple[str, ...],
    no_bulk: tuple[str, ...],
    patience: int,
    as_json: bool,
) -> None:
    """Replay a policy over what TRUCK had to send and when its links were there; nothing is changed.

    The decisions are the truck's own. When a link was there is known only from when it was used: name those that were
    there all the time with --always.
    """
    if bool(pairs) == (file is not None):
        raise click.UsageError("give either KEY=VALUE pairs or a --file")
    until_ms = now_ms() if until is None else until
    since_ms = until_ms - 30 * _DAY_MS if since is None else since
    with gateway() as client:
        base = newest_config(client, Addressee((truck,))).config
        old = spending_of(settings_of(base))
        new = apply_pairs(old, pairs) if file is None else read_toml(_text(file))
        settings = with_spending(settings_of(base), new)
        policy = make_config(settings, addressee=Addressee((truck,)), version=1, issued_s=0, expires_s=1 << 33)
        history = client.history(truck, since_ms=since_ms, until_ms=until_ms)
        lines, _ = read_lines(client, truck, since_ms=since_ms, until_ms=until_ms, by=("link",))
    items = items_of(history)
    if not items:
        raise CommandError(f"nothing of {truck} is recorded in that time: give an earlier --since")
    there = always or _dearest(policy, history)
    found = replayed(history, items, policy, truck, frozenset(there), frozenset(no_bulk), patience)
    before = outcomes(items, [each.arrived_s for each in items])
    if as_json:
        print_json({"happened": {"outcomes": before, "links": lines}, "whatif": found})
        return
    note(f"{len(items)} parcels and downloads of {(history.until_ms - history.since_ms) // _DAY_MS} days")
    _print(before, found)
    print_table(
        ["link", "carried", "was", "billed", "cost", "was", "of it"],
        [
            (
                each.link,
                size(each.carried_bytes),
                size(sum(line.bytes for line in lines if line.link == each.link)),
                size(each.billed_bytes),
                money(each.money_milli if each.is_priced else None, each.currency),
                money(*_was(lines, each.link)),
                "always there" if each.link in there else f"{_hours(history, each.link)} hours",
            )
            for each in found.links
        ],
        empty="no link carried anything",
    )


def items_of(history: History) -> list[Item]:
    """Return what was queued, parcels with their share of everything that was carried around them."""
    sealed = sum(each.bytes for each in history.items)
    around = max(1.0, history.other_bytes / sealed) if sealed else 1.0
    parcels = [
        Item(Precedence[each.precedence.upper()], each.at_ms // 1000, round(each.bytes * around), _s(each.arrived_ms))
        for each in history.items
    ]
    return parcels + [
        Item(Precedence.BULK, each.at_ms // 1000, each.bytes, _s(each.arrived_ms)) for each in history.content
    ]


def replayed(
    history: History,
    items: list[Item],
    policy: Config,
    truck: str,
    always: frozenset[str],
    no_bulk: frozenset[str],
    patience_s: int,
) -> Replayed:
    """Return what a policy would have come to."""
    records = {
        each.link: LinkRecord(frozenset(hour // 1000 for hour in each.hours_ms), each.best_hour_bytes)
        for each in history.contacts
    }
    timetable = policy.timetable
    return replay(
        items,
        records,
        {link: terms_of(policy, truck, link) for link in sorted(links_of(policy) | records.keys())},
        since_s=history.since_ms // 1000,
        until_s=history.until_ms // 1000,
        always=always,
        no_bulk=no_bulk,
        patience_s=patience_s,
        lessons=() if timetable is None else timetable.lessons,
        lessons_zone=offset_of("UTC" if timetable is None else timetable.zone),
    )


def _dearest(policy: Config, history: History) -> tuple[str, ...]:
    """Return the link that there is no dearer one than: it is used only when the others are gone."""
    links = sorted({each.link for each in history.contacts} | links_of(policy))
    priced = sorted((terms_of(policy, "", link).tariff.price_per_mb_milli, link) for link in links)
    return (priced[-1][1],) if priced else ()


def _print(before: list[Outcome], found: Replayed) -> None:
    was = {each.precedence: each for each in before}
    print_table(
        ["precedence", "wanted", "arrived", "was", "half within", "was", "95 % within", "was"],
        [
            (
                each.precedence.name.lower(),
                each.items,
                each.arrived,
                was[each.precedence].arrived,
                _span(each.median_s),
                _span(was[each.precedence].median_s),
                _span(each.p95_s),
                _span(was[each.precedence].p95_s),
            )
            for each in found.outcomes
        ],
        empty="nothing was wanted",
    )
    say()


def _was(lines: list[LedgerLine], link: str) -> tuple[int | None, str | None]:
    mine = [line for line in lines if line.link == link and line.money_milli is not None]
    return (sum(line.money_milli or 0 for line in mine), mine[0].currency) if mine else (None, None)


def _hours(history: History, link: str) -> int:
    return sum(len(each.hours_ms) for each in history.contacts if each.link == link)


def _span(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds} s"


def _s(time_ms: int | None) -> int | None:
    return None if time_ms is None else time_ms // 1000


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not text") from error
