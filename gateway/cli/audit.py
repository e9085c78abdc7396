"""`digitruck audit`: who did what; and whether the log of it is whole, found out on this machine.

The gateway is not taken at its word: `verify` downloads the entries and computes every hash itself. What a chain cannot
show by itself, that its end was cut off or that all of it was written anew, shows against the newest entry that was
seen here before, which is kept beside the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from gateway.answers import AuditEntry
from gateway.apicalls import PAGE_ITEMS
from gateway.cli.files import write_private
from gateway.cli.output import CommandError, examples, instant, json_option, print_json, print_table, say
from gateway.cli.session import config_folder, gateway, load_session
from gateway.cli.times import now_ms
from gateway.client import SyncClient
from store.fleet.auditchain import BEFORE_FIRST, holds
from store.fleet.records import AuditRecord


class Noted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest entry of a gateway's log when it was last verified here."""

    id: int
    hash: str
    noted_ms: int


class Verdict(msgspec.Struct, frozen=True):
    """A chain that holds: `entries` in all, `checked` of them this time, back to the entry `since`."""

    entries: int
    head: str
    checked: int
    since: int
    noted_ms: int | None


@click.group(epilog=examples("digitruck audit log", "digitruck audit verify"))
def audit() -> None:
    """Who changed what in the fleet, as a chain of hashes."""


@audit.command(
    "log", epilog=examples("digitruck audit log", "digitruck audit log --limit 500", "digitruck audit log --json")
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest so many.")
@json_option
def log(limit: int, as_json: bool) -> None:
    """List changes, newest first: when, who, what."""
    with gateway() as client:
        found = [each for each, _ in zip(_entries(client), range(limit), strict=False)]
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "when", "who", "what", "of", "detail"],
        [(each.id, instant(each.at_ms), each.actor, each.action, each.subject, each.detail) for each in found],
        empty="nothing was changed yet",
    )


@audit.command(
    "verify", epilog=examples("digitruck audit verify", "digitruck audit verify --all", "digitruck audit verify --json")
)
@click.option("--all", "everything", is_flag=True, help="Walk back to the first entry, not only to the one noted last.")
@click.option("--forget", is_flag=True, help="Forget what was noted here first, for instance after a restore.")
@json_option
def verify(everything: bool, forget: bool, as_json: bool) -> None:
    """Download the log, compute its chain of hashes here, and compare it with what was noted last time.

    Exit code 1 if an entry was changed, removed or put in between, if the end was cut off, or if the whole log was
    written anew since the last time.
    """
    url = load_session().url
    noted = None if forget else _read_noted().get(url)
    with gateway() as client:
        said = client.audit_check()
        verdict = _walk(client, noted, everything=everything)
    if said.broken_at is not None:
        raise CommandError(f"the gateway itself says that entry {said.broken_at} does not hold: ask who runs it")
    path = _write_noted(url, Noted(verdict.entries, verdict.head, now_ms()))
    if as_json:
        print_json(verdict)
        return
    say(f"The log of {verdict.entries} entries holds ({verdict.checked} were checked now).")
    if noted is not None:
        say(f"It goes on from entry {noted.id}, noted {instant(noted.noted_ms)}.")
    say(f"Its head {verdict.head} is noted in {path}.")


def _entries(client: SyncClient) -> Iterator[AuditEntry]:
    """Yield the log from its newest entry back to its first."""
    after: int | None = None
    while True:
        page = client.audit(after=after, limit=PAGE_ITEMS)
        yield from page.items
        if page.next is None or not page.items:
            return
        after = page.items[-1].id


def _walk(client: SyncClient, noted: Noted | None, *, everything: bool) -> Verdict:
    """Walk the chain from its head; raise `CommandError` where it breaks."""
    newest = newer = None
    checked = 0
    for entry in _entries(client):
        record = _record(entry)
        newest = newest or record
        if noted is not None and checked == 0 and record.id < noted.id:
            break
        _check(record, entry, newer)
        if noted is not None and record.id == noted.id and entry.hash != noted.hash:
            raise CommandError(
                f"entry {record.id} is not the one that was noted {instant(noted.noted_ms)}: the log was written anew"
            )
        newer = record
        checked += 1
        if noted is not None and record.id <= noted.id and not everything:
            break
    head = newest.id if newest is not None else 0
    if noted is not None and head < noted.id:
        raise CommandError(
            f"the log ends at entry {head}, but {noted.id} were there {instant(noted.noted_ms)}: its end was cut off "
            "(after a restore of the gateway: digitruck audit verify --forget)"
        )
    reached_noted = noted is not None and newer is not None and newer.id == noted.id and not everything
    if newer is not None and not reached_noted and (newer.id != 1 or newer.previous != BEFORE_FIRST):
        raise CommandError(f"the entries before {newer.id} are missing")
    return Verdict(
        entries=head,
        head=(newest.hash if newest is not None else BEFORE_FIRST).hex(),
        checked=checked,
        since=newer.id if newer is not None else 0,
        noted_ms=None if noted is None else noted.noted_ms,
    )


def _check(record: AuditRecord, entry: AuditEntry, newer: AuditRecord | None) -> None:
    """Check one entry, and that it is the one before `newer`."""
    if not holds(record):
        raise CommandError(f"entry {record.id} was changed: its hash is not that of what it says")
    if newer is not None and newer.id != record.id + 1:
        raise CommandError(f"the entries between {record.id} and {newer.id} are missing")
    if newer is not None and newer.previous != record.hash:
        raise CommandError(f"entry {newer.id} does not follow entry {record.id}: one of them was put in its place")
    try:
        same = msgspec.json.decode(record.detail_json, type=dict) == entry.detail
    except msgspec.DecodeError:
        same = False
    if not same:
        raise CommandError(f"entry {record.id} is shown otherwise than it is hashed")


def _record(entry: AuditEntry) -> AuditRecord:
    try:
        previous, hashed = bytes.fromhex(entry.previous), bytes.fromhex(entry.hash)
    except ValueError as error:
        raise CommandError(f"entry {entry.id} has no readable hash") from error
    return AuditRecord(
        id=entry.id,
        at_ms=entry.at_ms,
        actor=entry.actor,
        action=entry.action,
        subject=entry.subject,
        detail_json=entry.detail_json,
        previous=previous,
        hash=hashed,
    )


def _noted_path() -> Path:
    return config_folder() / "audit.json"


def _read_noted() -> dict[str, Noted]:
    path = _noted_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Noted])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read ({error}): remove it to begin anew") from error


def _write_noted(url: str, noted: Noted) -> Path:
    path = _noted_path()
    write_private(path, msgspec.json.format(msgspec.json.encode(_read_noted() | {url: noted})))
    return path
