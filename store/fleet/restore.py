"""Put a copy of the SQLite database from a backup in the place of the one that is there. Nobody may have it open.

What the replaced database still knows and a restore must not undo goes along, as far as it can be read: revocations of
trucks and tokens (a stolen truck must stay out), trucks that joined since (nobody can drive to them), and the newer
signed roots, delegations and configurations (trucks trust those already and refuse older ones). What was sent since is
gone. Transport contexts never come back, so trucks run EDHOC again by themselves. The replaced database is kept.

PostgreSQL has its own tools for this.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import LocalError
from protocol.numbers import DocumentKind
from store.asides import next_aside, prune_asides
from store.files import sync_folder

_WITH_LOG: Final = ("", "-wal", "-shm")
KEPT_WORD: Final = "before"  # what a restore replaced stays as NAME.before-N
_STICK: Final = "stick, made_ms, made_by, expires_ms, key, signed, revoked_ms, imported_ms"
_TRUCK: Final = "name, group_name, signing_key, credential, kid_cred, enrolled_ms, revoked_ms"
_KEY: Final = "truck, signing_key, credential, since_ms, until_ms"
_DOCUMENT: Final = (
    "digest, kind, version, name, bundle, group_name, issued_s, expires_s, size, received_ms, put_by, signed, stream"
)
_ROLLOUT: Final = "state, stage, reason, changed_by, changed_ms"
_CARRIED_KINDS: Final = (DocumentKind.ROOT, DocumentKind.DELEGATION, DocumentKind.CONFIG)


class BackupUnusableError(LocalError):
    """The copy is no database of a fleet, or is damaged; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What came along from the replaced database, in numbers; `heard_ms` is when it last heard a truck."""

    revocations: int
    trucks: tuple[str, ...]
    documents: int
    heard_ms: int
    audit_rows: int
    audit_head: bytes


def check_copy(part: Path) -> None:
    """Make a copy fit to be used: sound, and without sessions; raise `BackupUnusableError`."""
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as opened:
            checked = opened.execute("PRAGMA quick_check(1)").fetchone()[0]
            opened.execute("SELECT version_num FROM alembic_version").fetchone()
            # A backup has none; a plain copy of a database has, and must not go on with its sequence numbers.
            opened.execute("PRAGMA secure_delete = ON")
            opened.execute("DELETE FROM contexts")
    except sqlite3.Error as error:
        raise BackupUnusableError(f"this is no database of a fleet: {error}") from error
    if checked != "ok":
        raise BackupUnusableError(f"the database in it is damaged: {checked}")


def heard_ms(path: Path) -> int | None:
    """Return when a database last heard a truck (Unix ms, 0: never), or None if there is none that can be read."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as opened:
        return int(opened.execute("SELECT coalesce(max(last_heard_ms), 0) FROM trucks").fetchone()[0])
    return None


def carry(path: Path, part: Path) -> Carried | None:
    """Take from the database at `path` into the copy `part` what must not be undone; None: it cannot be read.

    Both have this release's schema, or nothing is carried.
    """
    try:
        with contextlib.closing(_read_only(path)) as old:
            trucks = old.execute(f"SELECT {_TRUCK} FROM trucks").fetchall()  # noqa: S608 - constants of this module
            keys = old.execute(f"SELECT {_KEY} FROM truck_keys ORDER BY id").fetchall()  # noqa: S608
            tokens = old.execute("SELECT revoked_ms, token_sha256 FROM tokens WHERE revoked_ms IS NOT NULL").fetchall()
            kinds = ", ".join(str(int(kind)) for kind in _CARRIED_KINDS)
            documents = old.execute(f"SELECT {_DOCUMENT} FROM documents WHERE kind IN ({kinds})").fetchall()  # noqa: S608
            addressed = old.execute("SELECT truck, digest FROM document_trucks").fetchall()
            states = old.execute(f"SELECT {_ROLLOUT}, digest FROM rollout_states").fetchall()  # noqa: S608
            released = old.execute("SELECT digest, truck, stage, released_ms FROM rollout_trucks").fetchall()
            sticks = old.execute(f"SELECT {_STICK} FROM sticks").fetchall()  # noqa: S608
            heard = old.execute("SELECT coalesce(max(last_heard_ms), 0) FROM trucks").fetchone()[0]
            last = old.execute("SELECT id, hash FROM audit_log ORDER BY id DESC LIMIT 1").fetchone() or (0, bytes(32))
        with contextlib.closing(sqlite3.connect(part)) as copy, copy:
            joined = _carry_trucks(copy, trucks, keys)
            revocations = _carry_revocations(copy, trucks, tokens)
            _carry_sticks(copy, sticks)
            carried = _carry_documents(copy, documents, addressed)
            _carry_rollouts(copy, states, released)
    except sqlite3.Error:
        return None
    return Carried(revocations, joined, carried, int(heard), int(last[0]), bytes(last[1]))


def _carry_revocations(
    copy: sqlite3.Connection, trucks: list[tuple[object, ...]], tokens: list[tuple[object, ...]]
) -> int:
    of_truck = "UPDATE trucks SET revoked_ms = ? WHERE name = ? AND signing_key = ? AND revoked_ms IS NULL"
    of_api = "UPDATE tokens SET revoked_ms = ? WHERE token_sha256 = ? AND revoked_ms IS NULL"
    revoked = [(row[6], row[0], row[2]) for row in trucks if row[6] is not None]
    changed = sum(copy.execute(of_truck, row).rowcount for row in revoked)
    return changed + sum(copy.execute(of_api, row).rowcount for row in tokens)


def _carry_sticks(copy: sqlite3.Connection, sticks: list[tuple[object, ...]]) -> None:
    """Take over couriers' sticks that were made since, and that any was revoked."""
    again = "revoked_ms = coalesce(sticks.revoked_ms, excluded.revoked_ms), imported_ms = excluded.imported_ms"
    places = ", ".join("?" * (_STICK.count(",") + 1))
    insert = f"INSERT INTO sticks ({_STICK}) VALUES ({places}) ON CONFLICT (stick) DO UPDATE SET {again}"  # noqa: S608
    copy.executemany(insert, sticks)


def _carry_trucks(
    copy: sqlite3.Connection, trucks: list[tuple[object, ...]], keys: list[tuple[object, ...]]
) -> tuple[str, ...]:
    """Take over trucks that joined, or joined anew, since; return their names."""
    known = {row[0]: row[1] for row in copy.execute("SELECT name, signing_key FROM trucks")}
    joined = [row for row in trucks if known.get(row[0]) != row[2]]
    for row in joined:
        if row[0] in known:
            values = "group_name = ?, signing_key = ?, credential = ?, kid_cred = ?, enrolled_ms = ?, revoked_ms = ?"
            copy.execute(f"UPDATE trucks SET {values} WHERE name = ?", (*row[1:], row[0]))  # noqa: S608
            copy.execute("DELETE FROM truck_keys WHERE truck = ?", (row[0],))
        else:
            copy.execute(f"INSERT INTO trucks ({_TRUCK}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
        of_truck = [key for key in keys if key[0] == row[0]]
        copy.executemany(f"INSERT INTO truck_keys ({_KEY}) VALUES (?, ?, ?, ?, ?)", of_truck)  # noqa: S608
    return tuple(sorted(str(row[0]) for row in joined))


def _carry_documents(
    copy: sqlite3.Connection, documents: list[tuple[object, ...]], addressed: list[tuple[object, ...]]
) -> int:
    """Take over documents that the copy lacks; each still hashes to its digest, and its signature is checked anyway."""
    marks = ", ".join("?" * len(_DOCUMENT.split(", ")))
    # By stream and version as well: a version is given once.
    known = {row[:2] for row in copy.execute("SELECT stream, version FROM documents")}
    sound = [
        row
        for row in documents
        if (row[12], row[2]) not in known and isinstance(row[11], bytes) and hashlib.sha256(row[11]).digest() == row[0]
    ]
    copy.executemany(f"INSERT INTO documents ({_DOCUMENT}) VALUES ({marks})", sound)  # noqa: S608
    new = {row[0] for row in sound}
    copy.executemany(
        "INSERT INTO document_trucks (truck, digest) VALUES (?, ?)", [row for row in addressed if row[1] in new]
    )
    return len(sound)


def _carry_rollouts(
    copy: sqlite3.Connection, states: list[tuple[object, ...]], released: list[tuple[object, ...]]
) -> None:
    """Take over how far rollouts are that the copy has: one that was halted since must not go on."""
    values = ", ".join(f"{name} = ?" for name in _ROLLOUT.split(", "))
    copy.executemany(f"UPDATE rollout_states SET {values} WHERE digest = ?", states)  # noqa: S608
    known = {row[0] for row in copy.execute("SELECT digest FROM rollout_states")}
    joined = {row[0] for row in copy.execute("SELECT name FROM trucks")}
    copy.executemany(
        "INSERT OR IGNORE INTO rollout_trucks (digest, truck, stage, released_ms) VALUES (?, ?, ?, ?)",
        [row for row in released if row[0] in known and row[1] in joined],
    )


def swap(part: Path, path: Path) -> Path | None:
    """Put the copy in the place of the database at `path`; return where that one is now, None if there was none."""
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as opened:
        opened.execute("PRAGMA journal_mode = DELETE")
    _sync(part)
    kept_as = _keep(path) if path.exists() else None
    part.replace(path)
    prune_asides(path, KEPT_WORD, bytes_max=shutil.disk_usage(path.parent).total // 4, parts=_WITH_LOG[1:])
    sync_folder(path.parent)
    return kept_as


def _keep(path: Path) -> Path:
    """Give the database at `path` a second name under which it stays, its log inside if that can be had."""
    kept = next_aside(path, KEPT_WORD)
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


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
