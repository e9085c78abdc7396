"""`digitruck trust`: who may sign what, from files on an operator's machine, explained before each signature.

Every step makes a document (`root-2.cose`, `delegation-5.cose`) in the trust folder, tells what it changes, and signs
it with the keys at hand. Other holders add theirs with `trust sign`, in other sittings and on other machines; `trust
push` sends what is complete. The gateway cannot make any of these: it only carries them.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gateway.answers import Trust
from gateway.cli.output import (
    CommandError,
    confirm,
    examples,
    instant,
    json_option,
    note,
    print_fields,
    print_json,
    print_table,
    say,
)
from gateway.cli.session import gateway, keystore
from gateway.cli.times import now_s
from gateway.cli.trustchanges import (
    ROOT_VALID,
    key_option,
    trust_delegate,
    trust_renew,
    trust_resign,
    trust_revoke,
    trust_rotate,
    valid_option,
    yes_option,
)
from gateway.cli.trustfiles import SignedFile, is_complete, merge, open_signed
from gateway.cli.trustsigning import (
    Shown,
    explained,
    find_document,
    sign_more,
    sign_new,
    standing_text,
    standings_of,
    trust_folder,
)
from protocol import cose
from protocol.documents import Delegation, RoleKeys, Root
from protocol.numbers import DocumentKind
from protocol.trust import TrustedSet


class TrustStatus(msgspec.Struct, frozen=True):
    """`digitruck trust status --json`: what the gateway says, and the newest versions here."""

    gateway: Trust
    root_here: int | None
    delegation_here: int | None
    warnings: list[str]
    trucks_behind: list[str]


@click.group(
    epilog=examples(
        "digitruck trust init --root asha --root juma.pub --root wanjiru.pub --gateway gateway.pub --key asha",
        "digitruck trust sign root-1.cose --key juma",
        "digitruck trust delegate --operator kenya=asha-ops --publisher maths-=library --key asha",
        "digitruck trust push",
    )
)
def trust() -> None:
    """Who may sign what: root, operators, publishers, revocations."""


@trust.command(
    "init",
    epilog=examples(
        "digitruck trust init --root asha --root juma.pub --root wanjiru.pub --gateway gateway.pub --key asha",
        "digitruck trust init --root asha --root juma.pub --root w.pub --threshold 2 --gateway HEX --key asha --yes",
    ),
)
@click.option(
    "--root", "roots", multiple=True, required=True, metavar="KEY", help="A root key: name, .pub file or hex."
)
@click.option("--threshold", type=click.IntRange(1, 16), help="Signatures needed; 2 unless there is only one key.")
@click.option(
    "--gateway", "freshness", metavar="KEY", help="The gateway's freshness key; asked from the gateway when left out."
)
@valid_option(ROOT_VALID)
@key_option
@yes_option
@json_option
def trust_init(
    roots: tuple[str, ...],
    threshold: int | None,
    freshness: str | None,
    valid: int,
    keys: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Make the first root: the anchor that every truck pins when it enrols."""
    folder = trust_folder()
    if folder.roots():
        raise CommandError(f"{folder.folder} holds a root already: change it with digitruck trust rotate")
    store = keystore()
    publics = tuple(dict.fromkeys(store.public(each).public for each in roots))
    needed = threshold or min(2, len(publics))
    if needed > len(publics):
        raise CommandError(f"{needed} signatures of {len(publics)} keys can never come together: name more with --root")
    if freshness is None:
        with gateway() as client:
            freshness = client.trust().freshness_key
        note("The gateway's key was asked over the network: compare it with what `digitruck-gateway check` prints.")
    document = Root(
        document=DocumentKind.ROOT,
        version=1,
        issued_s=now_s(),
        expires_s=now_s() + valid,
        root=RoleKeys(needed, publics),
        gateway=RoleKeys(1, (store.public(freshness).public,)),
    )
    sign_new([document], keys, yes=yes, as_json=as_json)


@trust.command(
    "show",
    epilog=examples(
        "digitruck trust show",
        "digitruck trust show delegation-2.cose",
        "digitruck trust show --json",
    ),
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@json_option
def trust_show(file: Path | None, as_json: bool) -> None:
    """List the trust documents here, or explain one FILE: what it changes and who has signed."""
    folder = trust_folder()
    files = [find_document(file)] if file is not None else [*folder.roots(), *folder.delegations()]
    if as_json:
        print_json([Shown.of(each) for each in files])
    elif file is not None:
        for line in explained(files[0].document):
            say(line)
        say(standing_text(files[0]))
    else:
        print_table(
            ["file", "version", "valid until", "signatures"],
            [(f.path.name, f.document.version, instant(f.document.expires_s * 1000), standing_text(f)) for f in files],
            empty="no trust documents here yet: digitruck trust init",
        )


@trust.command(
    "sign",
    epilog=examples(
        "digitruck trust sign root-1.cose --key juma",
        "digitruck trust sign stick/config-7.cose --key asha-ops --yes",
    ),
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@key_option
@yes_option
@json_option
def trust_sign(file: Path, keys: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Add your signature to FILE, a document that somebody else made, after reading what it changes."""
    sign_more(find_document(file), keys, yes=yes, as_json=as_json)


@trust.command("status", epilog=examples("digitruck trust status", "digitruck trust status --json"))
@json_option
def trust_status(as_json: bool) -> None:
    """Say what the gateway has, what is wrong there and what to do, and which trucks are not up to date yet."""
    with gateway() as client:
        found = client.trust()
        behind = [each.truck for each in client.trucks() if each.revoked_ms is None and each.up_to_date is False]
    folder = trust_folder()
    here = {file.document.kind: file.document.version for file in [*folder.roots(), *folder.delegations()]}
    rows = [(DocumentKind.ROOT, found.root), (DocumentKind.DELEGATION, found.delegation)]
    warnings = list(found.warnings)
    for kind, row in rows:
        version = 0 if row is None else row.version
        if version < here.get(kind, 0):
            warnings.append(f"{kind.name.lower()} {here[kind]} is here and not at the gateway: digitruck trust push")
        elif version > here.get(kind, 0):
            warnings.append(f"{kind.name.lower()} {version} of the gateway is not here: digitruck trust fetch")
    if found.to_sign_again:
        warnings.append(f"{len(found.to_sign_again)} documents wait for new signatures: digitruck trust resign")
    if as_json:
        print_json(TrustStatus(found, here.get(DocumentKind.ROOT), here.get(DocumentKind.DELEGATION), warnings, behind))
        return
    print_fields(
        [
            *(
                (kind.name.lower(), "none" if row is None else f"{row.version}, until {instant(row.expires_s * 1000)}")
                for kind, row in rows
            ),
            *((f"{key.kind} key {key.number}", key.public) for key in found.keys),
            ("trucks behind", ", ".join(behind) or "none"),
        ]
    )
    for warning in warnings:
        say(f"! {warning}")


@trust.command(
    "fetch",
    epilog=examples(
        "digitruck trust fetch",
        "digitruck trust fetch --root 9c1f...e2        (the digest that a root key holder read to you)",
    ),
)
@click.option("--root", "digest", metavar="DIGEST", help="The digest of the first root, from somebody you trust.")
@yes_option
@json_option
def trust_fetch(digest: str | None, yes: bool, as_json: bool) -> None:
    """Get the gateway's roots and newest delegation, and believe those that follow from what is here.

    With an empty trust folder the first root is taken on its digest: compare it with a root key holder.
    """
    folder = trust_folder()
    with gateway() as client:
        rows = sorted(client.documents(kind="root"), key=lambda each: each.version)
        newest = client.trust().delegation
        fetched = [client.document(row.digest) for row in [*rows, *([newest] if newest is not None else [])]]
    if not fetched:
        raise CommandError("the gateway has no root yet: digitruck trust init, then trust push")
    files = [open_signed(folder.folder / "fetched", each) for each in fetched]
    roots, delegations = [f for f in files if isinstance(f.document, Root)], files[len(rows) :]
    own = folder.roots()
    anchor = own[0] if own else roots[0]
    name = cose.digest(anchor.signed).hex()
    if not own:
        if digest is not None and digest.lower() != name:
            raise CommandError(f"the gateway's first root is {name}, not the one you named: trust nothing from it")
        say(f"The first root is {name}.")
        confirm("Has a root key holder told you this digest?", yes=yes or digest is not None)
    trusted = TrustedSet(anchor.signed)
    for file in roots:
        if file.document.version > trusted.root.version:
            trusted.update_root(file.signed)
    for file in delegations:
        trusted.accept_delegation(file.signed, 0)
    followers = [file for file in roots if file.document.version > anchor.document.version]
    saved = [folder.save(file) for file in [*([] if own else [anchor]), *followers, *delegations]]
    if as_json:
        print_json([Shown.of(each) for each in saved])
        return
    for file in saved:
        say(f"{file.path}: believed")


@trust.command(
    "push",
    epilog=examples(
        "digitruck trust push",
        "digitruck trust push root-2.cose",
        "digitruck trust push asha/root-2.cose juma/root-2.cose      (copies that were signed apart)",
    ),
)
@click.argument("files", type=click.Path(dir_okay=False, path_type=Path), nargs=-1)
@json_option
def trust_push(files: tuple[Path, ...], as_json: bool) -> None:
    """Send complete documents to the gateway, which passes them on to every truck.

    Without FILES: every root of the trust folder in order, and the newest delegation.
    """
    folder = trust_folder()
    chosen = [find_document(each) for each in files] if files else [*folder.roots(), *folder.delegations()[-1:]]
    merged: dict[bytes, SignedFile] = {}
    for file in chosen:
        payload = file.parts.payload
        merged[payload] = merge(merged[payload], file) if payload in merged else file
    if not merged:
        raise CommandError("there is nothing to send yet: digitruck trust init")
    ordered = sorted(merged.values(), key=lambda file: (file.document.kind, file.document.version))
    for file in ordered:
        found = standings_of(file)
        if found and not is_complete(file.document, found):
            raise CommandError(
                f"{file.path.name} is not complete ({standing_text(file)}): digitruck trust sign it first"
            )
    pushed = []
    with gateway() as client:
        for file in ordered:
            answer = client.put_document(file.signed)
            pushed.append(answer)
            if isinstance(file.document, Root | Delegation):
                folder.save(file)
            if not as_json:
                say(f"{file.path.name}: the gateway has it ({answer.digest[:16]})")
        state = client.trust()
    if as_json:
        print_json(pushed)
    for warning in state.warnings:
        note(f"! {warning}")
    if state.to_sign_again:
        note(f"{len(state.to_sign_again)} documents that only removed keys signed wait: digitruck trust resign")


for command in (trust_delegate, trust_revoke, trust_rotate, trust_renew, trust_resign):
    trust.add_command(command)
