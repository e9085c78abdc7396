"""`digitruck budget pool` and `grant`: one cap for a group's link, and what each truck is given of it."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.bars import bar
from gateway.cli.budgetset import dry_run_option, key_option, put_spending, save_option, valid_option, yes_option
from gateway.cli.configs import newest_config
from gateway.cli.ledger import money
from gateway.cli.output import CommandError, examples, json_option, note, print_json, print_table, size
from gateway.cli.session import gateway
from gateway.cli.settings import settings_of
from gateway.cli.spending import spending_of
from gateway.cli.tariffs import Amount, parse_bytes, parse_milli, write_milli
from gateway.client import SyncClient
from gateway.moneyanswers import PoolRow
from gateway.sharing import shared_evenly, shared_out
from protocol.documents import Addressee
from protocol.errors import MalformedError


@click.command(
    "pool",
    epilog=examples("digitruck budget pool", "digitruck budget pool --group kenya", "digitruck budget pool --json"),
)
@click.option("--group", help="Only the pools of this group.")
@json_option
def budget_pool(group: str | None, as_json: bool) -> None:
    """Show the pools: what each truck was given, may still go by, and has used."""
    with gateway() as client:
        found = client.pools(group=group)
    if as_json:
        print_json(found)
        return
    print_table(
        ["group", "link", "truck", "given", "may go by", "used", ""],
        [row for pool in found for row in _rows(pool)],
        empty="no pools yet: digitruck budget grant sat --group G --amount 100MB --even --key NAME",
    )
    for pool in found:
        if pool.outside:
            note(
                f"{', '.join(pool.outside)} of {pool.group}: not in the pool, because a configuration names them: "
                "digitruck config show TRUCK"
            )


@click.command(
    "grant",
    epilog=examples(
        "digitruck budget grant sat --group kenya --amount 100MB --even --key asha",
        "digitruck budget grant sat --group kenya --by-use --key asha            (as the trucks have used it lately)",
        "digitruck budget grant sat --group kenya ke-arrow=30MB ke-tana=20MB --key asha --yes",
        "digitruck budget grant sat --group kenya --money --amount 500 --even --key asha --dry-run",
    ),
)
@click.argument("link")
@click.argument("pairs", nargs=-1, metavar="[TRUCK=AMOUNT ...]")
@click.option("--group", required=True, help="Whose pool it is.")
@click.option("--amount", help="The whole pool; as it is when left out.")
@click.option("--money", "in_money", is_flag=True, help="A new pool is of money, not bytes.")
@click.option("--even", is_flag=True, help="Share all of it out evenly.")
@click.option("--by-use", is_flag=True, help="Share all of it out as the trucks will use it, by their history.")
@key_option
@valid_option
@save_option
@dry_run_option
@yes_option
def budget_grant(
    link: str,
    pairs: tuple[str, ...],
    group: str,
    amount: str | None,
    in_money: bool,
    even: bool,
    by_use: bool,
    keys: tuple[str, ...],
    valid: int,
    save: Path | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Give trucks of a group their parts of the LINK's pool. Who has none spends nothing there.

    The gateway takes no grants that together, with those that trucks still go by, come to more than the pool: lower
    some, wait until their trucks have applied that, then raise others.
    """
    if sum((bool(pairs), even, by_use)) > 1:
        raise click.UsageError("give TRUCK=AMOUNT pairs, --even or --by-use")
    with gateway() as client:
        found = newest_config(client, Addressee((), group))
        config = found.config
        before = next((each for each in config.pools if each.link == link), None) if config else None
        is_money = in_money if before is None else before.unit.name == "MONEY"
        if before is not None and in_money and not is_money:
            raise CommandError(f"the {link} pool of {group} is of bytes: take it away first (budget set pools.{link}=)")
        if amount is None and before is None:
            raise click.UsageError(f"{group} has no {link} pool yet: say how large it is with --amount")
        whole = _parsed(amount, is_money=is_money, what="--amount") if amount is not None else 0
        if amount is None and before is not None:
            whole = before.amount
        grants = {each.truck: each.amount for each in before.grants} if before is not None else {}
        if even or by_use:
            grants = _shared(client, link, group, whole, by_use=by_use, is_money=is_money)
        for pair in pairs:
            truck, equals, text = pair.partition("=")
            if not equals or not truck:
                raise click.UsageError(f"{pair!r} is not TRUCK=AMOUNT")
            grants[truck] = _parsed(text, is_money=is_money, what=truck) if text else 0
        given = sum(grants.values())
        if given > whole:
            raise CommandError(
                f"the grants come to {_text(given, is_money)}, the pool has {_text(whole, is_money)}: "
                "give less, or more --amount"
            )
        new = {k: v for k, v in spending_of(settings_of(config)).items() if not k.startswith(f"pools.{link}.")}
        new[f"pools.{link}.{'money_max' if is_money else 'bytes_max'}"] = _written(whole, is_money)
        kept = {truck: count for truck, count in sorted(grants.items()) if count}
        new[f"pools.{link}.grants"] = ", ".join(f"{truck} {_written(n, is_money)}" for truck, n in kept.items())
        put_spending(client, found, new, keys=keys, valid=valid, save=save, dry_run=dry_run, yes=yes)


def _rows(pool: PoolRow) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (
            pool.group,
            pool.link,
            each.truck,
            *(_amount(pool, count) for count in (each.grant, each.held, each.used)),
            _bar(each.used, each.grant),
        )
        for each in pool.grants
    ]
    whole = f"{_amount(pool, pool.given)} of {_amount(pool, pool.amount)}"
    return [*rows, (pool.group, pool.link, "(all)", whole, "", _amount(pool, pool.used), _bar(pool.used, pool.amount))]


def _shared(client: SyncClient, link: str, group: str, whole: int, *, by_use: bool, is_money: bool) -> dict[str, int]:
    trucks = [each.truck for each in client.trucks(group=group) if each.revoked_ms is None]
    if not trucks:
        raise CommandError(f"no truck of the group {group} is enrolled: digitruck trucks")
    if not by_use:
        return shared_evenly(whole, trucks)
    used, wish = dict.fromkeys(trucks, 0), dict.fromkeys(trucks, 0)
    for each in client.budgets(group=group):
        for budget in each.links:
            if budget.link == link and each.truck in used:
                used[each.truck] = budget.spent_milli if is_money else budget.used_bytes
                wish[each.truck] = budget.expected_milli if is_money else budget.expected_bytes
    return shared_out(whole, used, wish)


def _parsed(text: str, *, is_money: bool, what: str) -> int:
    try:
        return parse_milli(text) if is_money else parse_bytes(text)
    except MalformedError as error:
        raise CommandError(f"{what}: {error}") from error


def _written(count: int, is_money: bool) -> int | str:
    text: Amount = write_milli(count) if is_money else count
    return text if isinstance(text, int) else str(text)


def _text(count: int, is_money: bool) -> str:
    return str(write_milli(count)) if is_money else size(count)


def _amount(pool: PoolRow, count: int) -> str:
    return money(count, pool.currency) if pool.unit == "money" else size(count)


def _bar(used: int, whole: int) -> str:
    return bar(used / whole if whole else float(used > 0))
