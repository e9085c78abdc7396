"""The steps that change a root or a delegation, as pure functions from one document to the next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from gateway.cli.output import CommandError
from gateway.keystore import Keystore
from protocol.documents import Delegation, Document, RoleKeys, read_document
from protocol.errors import MalformedError

_D = TypeVar("_D", bound=Document)


def replaced(document: _D, **changes: Any) -> _D:
    """Return a document with fields changed, checked as every truck will check it; raise `CommandError`."""
    changed = msgspec.structs.replace(document, **changes)
    try:
        read_document(changed.encode())
    except (MalformedError, ValueError) as error:
        raise CommandError(f"no truck would accept this: {error}") from error
    return changed


def parse_role(text: str, store: Keystore) -> tuple[str, RoleKeys]:
    """Return the scope and the role in `SCOPE=KEY[,KEY...][:N]`; raise `CommandError`."""
    scope, equals, rest = text.partition("=")
    names, colon, text_after = rest.partition(":")
    count = text_after if colon else "1"
    if not equals or not names or not re.fullmatch("[0-9]{1,2}", count):
        raise CommandError(f"{text!r} is not SCOPE=KEY[,KEY][:N], e.g. kenya=asha-ops,juma-ops:2")
    keys = tuple(dict.fromkeys(store.public(name).public for name in names.split(",")))
    if not 1 <= int(count) <= len(keys):
        raise CommandError(f"{text!r} asks for {count} signatures of {len(keys)} keys: that can never come together")
    return scope, RoleKeys(int(count), keys)


def change_keys(role: RoleKeys, gone: set[bytes], come: Sequence[bytes], threshold: int | None) -> RoleKeys:
    """Return a role without some keys and with others, and another threshold if one is given; raise `CommandError`."""
    strange = gone - set(role.keys)
    if strange:
        raise CommandError(f"key {min(strange).hex()[:16]} is not one of that role: see digitruck trust show")
    keys = tuple(dict.fromkeys([*(key for key in role.keys if key not in gone), *come]))
    needed = threshold or role.threshold
    if needed > len(keys):
        raise CommandError(
            f"{needed} signatures of {len(keys)} keys can never come together: name more with --new, or a --threshold"
        )
    return RoleKeys(needed, keys)


def remove_keys(delegation: Delegation, gone: Sequence[bytes]) -> Delegation:
    """Return a delegation without some keys; a role that has none left is taken away; raise `CommandError`."""
    roles = [each.role for each in delegation.operators] + [each.role for each in delegation.publishers]
    held = {key for role in roles for key in role.keys}
    for key in gone:
        if key not in held:
            raise CommandError(
                f"key {key.hex()[:16]} is no operator's or publisher's: a root key is changed with trust rotate"
            )
    return msgspec.structs.replace(
        delegation,
        operators=_without(delegation.operators, gone),
        publishers=_without(delegation.publishers, gone),
    )


def _without(roles: tuple[Any, ...], gone: Sequence[bytes]) -> tuple[Any, ...]:
    kept = []
    for each in roles:
        keys = tuple(key for key in each.role.keys if key not in gone)
        if keys and len(keys) < each.role.threshold:
            raise CommandError(
                f"{each.role.threshold} signatures of {len(keys)} keys would be left: trust delegate it anew first"
            )
        if keys:
            kept.append(msgspec.structs.replace(each, role=RoleKeys(each.role.threshold, keys)))
    return tuple(kept)
