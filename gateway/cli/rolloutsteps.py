"""`digitruck rollout list|show|pause|resume|abort|rollback`: how far rollouts are, and what to do about them."""

from __future__ import annotations

import click

from gateway.cli.belief import read_believed
from gateway.cli.ledger import money
from gateway.cli.output import (
    CommandError,
    ago,
    confirm,
    examples,
    instant,
    json_option,
    note,
    print_fields,
    print_json,
    print_table,
    say,
    size,
)
from gateway.cli.rollouts import checked, rollout
from gateway.cli.session import gateway, load_key
from gateway.cli.times import duration, now_ms, now_s
from gateway.client import SyncClient
from gateway.contentanswers import Rollout as RolloutAnswer
from gateway.contentanswers import RolloutDetail, RolloutProgress
from gateway.keystore import KeyRole
from protocol.documents import Rollout, sign_document
from protocol.numbers import DocumentKind

__all__ = ["rollout"]

_WAITING = ("waiting", "staged")


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
        ["id", "bundle", "version", "for", "state", "stage", "precedence", "since", "by"],
        [
            (
                each.id[:12],
                each.bundle,
                "(taken away)" if each.manifest is None else each.version,
                f"group {each.document.group}" if each.document.group else each.document.trucks,
                each.state,
                f"{each.stage} of {len(each.stages)}",
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
    """Show how far each truck of a rollout is, and why it is not further. The beginning of ID is enough.

    Trucks are not called: one that idles learns of a rollout, a pause or a rollback at its next contact.
    """
    with gateway() as client:
        found, items = _detail(client, identity)
    if as_json:
        print_json(
            {
                "id": found.id,
                "bundle": found.bundle,
                "version": found.version,
                "state": found.state,
                "stage": found.stage,
                "stages": found.stages,
                "reason": found.reason,
                "counts": found.counts,
                "quoted_bytes": found.quoted_bytes,
                "quoted_milli": found.quoted_milli,
                "quoted_currency": found.quoted_currency,
                "trucks": items,
            }
        )
        return
    _print_head(found, items)
    say()
    now = now_ms()
    print_table(
        ["truck", "state", "stage", "last heard", "receipt", "content", "money", "reason"],
        [
            (
                each.truck,
                each.state,
                each.stage,
                ago(each.last_heard_ms, now),
                instant(each.receipt_ms),
                size(each.content_bytes) if each.content_bytes else None,
                None if each.money_milli is None else money(each.money_milli, each.currency or ""),
                each.reason,
            )
            for each in items
        ],
        empty="no truck is meant by it yet",
    )
    if found.state == "running" and any(each.state in _WAITING for each in items):
        note("Trucks that idle learn of it at their next contact; nothing is spent on calling them.")
    if found.state == "halted":
        note(f"Next: digitruck rollout rollback {found.id[:12]} --key OPERATOR, or resume it.")


@rollout.command("pause", epilog=examples("digitruck rollout pause 3f0c"))
@click.argument("identity", metavar="ID")
def rollout_pause(identity: str) -> None:
    """Hold a rollout: no further truck hears of it, and who has not finished it stops where it is."""
    _act(identity, "pause")


@rollout.command("resume", epilog=examples("digitruck rollout resume 3f0c"))
@click.argument("identity", metavar="ID")
def rollout_resume(identity: str) -> None:
    """Go on with a rollout that was paused or has halted; what was fetched of it is not fetched again."""
    _act(identity, "resume")


@rollout.command("abort", epilog=examples("digitruck rollout abort 3f0c --yes"))
@click.argument("identity", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask (for scripts).")
def rollout_abort(identity: str, yes: bool) -> None:
    """End a rollout for good. Trucks that finished it keep what it gave them: see `rollback`."""
    confirm("End this rollout for good?", yes=yes)
    _act(identity, "abort")


@rollout.command(
    "rollback",
    epilog=examples(
        "digitruck rollout rollback 3f0c --key asha",
        "digitruck rollout rollback 3f0c --key asha --to 2026.10 --yes",
    ),
)
@click.argument("identity", metavar="ID")
@click.option("--key", "keys", multiple=True, required=True, metavar="NAME", help="Your operator's key; repeatable.")
@click.option("--to", "label", metavar="VERSION", help="The version to go back to; the one before if left out.")
@click.option("--valid", type=duration, default="365d", show_default=True, help="How long it is believed.")
@click.option("--yes", is_flag=True, help="Do not ask before signing (for scripts).")
def rollout_rollback(identity: str, keys: tuple[str, ...], label: str | None, valid: int, yes: bool) -> None:
    """Take a rollout back: its trucks get the version before it, by a newer rollout that is signed here.

    Trucks that have that version on their disks still switch to it without fetching anything.
    """
    signing = [load_key(name, KeyRole.OPERATOR) for name in keys]
    with gateway() as client:
        found = _whole(client, identity)
        before = read_believed(client.document(found.id), Rollout, found.id)
        manifest = _earlier(client, found) if label is None else client.bundle(found.bundle, label, limit=1).manifest
        version = 1 + max(row.version for row in client.documents(kind="rollout") if row.bundle == found.bundle)
        back = checked(
            Rollout(
                document=DocumentKind.ROLLOUT,
                version=version,
                issued_s=now_s(),
                expires_s=now_s() + valid,
                addressee=before.addressee,
                bundle=before.bundle,
                manifest=None if manifest is None else bytes.fromhex(manifest),
                precedence=before.precedence,
            )
        )
        if manifest is None:
            note(f"There was no {found.bundle} before it: it is taken away from these trucks.")
        else:
            known = next((each.version for each in client.bundles() if each.manifest == manifest), manifest[:12])
            note(f"{found.bundle} goes back from {found.version or 'nothing'} to {known}, at once on all its trucks.")
        confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
        answer = client.roll_back(found.id, sign_document(back, signing))
    say(f"Rollout {answer.digest}")
    say(f"Trucks hear of it at their next contact. Next: digitruck rollout show {answer.digest[:12]}")


def _act(identity: str, action: str) -> None:
    with gateway() as client:
        now = client.act_on_rollout(_whole(client, identity).id, action)
    say(f"{now.bundle} {now.version or '(taken away)'} is {now.state}, stage {now.stage} of {len(now.stages)}.")
    say("Trucks hear of it at their next contact.")


def _whole(client: SyncClient, beginning: str) -> RolloutAnswer:
    found = [each for each in client.rollouts() if each.id.startswith(beginning.lower())]
    if len(found) != 1:
        raise CommandError(f"{len(found)} rollouts begin with {beginning!r}: see digitruck rollout list")
    return found[0]


def _detail(client: SyncClient, identity: str) -> tuple[RolloutDetail, list[RolloutProgress]]:
    whole = identity if len(identity) == 64 else _whole(client, identity).id
    found = client.rollout(whole)
    items, after = list(found.items), found.next
    while after is not None:
        page = client.rollout(whole, after=after)
        items, after = items + page.items, page.next
    return found, items


def _earlier(client: SyncClient, found: RolloutAnswer) -> str | None:
    """Return the manifest of the rollout of the same bundle and trucks that came before, and was not taken back."""
    same = [
        each
        for each in client.rollouts()
        if each.document.name == found.document.name
        and each.document.version < found.document.version
        and each.state != "aborted"
        and each.manifest != found.manifest
    ]
    newest = max(same, key=lambda each: each.document.version, default=None)
    return None if newest is None else newest.manifest


def _print_head(found: RolloutDetail, items: list[RolloutProgress]) -> None:
    spent: dict[str, int] = {}
    for each in items:
        if each.money_milli is not None and each.currency is not None:
            spent[each.currency] = spent.get(each.currency, 0) + each.money_milli
    accepted = None if found.cost_milli_max is None else money(found.cost_milli_max, found.currency)
    quoted = None
    if found.quoted_bytes is not None:
        costs = "" if found.quoted_milli is None else f", {money(found.quoted_milli, found.quoted_currency or '')}"
        quoted = f"{size(found.quoted_bytes)}{costs}"
    moved = size(sum(each.content_bytes for each in items))
    actual = ", ".join([moved, *(money(milli, currency) or "" for currency, milli in sorted(spent.items()))])
    print_fields(
        [
            ("rollout", f"{found.bundle} {found.version or '(taken away)'}, {found.precedence}"),
            ("state", f"{found.state}: {found.reason}" if found.reason else found.state),
            ("stage", f"{found.stage} of {len(found.stages)} ({', '.join(f'{each} %' for each in found.stages)})"),
            ("trucks", ", ".join(f"{count} {state}" for state, count in sorted(found.counts.items())) or None),
            ("halts at", None if found.stop_at_percent is None else f"{found.stop_at_percent} % failures"),
            ("deadline", None if found.deadline_s is None else instant(found.deadline_s * 1000)),
            ("quoted before", quoted),
            ("spent so far", actual),
            ("accepted cost", accepted),
        ]
    )
