"""`digitruck budget set` and `history`: tariffs and budgets as an operator writes, signs and looks back at them.

They are part of a truck's or a group's configuration; everything else in it stays as it is. The difference to what is
in force and what it means are shown before anything is signed, and the signed bytes are all that leaves.
"""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.belief import read_believed
from gateway.cli.configs import Found, addressee_of, newest_config, say_lines, stream_name, title_of
from gateway.cli.files import write_private
from gateway.cli.output import CommandError, confirm, examples, instant, json_option, note, print_json, print_table, say
from gateway.cli.session import gateway, load_key
from gateway.cli.settings import Settings, apply_pairs, differences, make_config, read_toml, settings_of
from gateway.cli.spending import explained, spending_of, with_spending
from gateway.cli.times import duration, now_s
from gateway.client import SyncClient
from gateway.keystore import KeyRole
from protocol import cose
from protocol.documents import Config, document_aad, sign_document
from protocol.numbers import DocumentKind

_group_option = click.option("--group", help="All trucks of a group, instead of one TRUCK.")
key_option = click.option("--key", "keys", multiple=True, metavar="NAME", help="Your operator's key; repeatable.")
valid_option = click.option(
    "--valid", type=duration, default="365d", show_default=True, help="How long it is believed."
)
save_option = click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep it in a file for more signatures."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask before signing (for scripts).")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would change; sign and send nothing.")


@click.command(
    "set",
    epilog=examples(
        "digitruck budget set ke-arrow tariffs.sat.price_per_mb=5.50 budgets.sat.bytes_max=3MB --key asha",
        "digitruck budget set --group kenya --file tariffs.toml --key asha --dry-run",
        "digitruck budget set ke-arrow budgets.sat.money_max=20 budgets.sat.shares=20/50/10 --key asha --yes",
        "digitruck budget set ke-arrow budgets.lte= --key asha                  (takes that budget away)",
        "digitruck budget show ke-arrow --toml > tariffs.toml                   (a file to begin from)",
    ),
)
@click.argument("arguments", nargs=-1, metavar="[TRUCK] [KEY=VALUE ...]")
@_group_option
@click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="TOML with [tariffs.LINK], [budgets.LINK], [pools.LINK], [power], [timetable]: replaces them all.",
)
@key_option
@valid_option
@save_option
@dry_run_option
@yes_option
def budget_set(
    arguments: tuple[str, ...],
    group: str | None,
    file: Path | None,
    keys: tuple[str, ...],
    valid: int,
    save: Path | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Say what links cost and how much of it TRUCK or a group may spend. A part of the signed configuration.

    Bytes are a number or 30MB, money is 5 or 5.50 in the tariff's currency, windows are `mon-fri 22:00-06:00`.
    `KEY=` takes a setting or a whole table away.
    """
    truck = None if group is not None or not arguments or "=" in arguments[0] else arguments[0]
    pairs = arguments if truck is None else arguments[1:]
    to = addressee_of(truck, group)
    if bool(pairs) == (file is not None):
        raise click.UsageError("give either KEY=VALUE pairs or a --file")
    with gateway() as client:
        found = newest_config(client, to)
        old = spending_of(settings_of(found.config))
        if file is not None:
            try:
                new = read_toml(file.read_text())
            except UnicodeDecodeError as error:
                raise CommandError(f"{file} is not text") from error
        else:
            new = apply_pairs(old, pairs)
        put_spending(client, found, new, keys=keys, valid=valid, save=save, dry_run=dry_run, yes=yes)


def put_spending(
    client: SyncClient,
    found: Found,
    new: Settings,
    *,
    keys: tuple[str, ...],
    valid: int,
    save: Path | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Show what changes against the configuration in force and what it means, then sign and put it."""
    settings = settings_of(found.config)
    # The confirm window is part of one change and not carried over to the next.
    settings.pop("confirm_within_s", None)
    changed = with_spending(settings, new)
    issued_s = now_s()
    document = make_config(
        changed,
        addressee=found.addressee,
        version=found.version + 1,
        issued_s=issued_s,
        expires_s=issued_s + valid,
    )
    # As it comes out again: what is said in other words is no difference.
    lines = differences(settings, settings_of(document))
    if not lines:
        note("no difference: nothing to sign")
        return
    note(f"{title_of(found.addressee)}, version {document.version}, {len(document.encode())} bytes for each truck:")
    say_lines(lines)
    say()
    say_lines(explained(document))
    if dry_run:
        note("a dry run: nothing was signed and nothing was sent")
        return
    if not keys:
        raise click.UsageError("give your operator's key: --key NAME")
    signing = [load_key(name, KeyRole.OPERATOR) for name in keys]
    confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
    if save is not None:
        write_private(save, cose.sign(signing, document.encode(), document_aad(document.kind)))
        say(f"{save}: give it to the next signer (digitruck trust sign {save.name} --key THEIRS), then trust push")
        return
    answer = client.put_document(sign_document(document, signing))
    say(f"Version {document.version} for {title_of(found.addressee)} is at the gateway ({answer.digest[:16]}).")
    to = found.addressee
    name = f"--group {to.group}" if to.group is not None else to.trucks[0]
    say(f"Trucks hear of it with their next acknowledgement. Next: digitruck budget show {name}")


@click.command(
    "history",
    epilog=examples("digitruck budget history ke-arrow", "digitruck budget history --group kenya --json"),
)
@click.argument("truck", required=False)
@_group_option
@json_option
def budget_history(truck: str | None, group: str | None, as_json: bool) -> None:
    """Show how tariffs and budgets of TRUCK or a group changed, newest first: when, by whom, and what."""
    with gateway() as client:
        rows = client.documents(kind=DocumentKind.CONFIG.name.lower(), name=stream_name(addressee_of(truck, group)))
        found = []
        before: Settings = {}
        for row in sorted(rows, key=lambda each: each.version):
            config = read_believed(client.document(row.digest), Config, row.digest)
            after = spending_of(settings_of(config))
            changes = differences(before, after)
            if changes:
                found.append((row, changes))
            before = after
    found.reverse()
    if as_json:
        print_json([{"document": row, "changes": changes} for row, changes in found])
        return
    print_table(
        ["version", "received", "by", "change"],
        [
            (row.version if not at else None, instant(row.received_ms) if not at else "", row.put_by, line)
            for row, changes in found
            for at, line in enumerate(changes)
        ],
        empty="no tariffs or budgets were set: digitruck budget set",
    )
