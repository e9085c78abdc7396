"""What a trust document changes, in plain sentences, before anybody signs it.

The sentences come from comparing the documents themselves, never from what the command was asked to do: a signer sees
what will be believed, also when somebody else made the file.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.cli.output import instant
from protocol.documents import Config, Delegation, Document, Manifest, RoleKeys, Rollout, Root

Named = Callable[[bytes], str]
"""Names a public key (32 bytes) for a person."""


def explain(document: Document, before: Document | None, named: Named) -> list[str]:
    """Return what a document says that `before` (the one in force, of the same kind) did not."""
    match document:
        case Root():
            lines = _root(document, before if isinstance(before, Root) else None, named)
        case Delegation():
            lines = _delegation(document, before if isinstance(before, Delegation) else None, named)
        case Config():
            lines = [f"Configuration for {_addressee(document)}: {len(document.links)} links, see `config diff`."]
        case Manifest():
            total = sum(file.size for file in document.files)
            lines = [f"Bundle {document.name} {document.label}: {len(document.files)} files, {total} bytes."]
        case Rollout():
            what = document.manifest.hex()[:16] if document.manifest else "nothing (it is taken away)"
            lines = [f"{_addressee(document)} should have of bundle {document.bundle}: {what}."]
            lines += _terms(document)
        case _:
            lines = [f"A {type(document).__name__.lower()}."]
    return [*lines, f"Valid until {instant(document.expires_s * 1000)}; this is version {document.version}."]


def role_text(role: RoleKeys, named: Named) -> str:
    """Return a role as text: `2 of asha, juma, wanjiru`."""
    return f"{role.threshold} of {', '.join(named(key) for key in role.keys)}"


def _root(new: Root, old: Root | None, named: Named) -> list[str]:
    if old is None and new.version > 1:
        return [
            f"Root {new.version - 1} is not here, so what this changes cannot be told: digitruck trust fetch first.",
            f"Changes of trust would need signatures of {role_text(new.root, named)}.",
            f"The gateway's freshness key would be {role_text(new.gateway, named)}.",
        ]
    if old is None:
        lines = [
            "This is the first root: every truck that enrols from now on pins it and believes nothing else.",
            f"Changes of trust will need signatures of {role_text(new.root, named)}.",
            f"The gateway's freshness key is {role_text(new.gateway, named)}; it can withhold news, never forge any.",
        ]
        if new.root.threshold < 2 or len(new.root.keys) <= new.root.threshold:
            lines.append("WARNING: 2 of 3 is the least that survives one stolen and one lost key.")
        return lines
    lines = _role_changes("Root", old.root, new.root, named)
    if new.root.keys != old.root.keys:
        lines.append("Trucks follow by themselves when they hear of it; a key that is gone can sign nothing new.")
    if len(new.root.keys) < 3 or new.root.threshold < 2 or len(new.root.keys) <= new.root.threshold:
        lines.append("WARNING: 2 of 3 is the least that survives one stolen and one lost key.")
    if new.exchange != old.exchange:
        lines += [f"EDHOC key {each.number} of the gateway is believed: {each.key.hex()}." for each in new.exchange]
        lines += [
            f"EDHOC key {each.number} is not believed any more." for each in old.exchange if each not in new.exchange
        ]
        if not old.exchange:
            lines.append(
                "The key that came with a truck's enrolment code is not believed any more, unless it is one of these."
            )
        lines.append(
            "Every truck makes new sessions, and forgets the time that the gateway told (recovery from a theft)."
        )
    if new.gateway != old.gateway:
        lines += _role_changes("Gateway freshness", old.gateway, new.gateway, named)
        lines.append("Every truck forgets how new the old keys' statements were, and the time (recovery from a theft).")
    return lines or ["Only validity and version change."]


def _delegation(new: Delegation, old: Delegation | None, named: Named) -> list[str]:
    operators = {each.group: each.role for each in old.operators} if old else {}
    publishers = {each.prefix: each.role for each in old.publishers} if old else {}
    lines: list[str] = []
    for each in new.operators:
        group = "all groups" if each.group == "*" else f"group {each.group}"
        lines += _grant(f"Configuration and rollouts for {group}", operators.pop(each.group, None), each.role, named)
    for group, role in operators.items():
        lines.append(f"Configuration and rollouts for group {group}: nobody any more (was {role_text(role, named)}).")
    for publisher in new.publishers:
        what = f"Bundles named {publisher.prefix}*" if publisher.prefix else "All bundles"
        lines += _grant(what, publishers.pop(publisher.prefix, None), publisher.role, named)
    for prefix, role in publishers.items():
        lines.append(f"Bundles named {prefix}*: nobody any more (was {role_text(role, named)}).")
    revoked_before = set(old.revoked) if old else set()
    for truck in new.revoked:
        if truck not in revoked_before:
            lines.append(
                f"Truck {truck} is revoked: within a minute of the gateway learning this nothing of it is taken."
            )
    lines += [f"Truck {truck} may enrol again." for truck in sorted(revoked_before - set(new.revoked))]
    return lines or ["Who may sign what stays as it is."]


def _grant(what: str, old: RoleKeys | None, new: RoleKeys, named: Named) -> list[str]:
    if old is None:
        return [f"{what}: signed by {role_text(new, named)} from now on."]
    if old == new:
        return []
    lines = [f"{what}: signed by {role_text(new, named)} from now on (was {role_text(old, named)})."]
    gone = [named(key) for key in old.keys if key not in new.keys]
    if gone:
        lines.append(f"What only {', '.join(gone)} signed is not believed any more: sign it again with another key.")
    return lines


def _role_changes(what: str, old: RoleKeys, new: RoleKeys, named: Named) -> list[str]:
    lines = [f"{what}: {named(key)} is added." for key in new.keys if key not in old.keys]
    lines += [f"{what}: {named(key)} is removed." for key in old.keys if key not in new.keys]
    if new.threshold != old.threshold:
        lines.append(f"{what}: {new.threshold} signatures are needed (was {old.threshold}).")
    return lines


def _terms(rollout: Rollout) -> list[str]:
    """Return how a rollout goes, as far as it does not simply go to all at once."""
    lines = []
    if rollout.stages:
        lines.append(f"Stages: {', '.join(f'{each} %' for each in (*rollout.stages, 100))} of the trucks.")
    if rollout.stop_at_percent is not None:
        lines.append(f"It halts when {rollout.stop_at_percent} % of those that can be reached failed.")
    if rollout.deadline_s is not None:
        lines.append(f"It gets more urgent, and may use dearer links, towards {instant(rollout.deadline_s * 1000)}.")
    if rollout.cost_milli_max is not None:
        lines.append(f"It halts when more than {rollout.cost_milli_max / 1000:.2f} {rollout.currency} were spent.")
    return lines


def _addressee(document: Config | Rollout) -> str:
    to = document.addressee
    return f"group {to.group}" if to.group is not None else f"truck {', '.join(to.trucks)}"
