"""`digitruck config`: a truck's or a group's configuration, shown, compared, changed and signed here.

The base of a change is what the gateway says is newest, but only if this machine's trust documents believe it; the
difference is shown before anything is signed, and the signed bytes are all that leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from gateway.answers import DocumentRow
from gateway.cli.belief import read_believed, trusted_set
from gateway.cli.files import write_private
from gateway.cli.output import CommandError, confirm, examples, instant, json_option, note, print_json, print_table, say
from gateway.cli.session import gateway, load_key
from gateway.cli.settings import Settings, apply_pairs, differences, make_config, read_toml, settings_of, to_toml
from gateway.cli.times import duration, now_s
from gateway.client import ApiError, SyncClient
from gateway.keystore import KeyRole
from protocol import cose
from protocol.documents import Addressee, Config, document_aad, sign_document
from protocol.numbers import DocumentKind

_group_option = click.option("--group", help="The configuration of a group, instead of one TRUCK.")
_SETTING = "TOML file, or KEY=VALUE pairs"


@dataclass(frozen=True, slots=True)
class Found:
    """The newest configuration for an addressee: None if there is none. `version` is the newest of its own stream."""

    addressee: Addressee
    config: Config | None
    row: DocumentRow | None
    version: int


@click.group(
    epilog=examples(
        "digitruck config show ke-arrow",
        "digitruck config set ke-arrow links.sat.month_bytes_max=3000000 --key asha --confirm-within 1h",
        "digitruck config history ke-arrow",
    )
)
def config() -> None:
    """Configuration of trucks and groups, signed by an operator."""


@config.command(
    "show",
    epilog=examples(
        "digitruck config show ke-arrow",
        "digitruck config show ke-arrow > ke-arrow.toml",
        "digitruck config show --group kenya",
    ),
)
@click.argument("truck", required=False)
@_group_option
@json_option
def config_show(truck: str | None, group: str | None, as_json: bool) -> None:
    """Print the newest configuration as TOML, which `config set` takes back."""
    with gateway() as client:
        found = newest_config(client, addressee_of(truck, group))
        outcome = client.config(truck) if truck is not None and found.row is not None else None
    if as_json:
        print_json({"document": found.row, "settings": settings_of(found.config)})
        return
    if found.config is None or found.row is None:
        raise CommandError(f"no configuration was set for {title_of(found.addressee)}: digitruck config set")
    note(f"version {found.config.version} for {title_of(found.config.addressee)}, put {instant(found.row.received_ms)}")
    if outcome is not None:
        note(f"the truck says: {outcome.outcome or 'nothing yet'} {outcome.reason}".rstrip())
    say_lines(to_toml(settings_of(found.config)).splitlines())


@config.command(
    "diff",
    epilog=examples(
        "digitruck config diff ke-arrow                      (what the truck has yet to apply)",
        "digitruck config diff ke-arrow ke-arrow.toml",
        "digitruck config diff --group kenya batch_age_s=900",
    ),
)
@click.argument("arguments", nargs=-1, metavar="[TRUCK] [FILE | KEY=VALUE ...]")
@_group_option
@json_option
def config_diff(arguments: tuple[str, ...], group: str | None, as_json: bool) -> None:
    """Show what FILE or KEY=VALUE pairs would change; without them, what TRUCK has yet to apply."""
    truck, changes = _split(arguments, group)
    with gateway() as client:
        found = newest_config(client, addressee_of(truck, group))
        new = settings_of(found.config)
        if changes:
            old, new = new, _changed(new, changes)
        elif truck is not None:
            old = settings_of(_applied(client, truck))
        else:
            raise CommandError(f"nothing to compare with: give a {_SETTING}")
    lines = differences(old, new)
    if as_json:
        print_json({"old": old, "new": new, "differences": lines})
    elif lines:
        say_lines(lines)
    else:
        note("no difference")


@config.command(
    "set",
    epilog=examples(
        "digitruck config set ke-arrow links.sat.month_bytes_max=3000000 --key asha --confirm-within 1h",
        "digitruck config set ke-arrow ke-arrow.toml --key asha",
        "digitruck config set --group kenya collectors.host.period_s=60 extra.note= --key asha --yes",
        "digitruck config set ke-arrow batch_age_s=600 --key asha --save config.cose     (for a second signer)",
    ),
)
@click.argument("arguments", nargs=-1, metavar="[TRUCK] FILE | KEY=VALUE ...")
@_group_option
@click.option("--key", "keys", multiple=True, required=True, metavar="NAME", help="Your operator's key; repeatable.")
@click.option(
    "--confirm-within",
    type=duration,
    metavar="TIME",
    help="The truck undoes this unless it reaches the gateway within this time (60s to 7d) after applying it.",
)
@click.option("--valid", type=duration, default="365d", show_default=True, help="How long it is believed.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep it in a file for more signatures.")
@click.option("--yes", is_flag=True, help="Do not ask before signing (for scripts).")
def config_set(
    arguments: tuple[str, ...],
    group: str | None,
    keys: tuple[str, ...],
    confirm_within: int | None,
    valid: int,
    save: Path | None,
    yes: bool,
) -> None:
    """Change the configuration of TRUCK or a group: a FILE replaces all of it, KEY=VALUE pairs change a part.

    `KEY=` takes a setting away, so that the truck's local one holds. The confirm window is part of one change and not
    carried over to the next.
    """
    truck, changes = _split(arguments, group)
    if not changes:
        raise click.UsageError(f"nothing to set: give a {_SETTING}")
    signing = [load_key(name, KeyRole.OPERATOR) for name in keys]
    with gateway() as client:
        found = newest_config(client, addressee_of(truck, group))
        old = settings_of(found.config)
        old.pop("confirm_within_s", None)
        new = _changed(old, changes)
        if confirm_within is not None:
            new["confirm_within_s"] = confirm_within
        document = make_config(
            new,
            addressee=found.addressee,
            version=found.version + 1,
            issued_s=now_s(),
            expires_s=now_s() + valid,
        )
        lines = differences(old, new)
        if not lines:
            note("no difference: nothing to sign")
            return
        note(f"{title_of(found.addressee)}, version {document.version}:")
        if trusted_set() is None and found.config is not None:
            # What the base says was not checked, so all of it is shown, not only what changes.
            say_lines(to_toml(new).splitlines())
            say()
        say_lines(lines)
        confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
        if save is not None:
            write_private(save, cose.sign(signing, document.encode(), document_aad(document.kind)))
            say(f"{save}: give it to the next signer (digitruck trust sign {save.name} --key THEIRS), then trust push")
            return
        answer = client.put_document(sign_document(document, signing))
    say(f"Configuration {document.version} for {title_of(found.addressee)} is at the gateway ({answer.digest[:16]}).")
    say(
        "Trucks hear of it with their next acknowledgement. Next: digitruck config diff "
        + (truck or f"--group {group}")
    )


@config.command(
    "history",
    epilog=examples("digitruck config history ke-arrow", "digitruck config history --group kenya --json"),
)
@click.argument("truck", required=False)
@_group_option
@json_option
def config_history(truck: str | None, group: str | None, as_json: bool) -> None:
    """List the configurations that were set for TRUCK by name, or for a group, newest first."""
    with gateway() as client:
        rows = client.documents(kind="config", name=stream_name(addressee_of(truck, group)))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["version", "signed", "received", "by", "valid until", "digest"],
        [
            (
                each.version,
                instant(each.issued_s * 1000),
                instant(each.received_ms),
                each.put_by,
                instant(each.expires_s * 1000),
                each.digest[:16],
            )
            for each in rows
        ],
        empty="no configuration was set: digitruck config set",
    )


def say_lines(lines: Sequence[str]) -> None:
    """Print lines of a result."""
    for line in lines:
        say(line)


def newest_config(client: SyncClient, addressee: Addressee) -> Found:
    """Return the configuration that is in force for an addressee, believed by this machine's trust documents."""
    stream = client.documents(kind="config", name=stream_name(addressee))
    version = max((row.version for row in stream), default=0)
    row = max(stream, key=lambda each: each.version, default=None)
    if row is None and addressee.trucks:
        # What the truck has from its group is the base of its first configuration by name.
        try:
            row = client.config(addressee.trucks[0]).document
        except ApiError as error:
            if error.status != 404:
                raise
    if row is None:
        return Found(addressee, None, None, version)
    return Found(addressee, read_believed(client.document(row.digest), Config, row.digest), row, version)


def _applied(client: SyncClient, truck: str) -> Config | None:
    """Return the configuration that the truck's newest receipt says it applied."""
    for held in client.truck(truck).holdings:
        if held.document == DocumentKind.CONFIG.name.lower() and held.outcome == "applied":
            return read_believed(client.document(held.digest), Config, held.digest)
    return None


def _split(arguments: tuple[str, ...], group: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the truck and the changes in the arguments: with `--group` all of them are changes."""
    if group is not None:
        return None, arguments
    if not arguments or "=" in arguments[0]:
        raise click.UsageError("name a TRUCK or a --group")
    return arguments[0], arguments[1:]


def _changed(settings: Settings, changes: Sequence[str]) -> Settings:
    files = [each for each in changes if "=" not in each]
    if not files:
        return apply_pairs(settings, changes)
    if len(changes) > 1:
        raise click.UsageError("give either one TOML file or KEY=VALUE pairs")
    try:
        return read_toml(Path(files[0]).read_text())
    except FileNotFoundError:
        raise CommandError(f"{files[0]!r} is neither a file here nor KEY=VALUE") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{files[0]} is not text") from error


def addressee_of(truck: str | None, group: str | None) -> Addressee:
    """Return whom a command is about; raise `UsageError` unless it is exactly one of the two."""
    if (truck is None) == (group is None):
        raise click.UsageError("name either a TRUCK or a --group")
    return Addressee((truck,)) if truck is not None else Addressee((), group)


def stream_name(addressee: Addressee) -> str:
    """Return the name under which the versions of an addressee's configuration count (`protocol.trust`)."""
    return f"group:{addressee.group}" if addressee.group is not None else ",".join(sorted(addressee.trucks))


def title_of(addressee: Addressee) -> str:
    """Return whom a document is for, as people say it."""
    return f"group {addressee.group}" if addressee.group is not None else ", ".join(addressee.trucks)
