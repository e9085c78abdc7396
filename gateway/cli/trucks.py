"""`digitruck trucks`, `truck`, `enrol` and `revoke`: who is in the fleet, and how one joins or leaves it."""

from __future__ import annotations

import sys

import click
import segno

from gateway.cli.output import (
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
)
from gateway.cli.session import gateway
from gateway.cli.times import duration, now_ms


@click.command(
    epilog=examples("digitruck trucks", "digitruck trucks --group kenya", "digitruck trucks --json | jq '.[].truck'")
)
@click.option("--group", help="Only this group.")
@json_option
def trucks(group: str | None, as_json: bool) -> None:
    """List the fleet's trucks: when each was heard, over which link, whether it has what it should have."""
    with gateway() as client:
        found = client.trucks(group=group)
        warnings = client.trust().warnings
    for warning in warnings:
        note(f"! {warning}")
    if as_json:
        print_json(found)
        return
    now = now_ms()
    print_table(
        ["truck", "group", "last heard", "link", "up to date"],
        [
            (
                each.truck,
                each.group,
                "revoked" if each.revoked_ms is not None else ago(each.last_heard_ms, now),
                each.last_link,
                each.up_to_date,
            )
            for each in found
        ],
        empty="no trucks yet: digitruck enrol NAME",
    )


@click.command(epilog=examples("digitruck truck ke-arrow", "digitruck truck ke-arrow --json"))
@click.argument("truck")
@json_option
def truck(truck: str, as_json: bool) -> None:
    """Show one truck: what it reports, what it holds and what it did with each document."""
    with gateway() as client:
        found = client.truck(truck)
    if as_json:
        print_json(found)
        return
    now = now_ms()
    print_fields(
        [
            ("truck", found.truck),
            ("group", found.group),
            ("enrolled", instant(found.enrolled_ms)),
            *([("revoked", instant(found.revoked_ms))] if found.revoked_ms is not None else []),
            ("last heard", f"{ago(found.last_heard_ms, now)}, link {found.last_link or '-'}"),
            ("signing key", found.signing_key),
            ("up to date", found.up_to_date),
            *((name, value) for name, value in (found.status or {}).items()),
        ]
    )
    if found.holdings:
        say()
        print_table(
            ["document", "name", "version", "outcome", "when", "reason"],
            [
                (each.document, each.name, each.version, each.outcome, instant(each.time_ms or None), each.reason)
                for each in found.holdings
            ],
            empty="",
        )


@click.command(
    epilog=examples(
        "digitruck enrol ke-arrow --group kenya",
        "digitruck enrol ke-arrow --expires-in 7d",
        "digitruck enrol ke-arrow --json | jq -r .code",
    )
)
@click.argument("truck")
@click.option("--group", help="The truck's group; when left out a known truck keeps its own, another gets `fleet`.")
@click.option("--expires-in", type=duration, help="How long the code holds: 60s to 30d; a day when left out.")
@click.option("--no-qr", is_flag=True, help="Print the code only.")
@json_option
def enrol(truck: str, group: str | None, expires_in: int | None, no_qr: bool, as_json: bool) -> None:
    """Make a one-time code with which a truck called TRUCK joins the fleet.

    On the truck: `digitruck-edge join CODE`. Who has the code can be that truck until it is used or expires. An
    enrolled truck of that name gets new keys and keeps its history.
    """
    with gateway() as client:
        made = client.enrol(truck, group=group, expires_in_s=expires_in)
    if as_json:
        print_json(made)
        return
    if made.replaces:
        note(f"A truck called {truck} is enrolled already: this code replaces its keys.")
    if not no_qr and sys.stdout.isatty():
        # The code's characters all are in QR's alphanumeric mode, which makes a small symbol.
        segno.make(made.code, error="m", micro=False).terminal(compact=True)
    say(made.code)
    note(f"Holds until {instant(made.expires_ms)}, once. On the truck: digitruck-edge join CODE")


@click.command(epilog=examples("digitruck revoke ke-arrow", "digitruck revoke ke-arrow --yes"))
@click.argument("truck")
@click.option("--yes", is_flag=True, help="Do not ask (for scripts).")
def revoke(truck: str, yes: bool) -> None:
    """Shut TRUCK out at once: its sessions end and nothing of it is taken any more. What it sent stays.

    It comes back only by enrolling anew. `digitruck trust revoke --truck` makes the same binding by signature.
    """
    confirm(f"Shut {truck} out of the fleet?", yes=yes)
    with gateway() as client:
        found = client.revoke(truck)
    say(f"{found.truck} is revoked since {instant(found.revoked_ms)}. To take it back: digitruck enrol {found.truck}")
    note(f"So that it stays out wherever an older backup is restored: digitruck trust revoke --truck {found.truck}")
