"""`digitruck rollout` and `quote`: which trucks should have which bundle, what it costs, and how far each is."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.belief import read_believed
from gateway.cli.bundles import find_bundle
from gateway.cli.files import write_private
from gateway.cli.ledger import money
from gateway.cli.output import (
    CommandError,
    ago,
    confirm,
    examples,
    instant,
    json_option,
    note,
    print_json,
    print_table,
    say,
    size,
)
from gateway.cli.session import gateway, load_key
from gateway.cli.times import duration, now_ms, now_s
from gateway.client import SyncClient
from gateway.contentanswers import Bundle, LinkQuote, TruckQuote
from gateway.keystore import KeyRole
from protocol import cose
from protocol.documents import Addressee, Manifest, Rollout, document_aad, read_document, sign_document
from protocol.errors import MalformedError
from protocol.numbers import DocumentKind, Precedence

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
@json_option
def quote(bundle: str, trucks: str | None, group: str | None, as_json: bool) -> None:
    """Say what a bundle would cost each truck over each of its links. Changes nothing."""
    to = _addressee(trucks, group)
    with gateway() as client:
        found = find_bundle(client, bundle)
        quoted = _quoted(client, found, to)
    if as_json:
        print_json(quoted)
    else:
        _print_quote(quoted)


@click.group(
    epilog=examples(
        "digitruck rollout create maths@2026.11 --group kenya --key asha",
        "digitruck rollout list",
        "digitruck rollout show 3f0c",
    )
)
def rollout() -> None:
    """Which trucks should have which bundle version, signed by an operator."""


@rollout.command(
    "create",
    epilog=examples(
        "digitruck rollout create maths --trucks ke-arrow --key asha                (the newest version)",
        "digitruck rollout create maths@2026.11 --group kenya --key asha --yes",
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
    valid: int,
    save: Path | None,
    yes: bool,
) -> None:
    """Give trucks a version of a BUNDLE, the newest if none is named. The quote comes first."""
    to = _addressee(trucks, group)
    signing = [load_key(name, KeyRole.OPERATOR) for name in keys]
    with gateway() as client:
        found = find_bundle(client, bundle)
        manifest = None if remove else _checked_manifest(client, found)
        version = 1 + max(
            (row.version for row in client.documents(kind="rollout") if row.bundle == found.name), default=0
        )
        document = _make(
            Rollout(
                document=DocumentKind.ROLLOUT,
                version=version,
                issued_s=now_s(),
                expires_s=now_s() + valid,
                addressee=to,
                bundle=found.name,
                manifest=manifest,
                precedence=Precedence[precedence.upper()],
            )
        )
        if remove:
            note(f"{found.name} is taken away from {_title(to)}.")
        else:
            note(f"{found.name} {found.version} ({found.files} files, {size(found.size)}) for {_title(to)}:")
            _print_quote(_quoted(client, found, to))
        confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
        if save is not None:
            write_private(save, cose.sign(signing, document.encode(), document_aad(document.kind)))
            say(f"{save}: give it to the next signer (digitruck trust sign {save.name} --key THEIRS), then trust push")
            return
        answer = client.create_rollout(sign_document(document, signing))
    say(f"Rollout {answer.digest}")
    say(f"Trucks hear of it with their next acknowledgement. Next: digitruck rollout show {answer.digest[:12]}")


@rollout.command("list", epilog=examples("digitruck rollout list", "digitruck rollout list --json"))
@json_option
def rollout_list(as_json: bool) -> None:
    """List rollouts, newest first."""
    with gateway() as client:
        found = client.rollouts()
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "bundle", "version", "for", "precedence", "since", "by"],
        [
            (
                each.id[:12],
                each.bundle,
                "(taken away)" if each.manifest is None else each.version,
                f"group {each.document.group}" if each.document.group else each.document.trucks,
                each.precedence,
                instant(each.document.received_ms),
                each.document.put_by,
            )
            for each in found
        ],
        empty="no rollouts yet: digitruck rollout create BUNDLE --trucks T",
    )


@rollout.command("show", epilog=examples("digitruck rollout show 3f0c9a1b22d4", "digitruck rollout show 3f0c --json"))
@click.argument("identity", metavar="ID")
@json_option
def rollout_show(identity: str, as_json: bool) -> None:
    """Show how far each truck of a rollout is, by the trucks' own receipts. The beginning of ID is enough."""
    with gateway() as client:
        whole = identity if len(identity) == 64 else _whole_id(client, identity)
        found = client.rollout(whole)
        items, after = list(found.items), found.next
        while after is not None:
            page = client.rollout(whole, after=after)
            items, after = items + page.items, page.next
    if as_json:
        print_json({"id": found.id, "bundle": found.bundle, "version": found.version, "trucks": items})
        return
    note(f"{found.bundle} {found.version or '(taken away)'}, {found.precedence}")
    now = now_ms()
    print_table(
        ["truck", "state", "last heard", "receipt", "reason"],
        [(e.truck, e.state, ago(e.last_heard_ms, now), instant(e.receipt_ms), e.reason) for e in items],
        empty="no truck is meant by it yet",
    )


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


def _make(document: Rollout) -> Rollout:
    try:
        read_document(document.encode())
    except MalformedError as error:
        raise CommandError(f"no truck would accept this: {error}") from error
    return document


def _quoted(client: SyncClient, found: Bundle, to: Addressee) -> list[TruckQuote]:
    items: list[TruckQuote] = []
    after: str | None = None
    while True:
        page = client.quote(found.name, found.version, trucks=to.trucks, group=to.group, after=after)
        items += page.items
        after = page.next
        if after is None:
            return items


def _known(link: LinkQuote) -> int | None:
    """Return what a link would cost, None where bytes cost nothing only because no price is configured."""
    return None if link.money_milli == 0 < link.wire_bytes else link.money_milli


def _print_quote(quoted: list[TruckQuote]) -> None:
    rows: list[tuple[object, ...]] = []
    for each in quoted:
        start = (each.truck, each.files, size(each.file_bytes))
        rows += [
            (*start, link.link, size(link.wire_bytes), money(_known(link), link.currency), link.fits)
            for link in each.links
        ]
        if not each.links:
            rows.append((*start, None, None, None, None))
    print_table(
        ["truck", "files", "content", "link", "bytes on the link", "money", "fits this month"],
        rows,
        empty="no truck is meant by it yet",
    )


def _whole_id(client: SyncClient, beginning: str) -> str:
    found = [each.id for each in client.rollouts() if each.id.startswith(beginning.lower())]
    if len(found) != 1:
        raise CommandError(f"{len(found)} rollouts begin with {beginning!r}: see digitruck rollout list")
    return found[0]


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
