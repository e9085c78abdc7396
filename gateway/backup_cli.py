"""`digitruck-gateway backup`, `restore` and `backup-key`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.agekeys import Lock, Unlock, new_identity, read_passphrase
from gateway.backup import Backup, Contents, Progress, make_backup
from gateway.config import load_config
from gateway.restoring import Checked, Restored, check_backup, restore_backup
from protocol.errors import LocalError
from store.files import publish

_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("gateway.toml"),
    show_default=True,
    help="The gateway's configuration file.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A passphrase, in the first line of a file.",
)


@click.command(name="backup-key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_passphrase_option
def backup_key(file: Path, passphrase_file: Path | None) -> None:
    """Make the key that opens backups, and print the recipient to back up to. Keep FILE away from the gateway.

    It is an identity of age (age-encryption.org), as age-keygen makes them.

    \b
    Example:
      digitruck-gateway backup-key ./backup.key
    """
    if file.exists():
        raise LocalError(f"{file} exists: a key is never overwritten")
    data, recipient = new_identity(None if passphrase_file is None else read_passphrase(passphrase_file))
    publish(file, data)
    click.echo(recipient)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_config_option
@click.option("-r", "--recipient", "recipients", multiple=True, help="Who may open it: age1... or an SSH public key.")
@_passphrase_option
@click.option("--without-blobs", is_flag=True, help="Leave bundle files out: their publishers push them again.")
@_json_option
def backup(
    file: Path,
    config: Path,
    recipients: tuple[str, ...],
    passphrase_file: Path | None,
    without_blobs: bool,
    as_json: bool,
) -> None:
    """Write the whole gateway to one encrypted file, also while it serves: configuration, keys, database, blobs.

    FILE may be a folder: then the file's name is the time. Sessions are left out, so that trucks key anew after a
    restore. Of a PostgreSQL database nothing is in it: add `pg_dump --exclude-table-data=contexts`. Not in it either:
    TLS certificates and whatever else lies outside of the data folder.

    \b
    Example:
      digitruck-gateway backup /backup --recipient age1ql3z7hjy54pw3... --config /srv/digitruck/gateway.toml
    Check it, where the key is:
      digitruck-gateway restore --check FILE --identity backup.key
    """
    lock = Lock(recipients, None if passphrase_file is None else read_passphrase(passphrase_file))
    settings = load_config(config)
    data = (config.parent / settings.data).resolve()
    now_ms = time.time_ns() // 1_000_000
    if file.is_dir():
        file = file / f"digitruck-{datetime.fromtimestamp(now_ms // 1000, UTC):%Y%m%dT%H%M%SZ}.age"
    with _progress("writing", quiet=as_json) as on_progress:
        made = make_backup(
            file,
            lock,
            config=config,
            settings=settings,
            data=data,
            now_ms=now_ms,
            with_blobs=not without_blobs,
            on_progress=on_progress,
        )
    _tell_backup(file, made, as_json=as_json)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_config_option
@click.option(
    "-i",
    "--identity",
    "identities",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The key that opens it: of backup-key or age-keygen, or an SSH private key.",
)
@_passphrase_option
@click.option("--check", "only_check", is_flag=True, help="Open and hash everything; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before a present database is replaced.")
@_json_option
def restore(
    file: Path,
    config: Path,
    identities: tuple[Path, ...],
    passphrase_file: Path | None,
    only_check: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Put a backup in the place of the present state; stop the gateway first. On a new machine nothing else is needed.

    Everything is decrypted and checked before anything is changed. The replaced database and keys are kept beside the
    restored ones. What the replaced database knows to be revoked stays revoked, and trucks that joined since and newer
    signed configuration are kept, if it can be read. Codes that were not used are void. Trucks key anew by themselves;
    what they sent after the backup was made they may have deleted: `digitruck coverage TRUCK` names the gaps. Where no
    database was there to be replaced, access tokens are void, and `digitruck trust push` has to confirm who is trusted.

    With PostgreSQL: first pg_restore, then this.

    \b
    Example:
      systemctl stop digitruck-gateway
      digitruck-gateway restore FILE --identity backup.key --config /srv/digitruck/gateway.toml
      chown -R digitruck: /srv/digitruck && systemctl start digitruck-gateway
    """
    unlock = Unlock(
        identities,
        None if passphrase_file is None else read_passphrase(passphrase_file),
        ask=_ask if sys.stdin.isatty() else None,
    )
    with _progress("reading", quiet=as_json) as on_progress:
        if only_check:
            with tempfile.TemporaryDirectory(dir=config.parent if config.exists() else None) as folder:
                checked = check_backup(file, unlock, Path(folder) / "check", on_progress)
            _tell_checked(file, checked, as_json=as_json)
            return
        restored = restore_backup(
            file,
            unlock,
            config,
            now_ms=time.time_ns() // 1_000_000,
            confirm=lambda contents, heard_ms: None if yes else _confirm(contents, heard_ms),
            on_progress=on_progress,
        )
    _tell_restored(file, restored, as_json=as_json)


def _confirm(contents: Contents, heard_ms: int | None) -> None:
    if heard_ms is None or heard_ms <= contents.made_ms:
        return
    question = (
        f"\nthe present database heard a truck at {_time(heard_ms)}; the backup was made at {_time(contents.made_ms)}, "
        "and what came in between is gone after this"
    )
    if not sys.stdin.isatty():
        raise LocalError(f"{question.strip()}: say --yes if that is what you want")
    click.confirm(f"{question}. Go on?", abort=True, err=True)


def _ask(prompt: str) -> str:
    return str(click.prompt(prompt, hide_input=True, err=True))


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Progress]:
    """Show how far long work is, on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=what, file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            bar.length = max(1, total)
            bar.update(done - bar.pos)

        yield show


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _tell_backup(file: Path, made: Backup, *, as_json: bool) -> None:
    contents = made.contents
    if as_json:
        values = {
            "file": str(file),
            "bytes": made.size,
            "sha256": made.sha256,
            "made_ms": contents.made_ms,
            "database": contents.database,
            "keys": contents.keys,
            "blobs": contents.blobs,
            "sealed_keys": made.sealed_keys,
            "rotten_blobs": made.rotten_blobs,
        }
        click.echo(json.dumps(values))
        return
    database = "the database" if contents.database == "sqlite" else "NO database (PostgreSQL: pg_dump)"
    click.echo(f"{file}: {made.size} bytes, sha256 {made.sha256}")
    click.echo(f"holds {database}, {len(contents.keys)} keys, {contents.blobs} blobs, the configuration")
    for name in made.sealed_keys:
        click.echo(f"NOT in it: {name}, which is sealed to this machine and handed to the service alone", err=True)
    if made.rotten_blobs:
        click.echo(f"rotten blobs, to be pushed again: {', '.join(made.rotten_blobs)}", err=True)


def _tell_checked(file: Path, checked: Checked, *, as_json: bool) -> None:
    contents, scrub = checked.contents, checked.scrub
    damaged = () if scrub is None else scrub.damaged
    sound = not checked.rotten_blobs and (scrub is None or scrub.sound)
    if as_json:
        values = {
            "file": str(file),
            "sound": sound,
            "made_ms": contents.made_ms,
            "database": contents.database,
            "parcels": None if scrub is None else scrub.parcels,
            "documents": None if scrub is None else scrub.documents,
            "keys": contents.keys,
            "blobs": contents.blobs,
            "rotten_blobs": checked.rotten_blobs,
            "damaged": damaged,
        }
        click.echo(json.dumps(values))
    else:
        click.echo(f"{file} can be restored; it was made at {_time(contents.made_ms)}")
        rows = "no database" if scrub is None else f"{scrub.parcels} parcels and {scrub.documents} documents"
        click.echo(f"holds {rows}, {len(contents.keys)} keys, {contents.blobs} blobs, the configuration")
        for each in (*damaged, *checked.rotten_blobs):
            click.echo(f"damaged before the backup was made: {each}", err=True)
    if not sound:
        raise SystemExit(1)


def _tell_restored(file: Path, restored: Restored, *, as_json: bool) -> None:
    carried = restored.carried
    if as_json:
        values = {
            "file": str(file),
            "made_ms": restored.contents.made_ms,
            "database_kept_as": None if restored.database_kept_as is None else str(restored.database_kept_as),
            "keys_kept_as": None if restored.keys_kept_as is None else str(restored.keys_kept_as),
            "revocations": None if carried is None else carried.revocations,
            "trucks_joined_since": None if carried is None else carried.trucks,
            "documents_since": None if carried is None else carried.documents,
            "codes_void": restored.codes_void,
            "rotten_blobs": restored.rotten_blobs,
            "has_keys": restored.has_keys,
        }
        click.echo(json.dumps(values))
        return
    click.echo(f"restored the state of {_time(restored.contents.made_ms)}; trucks key anew when they next call")
    for what, kept in (("database", restored.database_kept_as), ("keys", restored.keys_kept_as)):
        if kept is not None:
            click.echo(f"the former {what}: {kept}")
    if carried is not None:
        click.echo(f"kept from it: {carried.revocations} revocations, {carried.documents} signed documents")
        if carried.trucks:
            click.echo(f"trucks that joined since: {', '.join(carried.trucks)}")
    else:
        click.echo(
            "there was no readable database to replace: what was revoked, signed or joined since the backup is not "
            "here. So every access token is void: digitruck-gateway token new NAME --role admin. Then who has the "
            "newest trust documents: digitruck trust push; until then nobody enrols and nothing new is rolled out. "
            "Revoke again what was revoked by `digitruck revoke` only; trucks that joined since join anew",
            err=True,
        )
    if restored.codes_void:
        click.echo(f"{restored.codes_void} unused enrolment codes are void: make new ones")
    if restored.rotten_blobs:
        click.echo(f"rotten blobs, to be pushed again: {', '.join(restored.rotten_blobs)}", err=True)
    if not restored.has_keys:
        click.echo("the backup holds no keys (they were sealed), and none are here: trucks will not know it", err=True)
