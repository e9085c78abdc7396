"""The commands of `digitruck trust` that change who may sign what: delegate, revoke, rotate, renew, resign.

Each makes the next version of a root or role table from the newest one here; nothing but `resign` talks to the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from gateway.answers import DocumentRow
from gateway.cli.output import CommandError, confirm, examples, json_option, note, print_json, say
from gateway.cli.session import gateway, keystore, load_key
from gateway.cli.settings import settings_of, to_toml
from gateway.cli.times import duration, now_s
from gateway.cli.trustsigning import current_root, explained, next_delegation, sign_new, trust_folder
from gateway.cli.truststeps import change_keys, parse_role, remove_keys, replaced
from gateway.keystore import KeyRole
from protocol.documents import (
    Config,
    Document,
    ExchangeKey,
    OperatorRole,
    PublisherRole,
    Rollout,
    Root,
    parse_document,
    sign_document,
)
from protocol.numbers import DocumentKind

_F = TypeVar("_F", bound=Callable[..., Any])
ROOT_VALID = "1825d"
DELEGATION_VALID = "730d"

key_option = click.option("--key", "keys", multiple=True, required=True, metavar="NAME", help="Your key; repeatable.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask before signing (for scripts).")


def valid_option(default: str) -> Callable[[_F], _F]:
    """Add `--valid`, a duration."""
    return click.option("--valid", type=duration, default=default, show_default=True, help="How long it is believed.")


@click.command(
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
@valid_option(DELEGATION_VALID)
@key_option
@yes_option
@json_option
def trust_delegate(
    operators: tuple[str, ...],
    publishers: tuple[str, ...],
    without_operator: tuple[str, ...],
    without_publisher: tuple[str, ...],
    valid: int,
    keys: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Say who may sign configuration and rollouts (operators) and bundles (publishers).

    GROUP is a group of trucks or `*`; PREFIX is how bundle names begin, or `*` for all. What is not named stays. Any
    one role that covers a truck is enough: two persons for a group mean nothing beside one operator of `*`.
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
    sign_new([document], keys, yes=yes, as_json=as_json)


@click.command(
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
@valid_option(DELEGATION_VALID)
@key_option
@yes_option
@json_option
def trust_revoke(
    trucks: tuple[str, ...],
    people: tuple[str, ...],
    allowed: tuple[str, ...],
    valid: int,
    keys: tuple[str, ...],
    yes: bool,
    as_json: bool,
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
    sign_new([document], keys, yes=yes, as_json=as_json)


@click.command(
    "rotate",
    epilog=examples(
        "digitruck trust rotate root --old juma --new juma-2027.pub --key asha --key wanjiru",
        "digitruck trust rotate root --old a --old b --old c --new d.pub --new e.pub --new f.pub --threshold 2 --key a",
        "digitruck trust rotate gateway --old HEX --new HEX --key asha        (digitruck-gateway key new freshness)",
        "digitruck trust rotate exchange --new 1:HEX --key asha               (digitruck-gateway key new exchange)",
        "digitruck trust rotate operator --old asha-ops --new asha-laptop.pub --key asha",
    ),
)
@click.argument("role", type=click.Choice(["root", "gateway", "exchange", "operator", "publisher"]))
@click.option("--old", "olds", multiple=True, metavar="KEY", help="A key that goes; repeatable.")
@click.option("--new", "news", multiple=True, metavar="KEY", help="A key that comes; N:HEX for exchange; repeatable.")
@click.option("--threshold", type=click.IntRange(1, 16), help="How many must sign from now on; unchanged if left out.")
@key_option
@yes_option
@json_option
def trust_rotate(
    role: str,
    olds: tuple[str, ...],
    news: tuple[str, ...],
    threshold: int | None,
    keys: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Put keys of a role in the place of others, or change how many there are and how many must sign.

    A root, gateway (freshness) or exchange (EDHOC) key makes a new root, signed by the old and the new threshold, and
    the role table again under it where the root keys change. An operator's or publisher's key makes a new role table;
    what only the old key signed and trucks have not applied yet waits then (see resign). Where nobody stole the old key
    nothing need wait: give both keys with `trust delegate` first, and rotate once all is applied.
    """
    if not (olds or news or threshold):
        raise click.UsageError("nothing to change: give --old, --new or --threshold")
    if role in ("operator", "publisher"):
        _rotate_delegated(role, olds, news, threshold, keys, yes=yes, as_json=as_json)
        return
    current = current_root()
    if role == "exchange":
        if olds or threshold is not None or not news:
            raise click.UsageError(
                "an exchange key is only ever replaced: give --new N:HEX, once for each key to believe"
            )
        exchange = tuple(sorted((_exchange_key(each) for each in news), key=lambda each: -each.number))
        root = _next_root(current, exchange=exchange)
    else:
        store = keystore()
        gone, come = {store.public(each).public for each in olds}, [store.public(each).public for each in news]
        changed = change_keys(getattr(current, role), gone, come, threshold)
        if changed == getattr(current, role):
            raise CommandError(f"that changes nothing: {', '.join(olds) or 'it'} is no {role} key or is there already")
        changes: dict[str, Any] = {role: changed}
        root = _next_root(current, **changes)
    documents: list[Document] = [root]
    if role == "root" and trust_folder().delegations():
        mine = {keystore().load(each).signing.public for each in keys}
        if mine & set(root.root.keys):
            # A truck that enrols under the new root believes only a delegation that the new root keys signed.
            documents.append(next_delegation(duration(DELEGATION_VALID)))
        else:
            note(
                "Its role table must be signed by the new keys: once it is complete, one of them: digitruck trust renew"
            )
    sign_new(documents, keys, yes=yes, as_json=as_json)


@click.command(
    "renew",
    epilog=examples(
        "digitruck trust renew --key asha                (the role table: valid anew, under the newest root)",
        "digitruck trust renew root --key asha --valid 1825d",
    ),
)
@click.argument("which", type=click.Choice(["delegation", "root"]), default="delegation")
@click.option("--valid", type=duration, help=f"How long it is believed; {DELEGATION_VALID}, a root {ROOT_VALID}.")
@key_option
@yes_option
@json_option
def trust_renew(which: str, valid: int | None, keys: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Sign the role table or the root again as it is, valid for longer: before it expires, or under a new root."""
    if which == "root":
        sign_new([_next_root(current_root(), valid_s=valid)], keys, yes=yes, as_json=as_json)
        return
    if not trust_folder().delegations():
        raise CommandError("there is no role table yet: digitruck trust delegate")
    sign_new([next_delegation(valid or duration(DELEGATION_VALID))], keys, yes=yes, as_json=as_json)


@click.command(
    "resign",
    epilog=examples(
        "digitruck trust resign --key asha-laptop", "digitruck trust resign --key asha-laptop --yes --json"
    ),
)
@click.option("--key", "keys", multiple=True, required=True, metavar="NAME", help="Your operator's key; repeatable.")
@yes_option
@json_option
def trust_resign(keys: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Sign again what only removed keys signed: configurations and rollouts that trucks wait for.

    Read each before you sign it: whoever stole the old key may have made it. Trucks keep what they have meanwhile.
    """
    signing = [load_key(name, KeyRole.OPERATOR) for name in keys]
    done: list[DocumentRow] = []
    tell = note if as_json else say
    with gateway() as client:
        for row in client.trust().to_sign_again:
            if row.kind == DocumentKind.MANIFEST.name.lower():
                note(f"bundle {row.name}, version {row.version}: its publisher pushes it again under a new version")
                continue
            signed = client.document(row.digest)
            old = parse_document(signed, Config if row.kind == DocumentKind.CONFIG.name.lower() else Rollout)[0]
            document = replaced(old, version=old.version + 1, issued_s=now_s())
            for line in explained(document):
                tell(line)
            if isinstance(document, Config):
                for line in to_toml(settings_of(document)).splitlines():
                    tell(f"  {line}")
            confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
            answer = client.put_document(sign_document(document, signing))
            tell(f"{row.kind} {row.name}, version {document.version}: the gateway has it ({answer.digest[:16]})")
            done.append(answer)
    if as_json:
        print_json(done)
    elif not done:
        note("there is nothing to sign again")


def _rotate_delegated(
    role: str,
    olds: tuple[str, ...],
    news: tuple[str, ...],
    threshold: int | None,
    keys: tuple[str, ...],
    *,
    yes: bool,
    as_json: bool,
) -> None:
    if not olds:
        raise click.UsageError(f"say which key goes with --old; to add one: digitruck trust delegate --{role}")
    store = keystore()
    gone, come = {store.public(each).public for each in olds}, [store.public(each).public for each in news]
    base = next_delegation(duration(DELEGATION_VALID))
    field = f"{role}s"
    roles = tuple(
        msgspec.structs.replace(each, role=change_keys(each.role, gone, come, threshold))
        if gone & set(each.role.keys)
        else each
        for each in getattr(base, field)
    )
    if roles == getattr(base, field):
        raise CommandError(f"{', '.join(olds)} is no {role}'s key: see digitruck trust show")
    sign_new([replaced(base, **{field: roles})], keys, yes=yes, as_json=as_json)


def _next_root(current: Root, *, valid_s: int | None = None, **changes: Any) -> Root:
    issued_s = now_s()
    expires_s = issued_s + (valid_s or duration(ROOT_VALID))
    return replaced(current, version=current.version + 1, issued_s=issued_s, expires_s=expires_s, **changes)


def _exchange_key(text: str) -> ExchangeKey:
    found = re.fullmatch(r"([0-9]{1,2}):([0-9a-fA-F]{64})", text)
    if found is None:
        raise CommandError(f"{text!r} is not N:HEX, as `digitruck-gateway key show` prints it")
    return ExchangeKey(int(found[1]), bytes.fromhex(found[2]))
