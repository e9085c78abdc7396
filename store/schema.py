"""The tables of a truck's two databases, as migrations that are applied one by one and never edited afterwards.

STATE (state.db) belongs to the writer thread: parcels, documents, settings, staging. LINKS (links.db) belongs to the
event loop: OSCORE contexts and the ledger, which must be durable before a datagram leaves and cannot wait for a queue.
They are two files because each file has exactly one connection that writes and checkpoints (SQLite before 3.51.3 can
corrupt a WAL when two do). Every table ends in `row_hash`; all are STRICT, so that a flipped type does not pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlite_utils import Database as SqliteDatabase
from sqlite_utils import Migrations

_STATE = Migrations("state")
_LINKS = Migrations("links")


@dataclass(frozen=True, slots=True)
class Schema:
    """What one database file holds: its migrations, and the tables worth saving from a damaged one."""

    name: str
    migrations: Migrations
    salvaged: tuple[str, ...]

    @property
    def known(self) -> frozenset[str]:
        """The names of all migrations that this version knows."""
        return frozenset(each.name for each in self.migrations._migrations)


def _common(db: SqliteDatabase) -> None:
    db.execute(
        """CREATE TABLE identity (
             id INTEGER PRIMARY KEY CHECK (id = 1), current BLOB NOT NULL, pending BLOB NOT NULL,
             inode INTEGER NOT NULL, changed_ns INTEGER NOT NULL, host BLOB NOT NULL, row_hash BLOB NOT NULL) STRICT"""
    )
    db.execute(
        """CREATE TABLE incidents (
             id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, at_s INTEGER NOT NULL, details TEXT NOT NULL,
             reported INTEGER NOT NULL DEFAULT 0 CHECK (reported IN (0, 1)), row_hash BLOB NOT NULL) STRICT"""
    )
    db.execute(
        """CREATE TABLE settings (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, row_hash BLOB NOT NULL) STRICT"""
    )


@_STATE()
def s001_state(db: SqliteDatabase) -> None:
    """Make the tables of state.db."""
    _common(db)
    db.execute(
        """CREATE TABLE epochs (
             id INTEGER PRIMARY KEY AUTOINCREMENT, epoch BLOB NOT NULL UNIQUE CHECK (length(epoch) = 8),
             started_s INTEGER NOT NULL, cause TEXT NOT NULL, last_sequence INTEGER NOT NULL DEFAULT 0,
             row_hash BLOB NOT NULL) STRICT"""
    )
    db.execute(
        """CREATE TABLE parcels (
             id INTEGER PRIMARY KEY AUTOINCREMENT, epoch BLOB NOT NULL, sequence INTEGER NOT NULL,
             precedence INTEGER NOT NULL CHECK (precedence BETWEEN 0 AND 3), kind INTEGER NOT NULL,
             state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5), attempts INTEGER NOT NULL DEFAULT 0,
             refusal INTEGER, sealed BLOB NOT NULL, rows INTEGER NOT NULL DEFAULT 0, schema_digest BLOB,
             added_s INTEGER NOT NULL, deadline_s INTEGER, closed_s INTEGER, token BLOB UNIQUE,
             row_hash BLOB NOT NULL, UNIQUE (epoch, sequence)) STRICT"""
    )
    db.execute("CREATE INDEX parcels_by_turn ON parcels (state, epoch, precedence, sequence)")
    db.execute(
        """CREATE TABLE documents (
             kind INTEGER NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, digest BLOB NOT NULL,
             signed BLOB NOT NULL, stored_s INTEGER NOT NULL, row_hash BLOB NOT NULL,
             PRIMARY KEY (kind, name, version)) STRICT"""
    )
    db.execute(
        """CREATE TABLE trusted (
             kind INTEGER NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, digest BLOB NOT NULL,
             row_hash BLOB NOT NULL, PRIMARY KEY (kind, name)) STRICT"""
    )
    db.execute(
        """CREATE TABLE outcomes (
             kind INTEGER NOT NULL, name TEXT NOT NULL, digest BLOB NOT NULL, version INTEGER NOT NULL,
             outcome INTEGER NOT NULL, reason TEXT NOT NULL, at_s INTEGER NOT NULL, row_hash BLOB NOT NULL,
             PRIMARY KEY (kind, name)) STRICT"""
    )
    db.execute(
        """CREATE TABLE schemas (
             number INTEGER PRIMARY KEY CHECK (number BETWEEN 0 AND 65535), digest BLOB NOT NULL UNIQUE,
             schema BLOB NOT NULL, row_hash BLOB NOT NULL) STRICT"""
    )
    db.execute(
        """CREATE TABLE stagings (
             digest BLOB PRIMARY KEY NOT NULL, size INTEGER NOT NULL, piece_bytes INTEGER NOT NULL,
             row_hash BLOB NOT NULL) STRICT"""
    )
    db.execute(
        """CREATE TABLE staging_bits (
             digest BLOB NOT NULL REFERENCES stagings (digest) ON DELETE CASCADE, chunk INTEGER NOT NULL,
             bits BLOB NOT NULL, row_hash BLOB NOT NULL, PRIMARY KEY (digest, chunk)) STRICT"""
    )


@_STATE()
def s002_open_rows(db: SqliteDatabase) -> None:
    """Make the table of rows whose batch is still open."""
    db.execute(
        """CREATE TABLE open_rows (
             id INTEGER PRIMARY KEY AUTOINCREMENT, schema INTEGER NOT NULL, boot INTEGER, time INTEGER NOT NULL,
             cells BLOB NOT NULL, row_hash BLOB NOT NULL) STRICT"""
    )


@_STATE()
def s003_summaries(db: SqliteDatabase) -> None:
    """Make the table that says which summary stands for a batch (`by_sequence` 0: none can)."""
    db.execute(
        """CREATE TABLE summaries (
             epoch BLOB NOT NULL, sequence INTEGER NOT NULL, by_epoch BLOB NOT NULL, by_sequence INTEGER NOT NULL,
             row_hash BLOB NOT NULL, PRIMARY KEY (epoch, sequence)) STRICT"""
    )


@_STATE()
def s004_bases(db: SqliteDatabase) -> None:
    """Make the table that says which batch goes on from which."""
    db.execute(
        """CREATE TABLE bases (
             epoch BLOB NOT NULL, sequence INTEGER NOT NULL, base_epoch BLOB NOT NULL, base_sequence INTEGER NOT NULL,
             row_hash BLOB NOT NULL, PRIMARY KEY (epoch, sequence)) STRICT"""
    )
    db.execute("CREATE INDEX bases_by_base ON bases (base_epoch, base_sequence)")


@_LINKS()
def l001_links(db: SqliteDatabase) -> None:
    """Make the tables of links.db."""
    _common(db)
    db.execute(
        """CREATE TABLE contexts (
             id INTEGER PRIMARY KEY AUTOINCREMENT, link TEXT NOT NULL UNIQUE, gateway TEXT NOT NULL,
             master_secret BLOB NOT NULL, master_salt BLOB NOT NULL, sender_id BLOB NOT NULL,
             recipient_id BLOB NOT NULL, sequence_reserved INTEGER NOT NULL, created_s INTEGER NOT NULL,
             window_index INTEGER, window_bits BLOB, row_hash BLOB NOT NULL) STRICT"""
    )
    db.execute(
        """CREATE TABLE ledger_entries (
             period INTEGER NOT NULL, link TEXT NOT NULL, precedence INTEGER NOT NULL, cause TEXT NOT NULL,
             direction TEXT NOT NULL, bytes INTEGER NOT NULL, datagrams INTEGER NOT NULL, row_hash BLOB NOT NULL,
             PRIMARY KEY (period, link, precedence, cause, direction)) STRICT"""
    )
    db.execute(
        """CREATE TABLE ledger_accounts (
             period INTEGER NOT NULL, link TEXT NOT NULL, flash INTEGER NOT NULL, other INTEGER NOT NULL,
             undated_flash INTEGER NOT NULL, undated_other INTEGER NOT NULL, held_flash INTEGER NOT NULL,
             held_other INTEGER NOT NULL, row_hash BLOB NOT NULL, PRIMARY KEY (period, link)) STRICT"""
    )


@_LINKS()
def l002_costs(db: SqliteDatabase) -> None:
    """Make the table of what the provider counts: billed bytes, and money in billionths of the link's currency."""
    db.execute(
        """CREATE TABLE ledger_costs (
             period INTEGER NOT NULL, link TEXT NOT NULL, precedence INTEGER NOT NULL, cause TEXT NOT NULL,
             billed INTEGER NOT NULL, nano INTEGER NOT NULL, row_hash BLOB NOT NULL,
             PRIMARY KEY (period, link, precedence, cause)) STRICT"""
    )


STATE = Schema(
    "state",
    _STATE,
    salvaged=(
        *("epochs", "parcels", "documents", "trusted", "outcomes", "schemas", "settings", "incidents", "open_rows"),
        *("summaries", "bases"),
    ),
)
# Contexts are not salvaged: a sequence number that may be old is a nonce used twice. EDHOC makes new ones.
LINKS = Schema("links", _LINKS, salvaged=("ledger_entries", "ledger_accounts", "ledger_costs", "settings", "incidents"))
