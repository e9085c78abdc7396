"""`digitruck trust`: who may sign what, from files on an operator's machine, explained before each signature.

Every step makes a document (`root-2.cose`, `delegation-5.cose`) in the trust folder, tells what it changes, and signs
it with the keys at hand. Other holders add theirs with `trust sign`, in other sittings and on other machines; `trust
push` sends what is complete. The gateway cannot make any of these: it only carries them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from gateway.cli.output import CommandError, confirm, examples, instant, json_option, note, print_json, print_table, say
from gateway.cli.session import gateway, keystore
from gateway.cli.times import duration, now_s
from gateway.cli.trustfiles import SignedFile, is_complete, merge, open_signed
from gateway.cli.trustsigning import (
    current_root,
    explained,
    find_document,
    next_delegation,
    sign_more,
    sign_new,
    standing_text,
    standings_of,
    trust_folder,
)
from gateway.cli.truststeps import parse_role, remove_keys, replace_key, replaced
from protocol import cose
from protocol.documents import Delegation, Document, OperatorRole, PublisherRole, RoleKeys, Root
from protocol.numbers import DocumentKind
from protocol.trust import TrustedSet

_F = TypeVar("_F", bound=Callable[..., Any])
_ROOT_VALID = "1825d"
_DELEGATION_VALID = "730d"

_key_option = click.option("--key", "keys", multiple=True, required=True, metavar="NAME", help="Your key; repeatable.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask before signing (for scripts).")


def _valid_option(default: str) -> Callable[[_F], _F]:
    return click.option("--valid", type=duration, default=default, show_default=True, help="How long it is believed.")


class Shown(msgspec.Struct, frozen=True):
    """One document in `digitruck trust show --json`."""

    file: str
    document: str
    version: int
    expires_s: int
    complete: bool
    signed: dict[str, str]


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
@_valid_option(_ROOT_VALID)
@_key_option
@_yes_option
def trust_init(
    roots: tuple[str, ...], threshold: int | None, freshness: str | None, valid: int, keys: tuple[str, ...], yes: bool
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
    sign_new([document], keys, yes=yes)


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
        print_json([_shown(each) for each in files])
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
    "delegate",
    epilog=examples(
        "digitruck trust delegate --operator kenya=asha-ops --publisher maths-=library --key asha",
        "digitruck trust delegate --operator '*=asha-ops,juma-ops:2' --key asha       (two persons for each change)",
        "digitruck trust delegate --publisher '*=library' --without-operator kenya --key asha",
    ),
)
@click.option("--operator", "operators", multiple=True, metavar="GROUP=KEY[,KEY][:N]", help="Give a group operators.")
@click.option(
    "--publisher", "publishers", multiple=True, metavar="PREFIX=KEY[,KEY][:N]", help="Give names a publisher."
)
@click.option("--without-operator", multiple=True, metavar="GROUP", help="Take a group's operators away.")
@click.option("--without-publisher", multiple=True, metavar="PREFIX", help="Take a prefix's publishers away.")
@_valid_option(_DELEGATION_VALID)
@_key_option
@_yes_option
def trust_delegate(
    operators: tuple[str, ...],
    publishers: tuple[str, ...],
    without_operator: tuple[str, ...],
    without_publisher: tuple[str, ...],
    valid: int,
    keys: tuple[str, ...],
    yes: bool,
) -> None:
    """Say who may sign configuration and rollouts (operators) and bundles (publishers).

    GROUP is a group of trucks or `*`; PREFIX is how bundle names begin, or `*` for all. What is not named stays.
    """
    if not (operators or publishers or without_operator or without_publisher):
        raise click.UsageError("nothing to change: give --operator, --publisher or a --without option")
    store = keystore()
    base = next_delegation(valid)
    by_group = {each.group: each for each in base.operators}
    by_prefix = {each.prefix: each for each in base.publishers}
    for text in operators:
        group, role = parse_role(text, store)
        by_group[group] = OperatorRole(group, role)
    for text in publishers:
        prefix, role = parse_role(text, store)
        prefix = "" if prefix == "*" else prefix
        by_prefix[prefix] = PublisherRole(prefix, role)
    for group in without_operator:
        if by_group.pop(group, None) is None:
            raise CommandError(f"group {group} has no operators to take away: see digitruck trust show")
    for prefix in without_publisher:
        if by_prefix.pop("" if prefix == "*" else prefix, None) is None:
            raise CommandError(f"prefix {prefix} has no publishers to take away: see digitruck trust show")
    document = replaced(
        base,
        operators=tuple(by_group[group] for group in sorted(by_group)),
        publishers=tuple(by_prefix[prefix] for prefix in sorted(by_prefix)),
    )
    sign_new([document], keys, yes=yes)


@trust.command(
    "revoke",
    epilog=examples(
        "digitruck trust revoke --truck ke-arrow --key asha",
        "digitruck trust revoke --person juma-ops --key asha",
        "digitruck trust revoke --allow ke-arrow --key asha        (the truck may enrol again)",
    ),
)
@click.option("--truck", "trucks", multiple=True, metavar="TRUCK", help="A truck that is stolen or scrapped.")
@click.option("--person", "people", multiple=True, metavar="KEY", help="An operator's or publisher's key.")
@click.option("--allow", "allowed", multiple=True, metavar="TRUCK", help="Undo the revocation of a truck.")
@_valid_option(_DELEGATION_VALID)
@_key_option
@_yes_option
def trust_revoke(
    trucks: tuple[str, ...],
    people: tuple[str, ...],
    allowed: tuple[str, ...],
    valid: int,
    keys: tuple[str, ...],
    yes: bool,
) -> None:
    """Revoke trucks, or the keys of operators and publishers, by a signed document that survives any restore.

    `digitruck revoke TRUCK` shuts a truck out at once by the gateway's own list; this makes it binding everywhere.
    """
    if not (trucks or people or allowed):
        raise click.UsageError("nothing to revoke: give --truck, --person or --allow")
    base = next_delegation(valid)
    document = remove_keys(base, [keystore().public(each).public for each in people])
    unknown = set(allowed) - set(base.revoked)
    if unknown:
        raise CommandError(f"{', '.join(sorted(unknown))} is not revoked: see digitruck trust show")
    document = replaced(document, revoked=tuple(sorted((set(base.revoked) | set(trucks)) - set(allowed))))
    sign_new([document], keys, yes=yes)


@trust.command(
    "rotate",
    epilog=examples(
        "digitruck trust rotate root --old juma --new juma-2027.pub --key asha --key wanjiru",
        "digitruck trust rotate gateway --old gateway.pub --new gateway-2027.pub --key asha",
        "digitruck trust rotate operator --old asha-ops --new asha-laptop.pub --key asha",
    ),
)
@click.argument("role", type=click.Choice(["root", "gateway", "operator", "publisher"]))
@click.option("--old", required=True, metavar="KEY", help="The key that goes.")
@click.option("--new", required=True, metavar="KEY", help="The key that takes its place.")
@_key_option
@_yes_option
def trust_rotate(role: str, old: str, new: str, keys: tuple[str, ...], yes: bool) -> None:
    """Put one key in the place of another.

    A root or gateway key makes a new root, signed by the old and the new threshold, and the delegation again under
    it; an operator's or publisher's key makes a new delegation. Nothing in flight is lost.
    """
    store = keystore()
    gone, come = store.public(old).public, store.public(new).public
    if role in ("operator", "publisher"):
        base = next_delegation(duration(_DELEGATION_VALID))
        field = "operators" if role == "operator" else "publishers"
        roles = tuple(
            msgspec.structs.replace(each, role=replace_key(each.role, gone, come)) for each in getattr(base, field)
        )
        if roles == getattr(base, field):
            raise CommandError(f"{old} is no {role}'s key: see digitruck trust show")
        sign_new([replaced(base, **{field: roles})], keys, yes=yes)
        return
    current = current_root()
    changed = replace_key(getattr(current, role), gone, come)
    if changed == getattr(current, role):
        raise CommandError(f"{old} is not a {role} key: see digitruck trust show")
    valid = duration(_ROOT_VALID)
    root = replaced(
        current, version=current.version + 1, issued_s=now_s(), expires_s=now_s() + valid, **{role: changed}
    )
    documents: list[Document] = [root]
    if role == "root" and trust_folder().delegations():
        # A truck that enrols under the new root believes only a delegation that the new root keys signed.
        documents.append(next_delegation(duration(_DELEGATION_VALID)))
    sign_new(documents, keys, yes=yes)


@trust.command(
    "sign",
    epilog=examples(
        "digitruck trust sign root-1.cose --key juma",
        "digitruck trust sign stick/config-7.cose --key asha-ops --yes",
    ),
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_key_option
@_yes_option
def trust_sign(file: Path, keys: tuple[str, ...], yes: bool) -> None:
    """Add your signature to FILE, a document that somebody else made, after reading what it changes."""
    sign_more(find_document(file), keys, yes=yes)


@trust.command(
    "fetch",
    epilog=examples(
        "digitruck trust fetch",
        "digitruck trust fetch --root 9c1f...e2        (the digest that a root key holder read to you)",
    ),
)
@click.option("--root", "digest", metavar="DIGEST", help="The digest of the first root, from somebody you trust.")
@_yes_option
def trust_fetch(digest: str | None, yes: bool) -> None:
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
    for file in ([] if own else [anchor]) + [f for f in roots if f.document.version > 1] + delegations:
        say(f"{folder.save(file).path}: believed")


@trust.command(
    "push",
    epilog=examples(
        "digitruck trust push",
        "digitruck trust push root-2.cose",
        "digitruck trust push asha/root-2.cose juma/root-2.cose      (copies that were signed apart)",
    ),
)
@click.argument("files", type=click.Path(dir_okay=False, path_type=Path), nargs=-1)
def trust_push(files: tuple[Path, ...]) -> None:
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
    with gateway() as client:
        for file in ordered:
            answer = client.put_document(file.signed)
            if isinstance(file.document, Root | Delegation):
                folder.save(file)
            say(f"{file.path.name}: the gateway has it ({answer.digest[:16]})")


def _shown(file: SignedFile) -> Shown:
    found = standings_of(file)
    return Shown(
        file=str(file.path),
        document=file.document.kind.name.lower(),
        version=file.document.version,
        expires_s=file.document.expires_s,
        complete=is_complete(file.document, found),
        signed={each.wanted_of: f"{len(each.signers)}/{each.role.threshold}" for each in found},
    )
