"""`digitruck rollout create` and `quote`: which trucks should have which bundle, and what it costs."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.belief import read_believed
from gateway.cli.bundles import find_bundle
from gateway.cli.explain import explain
from gateway.cli.files import write_private
from gateway.cli.ledger import money
from gateway.cli.output import (
    CommandError,
    confirm,
    examples,
    json_option,
    note,
    print_json,
    say,
    size,
)
from gateway.cli.quotes import QUOTE_WAIT_S, known_cost, print_quote, quoted
from gateway.cli.session import gateway, load_key
from gateway.cli.shares import priced, share, shares
from gateway.cli.times import coming, duration, now_s
from gateway.client import SyncClient
from gateway.contentanswers import Bundle, TruckQuote
from gateway.keystore import KeyRole
from protocol import cose
from protocol.documents import Addressee, Manifest, Rollout, document_aad, read_document, sign_document
from protocol.errors import MalformedError
from protocol.numbers import DocumentKind, Precedence

_DEFAULT_STOP = 20
_trucks_option = click.option("--trucks", metavar="T,..", help="Trucks by name, separated by commas.")
_group_option = click.option("--group", help="All trucks of a group.")


@click.command(
    epilog=examples(
        "digitruck quote maths --trucks ke-arrow,cd-kinshasa",
        "digitruck quote maths@2026.11 --group kenya --json",
    )
)
@click.argument("bundle", metavar="BUNDLE[@VERSION]")
@_trucks_option
@_group_option
@click.option("--no-wait", is_flag=True, help="Take the files' size for packs that are still being made.")
@json_option
def quote(bundle: str, trucks: str | None, group: str | None, no_wait: bool, as_json: bool) -> None:
    """Say what a bundle would cost each truck over each of its links, and in how many days it is there.

    The packs are really made; the losses and contacts of each link, the tariff with its rounding, and what is left of
    the budget are in it. Changes nothing.
    """
    to = _addressee(trucks, group)
    with gateway() as client:
        found = find_bundle(client, bundle)
        answer = quoted(client, found, to, wait_s=0 if no_wait else QUOTE_WAIT_S)
    if as_json:
        print_json(answer)
    else:
        print_quote(answer)


@click.group(
    epilog=examples(
        "digitruck rollout create maths@2026.11 --group kenya --key asha",
        "digitruck rollout list",
        "digitruck rollout show 3f0c",
        "digitruck rollout pause 3f0c",
        "digitruck rollout rollback 3f0c --key asha",
    )
)
def rollout() -> None:
    """Which trucks should have which bundle version, signed by an operator."""


@rollout.command(
    "create",
    epilog=examples(
        "digitruck rollout create maths --trucks ke-arrow --key asha                (the newest version)",
        "digitruck rollout create maths@2026.11 --group kenya --key asha --stages 10%,50%,100% --stop-at 20%",
        "digitruck rollout create maths --group kenya --key asha --deadline 2026-12-24 --accept-cost 40USD --yes",
        "digitruck rollout create maths --group kenya --key asha --remove           (takes it away)",
    ),
)
@click.argument("bundle", metavar="BUNDLE[@VERSION]")
@_trucks_option
@_group_option
@click.option("--key", "keys", multiple=True, required=True, metavar="NAME", help="Your operator's key; repeatable.")
@click.option(
    "--precedence",
    type=click.Choice([each.name.lower() for each in Precedence]),
    default=Precedence.BULK.name.lower(),
    show_default=True,
    help="How urgent the download is.",
)
@click.option("--remove", is_flag=True, help="Take the bundle away from these trucks.")
@click.option("--stages", type=shares, default="100%", show_default=True, help="Trucks that each stage reaches.")
@click.option("--stop-at", type=share, metavar="PERCENT", help="Halt at this share of failures; 20% with stages.")
@click.option("--dark-after", type=duration, default="3d", show_default=True, help="Who is silent is not waited for.")
@click.option("--deadline", type=coming, metavar="T", help="By when; it gets more urgent towards it: 5d, 2026-12-24.")
@click.option("--accept-cost", type=priced, metavar="MONEY", help="Quote and spending stay below: 40USD, 12.50EUR.")
@click.option("--valid", type=duration, default="365d", show_default=True, help="How long it is believed.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep it in a file for more signatures.")
@click.option("--yes", is_flag=True, help="Do not ask before signing (for scripts).")
def rollout_create(
    bundle: str,
    trucks: str | None,
    group: str | None,
    keys: tuple[str, ...],
    precedence: str,
    remove: bool,
    stages: tuple[int, ...],
    stop_at: int | None,
    dark_after: int,
    deadline: int | None,
    accept_cost: tuple[int, str] | None,
    valid: int,
    save: Path | None,
    yes: bool,
) -> None:
    """Give trucks a version of a BUNDLE, the newest if none is named. The quote comes first.

    With stages the next one begins when those that can be reached have reported. Which trucks come first follows from
    what is signed. A rollout halts by itself when too many trucks fail, or when it costs more than was accepted.
    """
    to = _addressee(trucks, group)
    if deadline is not None and deadline <= now_s():
        raise click.UsageError("--deadline is over already")
    cost, currency = accept_cost or (None, "USD")
    signing = [load_key(name, KeyRole.OPERATOR) for name in keys]
    with gateway() as client:
        found = find_bundle(client, bundle)
        manifest = None if remove else _checked_manifest(client, found)
        version = 1 + max(
            (row.version for row in client.documents(kind="rollout") if row.bundle == found.name), default=0
        )
        document = checked(
            Rollout(
                document=DocumentKind.ROLLOUT,
                version=version,
                issued_s=now_s(),
                expires_s=now_s() + valid,
                addressee=to,
                bundle=found.name,
                manifest=manifest,
                precedence=Precedence[precedence.upper()],
                stages=stages,
                stop_at_percent=_DEFAULT_STOP if stages and stop_at is None else stop_at,
                dark_after_s=dark_after,
                deadline_s=deadline,
                cost_milli_max=cost,
                currency=currency,
            )
        )
        if remove:
            note(f"{found.name} is taken away from {_title(to)}.")
        else:
            note(f"{found.name} {found.version} ({found.files} files, {size(found.size)}) for {_title(to)}:")
            costs = quoted(client, found, to)
            print_quote(costs)
            _check_cost(costs, accept_cost)
        for line in explain(document, None, lambda key: key.hex()[:8])[:-1]:
            note(line)
        confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
        if save is not None:
            write_private(save, cose.sign(signing, document.encode(), document_aad(document.kind)))
            say(f"{save}: give it to the next signer (digitruck trust sign {save.name} --key THEIRS), then trust push")
            return
        answer = client.create_rollout(sign_document(document, signing))
    say(f"Rollout {answer.digest}")
    say(f"Trucks hear of it with their next acknowledgement. Next: digitruck rollout show {answer.digest[:12]}")


def _checked_manifest(client: SyncClient, found: Bundle) -> bytes:
    """Return the digest of a bundle's manifest, after this machine has read and believed it."""
    detail = client.bundle(found.name, found.version, limit=1)
    if detail.missing_files:
        raise CommandError(
            f"{detail.missing_files} files of {found.name} {found.version} are not at the gateway yet: "
            "digitruck bundle push it again"
        )
    manifest = read_believed(client.document(found.manifest), Manifest, found.manifest)
    if (manifest.name, manifest.label) != (found.name, found.version):
        raise CommandError("the gateway names another manifest than it hands out: do not sign anything from it")
    return bytes.fromhex(found.manifest)


def checked(document: Rollout) -> Rollout:
    """Return a rollout that trucks would take; raise `CommandError` for another."""
    try:
        read_document(document.encode())
    except MalformedError as error:
        raise CommandError(f"no truck would accept this: {error}") from error
    return document


def _check_cost(items: list[TruckQuote], accepted: tuple[int, str] | None) -> None:
    """Say what it costs over each truck's cheapest link, and refuse more than was accepted."""
    costs: dict[str, int] = {}
    for each in items:
        known = [(milli, link.currency) for link in each.links if (milli := known_cost(link)) is not None]
        if known:
            milli, currency = min(known)
            costs[currency] = costs.get(currency, 0) + milli
    told = ", ".join(money(milli, currency) or "" for currency, milli in sorted(costs.items()))
    note(f"Over the cheapest link of each truck: {told or 'no price is known'}.")
    if accepted is None:
        return
    most, currency = accepted
    others = sorted(set(costs) - {currency})
    if others:
        raise CommandError(f"prices are in {', '.join(others)}, too: --accept-cost in {currency} cannot cover them")
    if costs.get(currency, 0) > most:
        raise CommandError(f"that is more than the accepted {money(most, currency)}: raise --accept-cost, or wait")


def _addressee(trucks: str | None, group: str | None) -> Addressee:
    if (trucks is None) == (group is None):
        raise click.UsageError("give either --trucks or --group")
    if trucks is None:
        return Addressee((), group)
    names = tuple(sorted({name.strip() for name in trucks.split(",") if name.strip()}))
    if not names:
        raise click.UsageError("--trucks names none")
    return Addressee(names)


def _title(to: Addressee) -> str:
    return f"group {to.group}" if to.group is not None else ", ".join(to.trucks)
