"""Put a backup of the SQLite database in the place of the one that is there. Nobody may have it open meanwhile.

What was revoked since the backup was made stays revoked, as far as the database that is replaced can still be read:
a restore must not let a stolen truck or a lost token back in. Transport contexts never come back (`store.fleet.care`),
so trucks run EDHOC again by themselves. The replaced database is kept beside the new one.

PostgreSQL has its own tools for this.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from protocol.errors import LocalError
from store.files import sync_folder

_WITH_LOG = ("", "-wal", "-shm")


class BackupUnusableError(LocalError):
    """The file is no backup of a fleet's database, or is damaged; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Where the replaced database is now, and how many revocations it was asked for; None: there was none to ask."""

    kept_as: Path | None
    revocations: int | None


def restore(backup: Path, path: Path) -> Restored:
    """Replace the database at `path` by `backup`, whole or not at all; raise `BackupUnusableError`."""
    part = path.with_name(f"{path.name}.restoring")
    try:
        _copy(backup, part)
        revocations = _carry_revocations(path, part) if path.exists() else None
        _sync(part)
        kept_as = _keep(path) if path.exists() else None
        part.replace(path)
        sync_folder(path.parent)
    finally:
        for suffix in _WITH_LOG:
            part.with_name(part.name + suffix).unlink(missing_ok=True)
    return Restored(kept_as, revocations)


def _copy(backup: Path, part: Path) -> None:
    if not backup.is_file():
        raise BackupUnusableError(f"{backup}: there is no such file")
    log = backup.with_name(f"{backup.name}-wal")
    if log.exists() and log.stat().st_size:
        raise BackupUnusableError(f"{backup} is a database in use: make a backup of it with `digitruck-gateway backup`")
    for suffix in _WITH_LOG:
        part.with_name(part.name + suffix).unlink(missing_ok=True)
    part.touch(mode=0o600)
    with backup.open("rb") as source, part.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as opened:
            checked = opened.execute("PRAGMA quick_check(1)").fetchone()[0]
            opened.execute("SELECT version_num FROM alembic_version").fetchone()
            # A backup has none; a plain copy of a database has, and must not go on with its sequence numbers.
            opened.execute("PRAGMA secure_delete = ON")
            opened.execute("DELETE FROM contexts")
            opened.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise BackupUnusableError(f"{backup} is no backup of a fleet's database: {error}") from error
    if checked != "ok":
        raise BackupUnusableError(f"{backup} is damaged: {checked}")


def _carry_revocations(path: Path, part: Path) -> int | None:
    """Revoke in the copy what is revoked in the database that it replaces; return how many, or None if unreadable."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as old:
            trucks = old.execute(
                "SELECT revoked_ms, name, signing_key FROM trucks WHERE revoked_ms IS NOT NULL"
            ).fetchall()
            tokens = old.execute("SELECT revoked_ms, token_sha256 FROM tokens WHERE revoked_ms IS NOT NULL").fetchall()
    except sqlite3.Error:
        return None
    changed = 0
    with contextlib.closing(sqlite3.connect(part)) as copy, copy:
        for row in trucks:
            revoke = "UPDATE trucks SET revoked_ms = ? WHERE name = ? AND signing_key = ? AND revoked_ms IS NULL"
            changed += copy.execute(revoke, row).rowcount
        for row in tokens:
            revoke = "UPDATE tokens SET revoked_ms = ? WHERE token_sha256 = ? AND revoked_ms IS NULL"
            changed += copy.execute(revoke, row).rowcount
    return changed


def _keep(path: Path) -> Path:
    """Give the database at `path` a second name under which it stays, its log inside if that can be had."""
    kept = next(name for n in count(1) if not (name := path.with_name(f"{path.name}.before-{n}")).exists())
    # A damaged one may refuse: then its log goes along under the same name.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        old.execute("PRAGMA journal_mode = DELETE")
    for suffix in _WITH_LOG[1:]:
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.rename(kept.with_name(kept.name + suffix))
    os.link(path, kept)
    return kept


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
