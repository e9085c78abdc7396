"""The documents that this truck trusts, the highest versions it ever trusted, and what it did with them.

The caller has verified everything before it comes here (python-tuf once persisted a root that it had not). The highest
version of each (kind, name) never falls, also when the document itself is gone: that is what refuses a rollback. The
document before the current one is kept, so that a configuration which cuts the truck off can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.cose import digest as digest_of
from protocol.errors import RollbackError
from protocol.numbers import DocumentKind, Outcome
from store.database import SCHEMA_FLOOR, Database
from store.errors import StoreError
from store.settings import Settings

# The current one and the one to go back to. Of roots, which are few and small, all: a gateway may have lost them.
VERSIONS_KEPT = 2
SCHEMA_NUMBERS = 1 << 16


@dataclass(frozen=True, slots=True)
class TrustedDocument:
    """A document that was verified: `signed` are its COSE bytes, `digest` their SHA-256."""

    kind: DocumentKind
    name: str
    version: int
    digest: bytes
    signed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Treatment:
    """What the truck did with the document of this digest."""

    kind: DocumentKind
    name: str
    version: int
    digest: bytes
    outcome: Outcome
    reason: str
    at_s: int


@dataclass(frozen=True, slots=True)
class NumberedSchema:
    """A schema under the number that this truck gave it; `schema` is its own encoding."""

    number: int
    digest: bytes
    schema: bytes = field(repr=False)


class Documents:
    """Trusted documents in an open STATE database. `name` is "" for the kinds of which there is one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.settings = Settings(database)

    def put_trusted(
        self, kind: DocumentKind, name: str, version: int, digest: bytes, signed: bytes, now_s: int = 0
    ) -> bool:
        """Store a VERIFIED document as the current one; return False when it is that already.

        Raises `RollbackError` when a higher version, or another document of this version, was trusted before.
        """
        if digest_of(signed) != digest:
            raise ValueError("the digest is not that of the signed bytes")
        key = {"kind": int(kind), "name": name}
        with self._database.atomic():
            highest, known = self._trusted(kind, name)
            if highest is not None and (version, known) != (highest, digest) and version <= highest:
                raise RollbackError(f"{kind.name.lower()} {name} version {version} is not above {highest}")
            held = self.current(kind, name)
            if held is not None and (held.version, held.digest) == (version, digest):
                return False
            fields = {**key, "version": version, "digest": digest}
            self._database.insert("trusted", fields, conflict="REPLACE")
            self._database.insert("documents", {**fields, "signed": signed, "stored_s": now_s}, conflict="REPLACE")
            if kind is DocumentKind.ROOT:
                return True
            older = (
                "kind = :kind AND name = :name AND version NOT IN (SELECT version FROM documents "
                "WHERE kind = :kind AND name = :name ORDER BY version DESC LIMIT :kept)"
            )
            self._database.delete("documents", older, {**key, "kept": VERSIONS_KEPT})
        return True

    def _trusted(self, kind: DocumentKind, name: str) -> tuple[int | None, bytes | None]:
        sql = "SELECT version, digest FROM trusted WHERE kind = :kind AND name = :name"
        return self._database.row(sql, {"kind": int(kind), "name": name}) or (None, None)

    def highest(self, kind: DocumentKind, name: str = "") -> int | None:
        """Return the highest version ever trusted, or None."""
        return self._trusted(kind, name)[0]

    def highest_versions(self, kind: DocumentKind) -> dict[str, int]:
        """Return the highest version ever trusted of each name of a kind."""
        sql = "SELECT name, version FROM trusted WHERE kind = :kind ORDER BY name"
        return dict(self._database.rows(sql, {"kind": int(kind)}))

    def trusted_versions(self) -> dict[tuple[DocumentKind, str], tuple[int, bytes]]:
        """Return the highest version ever trusted of each kind and name, and its digest."""
        rows = self._database.rows("SELECT kind, name, version, digest FROM trusted ORDER BY kind, name", {})
        return {(DocumentKind(kind), name): (version, digest) for kind, name, version, digest in rows}

    def newer(self, kind: DocumentKind, version: int) -> tuple[TrustedDocument, ...]:
        """Return the documents held of a kind of which there is one name, above a version, oldest first."""
        sql = (
            "SELECT version, digest, signed FROM documents WHERE kind = :kind AND name = '' AND version > :version "
            "ORDER BY version"
        )
        rows = self._database.rows(sql, {"kind": int(kind), "version": version})
        return tuple(TrustedDocument(kind, "", *row) for row in rows)

    def current(self, kind: DocumentKind, name: str = "") -> TrustedDocument | None:
        """Return the newest document held, or None."""
        return self._nth(kind, name, 0)

    def previous(self, kind: DocumentKind, name: str = "") -> TrustedDocument | None:
        """Return the document before the current one, or None."""
        return self._nth(kind, name, 1)

    def _nth(self, kind: DocumentKind, name: str, offset: int) -> TrustedDocument | None:
        sql = (
            "SELECT version, digest, signed FROM documents WHERE kind = :kind AND name = :name "
            "ORDER BY version DESC LIMIT 1 OFFSET :offset"
        )
        row = self._database.row(sql, {"kind": int(kind), "name": name, "offset": offset})
        return None if row is None else TrustedDocument(kind, name, *row)

    def by_digest(self, digest: bytes) -> TrustedDocument | None:
        """Return the document of this digest if it is held."""
        sql = "SELECT kind, name, version, digest, signed FROM documents WHERE digest = :digest"
        row = self._database.row(sql, {"digest": digest})
        return None if row is None else TrustedDocument(DocumentKind(row[0]), *row[1:])

    def names(self, kind: DocumentKind) -> tuple[str, ...]:
        """Return the names of a kind of which a document is held."""
        sql = "SELECT DISTINCT name FROM documents WHERE kind = :kind ORDER BY name"
        return tuple(name for (name,) in self._database.rows(sql, {"kind": int(kind)}))

    def remove(self, kind: DocumentKind, name: str) -> None:
        """Drop the documents of a name (a bundle that is not wanted any more); its highest version stays."""
        self._database.delete("documents", "kind = :kind AND name = :name", {"kind": int(kind), "name": name})

    def forget_versions(self, kinds: Iterable[DocumentKind]) -> None:
        """Let versions of these kinds start over: only a verified new root may ask for this (fast-forward recovery)."""
        with self._database.atomic():
            for kind in kinds:
                self._database.delete("trusted", "kind = :kind", {"kind": int(kind)})
                self._database.delete("documents", "kind = :kind", {"kind": int(kind)})

    def treat(self, treatment: Treatment) -> bool:
        """Note what was done with a document; return True when a receipt is due: it is not what was noted last."""
        key = {"kind": int(treatment.kind), "name": treatment.name}
        with self._database.atomic():
            last = self.treatment(treatment.kind, treatment.name)
            same = last is not None and (last.digest, last.outcome) == (treatment.digest, treatment.outcome)
            if not same:
                values = {
                    **key,
                    "digest": treatment.digest,
                    "version": treatment.version,
                    "outcome": int(treatment.outcome),
                    "reason": treatment.reason,
                    "at_s": treatment.at_s,
                }
                self._database.insert("outcomes", values, conflict="REPLACE")
        return not same

    def treatment(self, kind: DocumentKind, name: str = "") -> Treatment | None:
        """Return what was done with the last document of this name, or None."""
        sql = "SELECT version, digest, outcome, reason, at_s FROM outcomes WHERE kind = :kind AND name = :name"
        row = self._database.row(sql, {"kind": int(kind), "name": name})
        return None if row is None else Treatment(kind, name, row[0], row[1], Outcome(row[2]), row[3], row[4])


class Schemas:
    """The schemas of this truck under their numbers; a number means one schema for ever.

    A database that was damaged or restored may have forgotten numbers: it goes on from a random floor above them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def number(self, schema: bytes) -> tuple[int, bool]:
        """Return the number of a schema, giving it the next free one, and whether that was just now (offer it then).

        Raises `StoreError` when all 65,536 numbers are taken.
        """
        with self._database.atomic():
            digest = digest_of(schema)
            found = self._database.value("SELECT number FROM schemas WHERE digest = :digest", {"digest": digest})
            if found is not None:
                return int(found), False
            floor = Settings(self._database).get_int(SCHEMA_FLOOR)
            sql = "SELECT max(coalesce(max(number) + 1, 0), :floor) FROM schemas"
            number = int(self._database.value(sql, {"floor": floor}))
            if number >= SCHEMA_NUMBERS:
                raise StoreError("all numbers for schemas are taken")
            self._database.insert("schemas", {"number": number, "digest": digest, "schema": schema})
        return number, True

    def get(self, number: int) -> NumberedSchema | None:
        """Return the schema of a number, or None."""
        sql = "SELECT number, digest, schema FROM schemas WHERE number = :number"
        row = self._database.row(sql, {"number": number})
        return None if row is None else NumberedSchema(*row)

    def all(self) -> tuple[NumberedSchema, ...]:
        """Return every schema by number."""
        return tuple(NumberedSchema(*row) for row in self._database.rows("SELECT number, digest, schema FROM schemas"))
