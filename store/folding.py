"""Folding: batches that wait become hourly summaries, beside their detail (`summarise`) or in its place (`fold`).

A summary stands for batches of one epoch, schema and boot, oldest first, as many as a datagram holds the pieces of.
Which batch has one is written down with it, so that none is summarised twice; and detail that makes room is named by a
tombstone like all that is dropped, with the reason `folded`. All of it runs in the caller's transaction, in the
writer's thread: one summary takes about a tenth of a second of a slow core, so callers make few at a time.
Deliberately absent: when summaries are worth their bytes (`edge.ladder`), and who must make room (`store.eviction`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from protocol.errors import LocalError, PeerError
from protocol.messages import Batch, unseal
from protocol.numbers import ParcelKind, Precedence
from protocol.schema import Codec, Schema, decode_schema
from protocol.summary import FOLDED, Piece, Summary, encode_summary, summarise, summary_schema
from store import incidents
from store.bases import Runs, of_database
from store.database import Database
from store.documents import Schemas
from store.eviction import Dropped

SUMMARY_BYTES_MAX: Final = 1_060  # of a body: what a datagram holds, less the heads of parcel and upload
_GROUP_MAX: Final = 16
_ROUNDS_MAX: Final = 4  # of as many batches each, decoded in the writer's thread while others wait for it
_WORTH: Final = 0.75
_QUEUED, _EVICTED = 1, 4
# Detail that waits, oldest first, and has no summary.
_WAITING = (
    "FROM parcels WHERE state = :queued AND kind = :batch AND precedence >= :normal AND NOT EXISTS "
    "(SELECT 1 FROM summaries WHERE summaries.epoch = parcels.epoch AND summaries.sequence = parcels.sequence)"
)


class AddSummary(Protocol):
    """Queues a summary: its schema, its boot and body, and how many rows it stands for; returns its sequence."""

    def __call__(self, schema: Schema, boot: int | None, body: bytes, rows: int) -> int:
        """Add the parcel in the caller's transaction."""


@dataclass(frozen=True, slots=True)
class _Detail:
    epoch: bytes
    sequence: int
    rows: int
    sealed_bytes: int
    boot: int | None
    schema: Schema
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    details: tuple[_Detail, ...]
    body: bytes
    is_full: bool


class Folding:
    """Summarises the batches in a STATE database; `offset_ms(boot)` is wall time less that boot's time, if known."""

    def __init__(self, database: Database, offset_ms: Callable[[int], int | None]) -> None:
        self._database = database
        self._schemas = Schemas(database)
        self._offset_ms = offset_ms
        self._decoded: dict[bytes, Schema] = {}
        self._runs = Runs(of_database(database))

    def summarise(self, add: AddSummary, *, full_before_s: int, before_s: int) -> int:
        """Queue one summary of detail that was added before `full_before_s`; return how many batches it stands for.

        While the group would not fill a datagram, it waits until its oldest detail was added before `before_s`.
        """
        group = self._group("AND added_s < :before", {"before": full_before_s})
        if group is None:
            return 0
        if not group.is_full:
            oldest = group.details[0]
            sql = "SELECT added_s FROM parcels WHERE epoch = :epoch AND sequence = :sequence"
            if int(self._database.value(sql, {"epoch": oldest.epoch, "sequence": oldest.sequence})) >= before_s:
                return 0
        self._add(group, add)
        return len(group.details)

    def waiting(self) -> int:
        """Return how many summaries wait whose detail is still there."""
        sql = (
            "SELECT count(*) FROM parcels WHERE state = :queued AND kind = :batch AND EXISTS (SELECT 1 FROM summaries "
            "WHERE by_epoch = parcels.epoch AND by_sequence = parcels.sequence) AND precedence < :normal"
        )
        return int(self._database.value(sql, {**_QUEUED_BATCH, "normal": int(Precedence.NORMAL)}))

    def fold(self, add: AddSummary, bury: Callable[[Dropped], None]) -> int:
        """Drop the oldest detail that a summary stands for, making one if there is none; return the bytes freed."""
        dropped = self._summarised()
        if not dropped:
            group = self._group("", {})
            if group is None:
                return 0
            self._add(group, add)
            dropped = [(each.epoch, each.sequence, each.sealed_bytes, each.rows) for each in group.details]
        epoch = dropped[0][0]
        for _, sequence, _, _ in dropped:
            where = {"epoch": epoch, "sequence": sequence}
            self._database.update(
                "parcels", "epoch = :epoch AND sequence = :sequence", where, state=_EVICTED, sealed=b""
            )
            self._database.delete("summaries", "epoch = :epoch AND sequence = :sequence", where)
        sequences = tuple(sequence for _, sequence, _, _ in dropped)
        bury(Dropped(int.from_bytes(epoch, "big"), sequences, sum(each[3] for each in dropped), reason=FOLDED))
        return sum(each[2] for each in dropped)

    def forget_gone(self) -> None:
        """Forget which summary stood for a batch that does not wait any more."""
        self._database.delete(
            "summaries",
            "NOT EXISTS (SELECT 1 FROM parcels WHERE parcels.epoch = summaries.epoch "
            "AND parcels.sequence = summaries.sequence AND parcels.state = :queued)",
            {"queued": _QUEUED},
        )

    def _summarised(self) -> list[tuple[bytes, int, int, int]]:
        """Return the oldest detail that waits beside its summary: epoch, sequence, sealed bytes and rows of each."""
        sql = (
            "SELECT parcels.epoch, parcels.sequence, length(sealed), rows FROM parcels JOIN summaries ON "
            "summaries.epoch = parcels.epoch AND summaries.sequence = parcels.sequence "
            "WHERE state = :queued AND kind = :batch AND by_sequence > 0 ORDER BY parcels.id LIMIT :limit"
        )
        found = [tuple(row) for row in self._database.rows(sql, {**_QUEUED_BATCH, "limit": _GROUP_MAX})]
        return [row for row in found if row[0] == found[0][0]]

    def _add(self, group: _Group, add: AddSummary) -> None:
        first = group.details[0]
        rows = sum(each.rows for each in group.details)
        sequence = add(summary_schema(first.schema), first.boot, group.body, rows)
        current = self._database.epoch.to_bytes(8, "big")
        for each in group.details:
            values = {"epoch": each.epoch, "sequence": each.sequence, "by_epoch": current, "by_sequence": sequence}
            self._database.insert("summaries", values, conflict="REPLACE")
        self._mark(current, sequence)

    def _group(self, where: str, params: dict[str, int]) -> _Group | None:
        """Return the oldest detail that a summary could stand for, and the body of that summary.

        None, too, after a few rounds of detail that no summary is worth its bytes for.
        """
        limits = {**_QUEUED_BATCH, "normal": int(Precedence.NORMAL), "limit": _GROUP_MAX, **params}
        # What cannot be summarised is marked on the way, and not found again: the next call goes on behind it.
        for _ in range(_ROUNDS_MAX):
            oldest = self._database.row(f"SELECT epoch, schema_digest {_WAITING} {where} ORDER BY id LIMIT 1", limits)
            if oldest is None:
                return None
            sql = (
                f"SELECT epoch, sequence, schema_digest, rows, sealed {_WAITING} {where} "
                "AND epoch = :epoch AND schema_digest IS :digest ORDER BY id LIMIT :limit"
            )
            found = self._database.rows(sql, {**limits, "epoch": oldest[0], "digest": oldest[1]})
            group = self._grown(found)
            if group is not None:
                return group
        return None

    def _grown(self, found: Iterable[tuple[Any, ...]]) -> _Group | None:
        details: list[_Detail] = []
        body = b""
        for epoch, sequence, digest, rows, sealed in found:
            detail = self._detail(epoch, sequence, digest, rows, sealed)
            if detail is None:
                continue
            if details and detail.boot != details[0].boot:
                return _Group(tuple(details), body, is_full=True)
            try:
                longer = self._encode([*details, detail])
            except LocalError as error:
                # Its sums are too large for a summary: it stays detail, and is dropped as such.
                self._leave(epoch, sequence, str(error))
                continue
            if not details and len(longer) > _WORTH * len(sealed):
                self._mark(epoch, sequence)  # rows that are hours apart: there is little to gain, and much to lose
                continue
            if details and len(longer) > SUMMARY_BYTES_MAX:
                return _Group(tuple(details), body, is_full=True)
            details.append(detail)
            body = longer
        return _Group(tuple(details), body, is_full=len(details) == _GROUP_MAX) if details else None

    def _encode(self, details: list[_Detail]) -> bytes:
        epoch = int.from_bytes(details[0].epoch, "big")
        batches = tuple((each.sequence, each.pieces) for each in details)
        # An older epoch is named; most detail is of the epoch that its summary is in.
        summary = Summary(batches, None if epoch == self._database.epoch else epoch)
        return encode_summary(summary_schema(details[0].schema), summary)

    def _detail(self, epoch: bytes, sequence: int, digest: bytes | None, rows: int, sealed: bytes) -> _Detail | None:
        """Return a batch with its pieces, None for one that is a summary itself or cannot be decoded."""
        try:
            batch = Batch.decode(unseal(sealed).payload)
            schema = self._schema(batch.schema, digest)
            if schema.codec is Codec.SUMMARY:
                self._mark(epoch, sequence)
                return None
            offset_ms = 0 if batch.boot is None else self._offset_ms(batch.boot) or 0
            decoded = self._runs.rows(schema, (int.from_bytes(epoch, "big"), sequence), batch)
        except (LocalError, PeerError) as error:
            self._leave(epoch, sequence, str(error))
            return None
        pieces = summarise(schema, decoded, offset_ticks=offset_ms * schema.ticks_per_s // 1000)
        return _Detail(epoch, sequence, rows, len(sealed), batch.boot, schema, pieces)

    def _schema(self, number: int, digest: bytes | None) -> Schema:
        known = self._schemas.get(number)
        if known is None or known.digest != digest:
            raise LocalError(f"the schema {number} of a batch is not known any more")
        if known.digest not in self._decoded:
            self._decoded[known.digest] = decode_schema(known.schema)
        return self._decoded[known.digest]

    def _leave(self, epoch: bytes, sequence: int, reason: str) -> None:
        """Give up summarising a batch."""
        self._mark(epoch, sequence)
        incidents.record(self._database, "batch.unfoldable", {"sequence": sequence, "reason": reason[:200]}, 0)

    def _mark(self, epoch: bytes, sequence: int) -> None:
        """Write down that a batch is no detail to be summarised, so that it is not tried again and again."""
        values = {"epoch": epoch, "sequence": sequence, "by_epoch": b"", "by_sequence": 0}
        self._database.insert("summaries", values, conflict="REPLACE")


_QUEUED_BATCH: Final = {"queued": _QUEUED, "batch": int(ParcelKind.BATCH)}
