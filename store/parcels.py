# ruff: noqa: S608 - what is put into SQL here are constants of this module.
"""The parcel queue of a truck: what was accepted is here until the gateway has it or policy had to name it as dropped.

A parcel gets its sequence in the transaction that stores its sealed bytes, so a number is never given twice and never
skipped. States: QUEUED, then DELIVERED or QUARANTINED (refused for good, or its attempts used up: it never blocks the
head of the line) or EVICTED (`store.eviction`: a tombstone parcel names it). CLASHED parcels carry numbers that the
gateway has already taken for others, because this database lost its tail; `renumber` sends them again.
Everything here runs inside the caller's transaction where there is one. Times are Unix seconds, 0 when unknown; but
when a parcel was closed is lived time (`store.lived`), since no clock that jumps may say how long it is kept.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any, Final, Protocol

from msgspec.structs import replace

from protocol import cose
from protocol.errors import QueueFullError
from protocol.forwarding import Settled, Waiting
from protocol.messages import Ack, Parcel, unseal
from protocol.numbers import PARCEL_BYTES_MAX, PARCEL_WINDOW, ParcelKind, Precedence
from store import again, bases, eviction, incidents
from store.database import Database, start_epoch
from store.lived import Lived
from store.sendings import Sendings

Seal = Callable[[Parcel], bytes]


# Replaces some of the oldest detail, whose burial it asks for, and returns the bytes that this frees.
Fold = Callable[[Callable[[eviction.Dropped], None]], int]


class Reseal(Protocol):
    """Seals a parcel again, outside of the place that knew what its batch meant."""

    def __call__(self, parcel: Parcel, meaning: bytes | None) -> bytes:
        """Return the sealed bytes."""


# Delivered parcels are kept a while so that a gateway restored from a backup can be given them again.
DELIVERED_KEPT_S: Final = 3 * 86_400
DELIVERED_KEPT_MAX: Final = 20_000


class ParcelState(IntEnum):
    """Where a parcel stands; the number is in the database."""

    QUEUED = 1
    DELIVERED = 2
    QUARANTINED = 3
    EVICTED = 4
    CLASHED = 5


@dataclass(frozen=True, slots=True)
class Queued:
    """A parcel that waits. `attempts` counts sendings that were refused, or under way when the daemon died."""

    epoch: int
    sequence: int
    precedence: Precedence
    kind: ParcelKind
    sealed: bytes = field(repr=False)
    attempts: int
    added_s: int
    deadline_s: int | None

    def waiting(self) -> Waiting:
        """Return it as the forwarding machine takes it."""
        return Waiting(self.sequence, self.precedence, self.sealed, self.attempts)


@dataclass(frozen=True, slots=True)
class Count:
    """How many parcels, and how many bytes of sealed parcels, are of one precedence and in one state."""

    precedence: Precedence
    state: ParcelState
    parcels: int
    sealed_bytes: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What an acknowledgement changed: counts, and the sequences that must go to `renumber`."""

    delivered: int = 0
    quarantined: int = 0
    clashed: tuple[int, ...] = ()


def _queued(epoch: int, row: tuple[Any, ...]) -> Queued:
    sequence, precedence, kind, sealed, attempts, added_s, deadline_s = row
    return Queued(epoch, sequence, Precedence(precedence), ParcelKind(kind), sealed, attempts, added_s, deadline_s)


def _key(epoch: int) -> bytes:
    return epoch.to_bytes(8, "big")


class ParcelQueue:
    """The parcels of the truck `truck` in an open STATE database."""

    def __init__(self, database: Database, truck: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.truck = truck
        self._database = database
        self._lived = Lived(database, monotonic)
        self._sendings = Sendings(database, self._lived)
        self._known_at_start = self._last_sequence(database.epoch)
        self._start_epoch = database.epoch
        self.folding: Fold | None = None

    @property
    def epoch(self) -> int:
        """The epoch of parcels that are added now."""
        return self._database.epoch

    def add(
        self,
        kind: ParcelKind,
        precedence: Precedence,
        payload: bytes,
        seal: Seal,
        now_s: int,
        *,
        deadline_s: int | None = None,
        schema_digest: bytes | None = None,
        rows: int = 0,
        token: bytes | None = None,
        base: bases.Key | None = None,
    ) -> Parcel:
        """Number, seal and store a parcel, making room if that is needed; it is durable once the transaction is.

        `rows` is how many telemetry rows it holds, told in a tombstone. A `token` that was used before returns the
        parcel that it made then: that is how an unknown COMMIT is repeated. `base` is the delivered batch that a batch
        goes on from: the payload is completed with it. Raises `QueueFullError`, `ValueError`.
        """
        if token is not None and (made := self._made_with(token)) is not None:
            return made
        try:
            with self._database.atomic():
                eviction.make_room(
                    self._database,
                    precedence,
                    len(payload),
                    lambda dropped: self._bury(dropped, seal, now_s),
                    fold=None if self.folding is None else partial(self._fold, self.folding, seal, now_s),
                    batch=kind is ParcelKind.BATCH,
                    needed=base,
                )
                values = {"rows": rows, "schema_digest": schema_digest, "deadline_s": deadline_s, "token": token}
                return self._insert(kind, precedence, payload, seal, now_s, values, base)
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise QueueFullError("the queue's share of the disk is used up") from error
            raise

    def _made_with(self, token: bytes) -> Parcel | None:
        sql = "SELECT epoch, sequence, precedence, kind, sealed FROM parcels WHERE token = :token"
        row = self._database.row(sql, {"token": token})
        if row is None:
            return None
        payload = unseal(row[4]).payload if row[4] else b""  # an evicted parcel has nothing left but its number
        return Parcel(int.from_bytes(row[0], "big"), row[1], Precedence(row[2]), ParcelKind(row[3]), payload)

    def _insert(
        self,
        kind: ParcelKind,
        precedence: Precedence,
        payload: bytes,
        seal: Seal,
        now_s: int,
        values: dict[str, Any],
        base: bases.Key | None = None,
    ) -> Parcel:
        epoch = self._database.epoch
        key = (epoch, self._last_sequence(epoch) + 1)
        if base is not None:
            payload = bases.placed(payload, key, base)
            bases.note(self._database, key, base)
        parcel = Parcel(*key, precedence, kind, payload)
        sealed = seal(parcel)
        if len(sealed) > PARCEL_BYTES_MAX:
            raise ValueError(f"a sealed parcel of {len(sealed)} bytes is longer than {PARCEL_BYTES_MAX}")
        self._database.update("epochs", "epoch = :epoch", {"epoch": _key(epoch)}, last_sequence=parcel.sequence)
        fixed = {
            "epoch": _key(epoch),
            "sequence": parcel.sequence,
            "precedence": int(precedence),
            "kind": int(kind),
            "state": int(ParcelState.QUEUED),
            "attempts": 0,
            "refusal": None,
            "sealed": sealed,
            "added_s": now_s,
            "closed_s": None,
        }
        self._database.insert("parcels", {**fixed, **values})
        return parcel

    def _bury(self, dropped: eviction.Dropped, seal: Seal, now_s: int) -> None:
        self.add_within(ParcelKind.TOMBSTONE, Precedence.PRIORITY, dropped.tombstone().encode(), seal, now_s)

    def _fold(self, fold: Fold, seal: Seal, now_s: int) -> int:
        return fold(lambda dropped: self._bury(dropped, seal, now_s))

    def add_within(
        self, kind: ParcelKind, precedence: Precedence, payload: bytes, seal: Seal, now_s: int, **values: Any
    ) -> Parcel:
        """Add a parcel that takes the place of others: no room is made for it. `values` are those of `add`."""
        fixed = {"rows": 0, "schema_digest": None, "deadline_s": None, "token": None}
        return self._insert(kind, precedence, payload, seal, now_s, {**fixed, **values})

    def _last_sequence(self, epoch: int) -> int:
        sql = "SELECT last_sequence FROM epochs WHERE epoch = :epoch"
        return int(self._database.value(sql, {"epoch": _key(epoch)}) or 0)

    # -- sending ------------------------------------------------------------------------------------------------------

    def load_window(self, limit: int = PARCEL_WINDOW, *, epoch: int | None = None) -> tuple[Queued, ...]:
        """Return the parcels to send next, by precedence and then sequence, all of ONE epoch.

        Without `epoch` it is that of the most urgent parcel: parcels were signed under their epoch and cannot move.
        """
        if epoch is None and (epoch := self.next_epoch()) is None:
            return ()
        sql = (
            "SELECT sequence, precedence, kind, sealed, attempts, added_s, deadline_s FROM parcels "
            "WHERE state = :state AND epoch = :epoch ORDER BY precedence, sequence LIMIT :limit"
        )
        found = self._database.rows(sql, {"state": ParcelState.QUEUED, "epoch": _key(epoch), "limit": limit})
        return tuple(_queued(epoch, row) for row in found)

    def next_epoch(self) -> int | None:
        """Return the epoch whose first waiting parcel is the most urgent, the older one at a tie; None: none waits."""
        sql = (
            "SELECT epoch, (SELECT precedence FROM parcels WHERE state = :state AND parcels.epoch = epochs.epoch "
            "ORDER BY precedence LIMIT 1) AS first FROM epochs WHERE first IS NOT NULL ORDER BY first, id LIMIT 1"
        )
        found = self._database.value(sql, {"state": ParcelState.QUEUED})
        return None if found is None else int.from_bytes(found, "big")

    def mark_sent(self, epoch: int, sequences: Iterable[int], now_s: int) -> tuple[int, ...]:
        """Count an attempt BEFORE the sending; return the sequences that may be sent, the others are quarantined.

        Whatever happens to the sending, `mark_unanswered` or an acknowledgement ends it.
        """
        return self._sendings.begin(epoch, sequences, now_s)

    def mark_unanswered(self, epoch: int, sequences: Iterable[int]) -> None:
        """Take back the attempt of a sending that got no answer: the link's fault, not the parcel's."""
        self._sendings.end(epoch, sequences)

    def _update(self, where: str, params: dict[str, Any], **changes: Any) -> int:
        return self._database.update("parcels", where, params, **changes)

    # -- acknowledgements ---------------------------------------------------------------------------------------------

    def mark_delivered(self, ack: Ack, epoch: int, now_s: int, *, sent: Iterable[int] = ()) -> Applied:
        """Apply an acknowledgement for parcels of `epoch`; doing it again, or late, changes nothing more.

        `sent` are the sequences of the upload that it answers, if `mark_sent` counted an attempt for them.
        """
        with self._database.atomic():
            self.mark_unanswered(epoch, sent)
            quarantined = sum(self._sendings.refuse(epoch, sequence, reason, now_s) for sequence, reason in ack.refused)
            if ack.epoch_unknown:
                return Applied(0, quarantined)
            clashed = self._find_clash(ack, epoch, now_s)
            says = ack.cumulative > 0 or len(ack.ranges) > 0
            lived_s = self._lived.hear() if says else self._lived.note()
            delivered = self._deliver([(1, ack.cumulative), *ack.ranges], epoch, lived_s)
            again.give_again(self._database, ack, epoch, lived_s)
        return Applied(delivered, quarantined, clashed)

    def mark_carried(self, ack: Ack, epoch: int, newest: tuple[int, bytes] | None, now_s: int) -> int:
        """Apply an acknowledgement that a stick brought; it may be old, so it only ever delivers. Return how many.

        `newest` are a sequence and the digest of its sealed parcel: unless that is ours, others have these numbers.
        """
        where = {"epoch": _key(epoch), "sequence": 0 if newest is None else newest[0]}
        sealed = self._database.value("SELECT sealed FROM parcels WHERE epoch = :epoch AND sequence = :sequence", where)
        if newest is None or not sealed or cose.digest(sealed) != newest[1]:
            return 0
        with self._database.atomic():
            return self._deliver([(1, ack.cumulative), *ack.ranges], epoch, now_s)

    def known(self, epoch: int) -> int:
        """Return the last sequence of an epoch that may have been sent before this start; 0 if it began since."""
        return self._known_at_start if epoch == self._start_epoch else 0

    def fork(self, settled: Settled, epoch: int, reseal: Reseal, now_s: int) -> bool:
        """Go on in a new epoch (unless that was done), since others gave numbers of this one; return whether it is new.

        An image of the disk was put back, or cloned. `settled.taken` get new numbers; what else waits keeps its own.
        """
        with self._database.atomic():
            if is_new := epoch == self._database.epoch:
                incidents.record(self._database, "store.forked", {"epoch": f"{epoch:016x}"}, now_s)
                start_epoch(self._database, "forked", now_s)
            for sequence in settled.taken:
                self._update(_QUEUED, {"epoch": _key(epoch), "sequence": sequence}, state=int(ParcelState.CLASHED))
            self.renumber(settled.taken, epoch, reseal)
        return is_new

    def settle(self, settled: Settled, epoch: int, now_s: int, *, sent: Iterable[int] = ()) -> None:
        """Write down what the forwarding machine settled: delivered, refused once more, given up. `sent`: see above."""
        with self._database.atomic():
            self.mark_unanswered(epoch, sent)
            self._deliver([(sequence, sequence) for sequence in settled.delivered], epoch, self._lived.note())
            for sequence, reason in settled.refused:
                self._sendings.refuse(epoch, sequence, reason, now_s)
            for sequence, reason in settled.quarantined:
                self._sendings.quarantine(epoch, sequence, reason, now_s)

    def _deliver(self, ranges: Iterable[tuple[int, int]], epoch: int, lived_s: int) -> int:
        # One that was quarantined for its attempts may have arrived after all; one that was refused has not.
        where = (
            "epoch = :epoch AND sequence BETWEEN :first AND :last "
            "AND (state = :queued OR (state = :quarantined AND refusal IS NULL))"
        )
        fixed = {"epoch": _key(epoch), "queued": ParcelState.QUEUED, "quarantined": ParcelState.QUARANTINED}
        changes = {"state": int(ParcelState.DELIVERED), "closed_s": lived_s}
        return sum(self._update(where, {**fixed, "first": first, "last": last}, **changes) for first, last in ranges)

    def _find_clash(self, ack: Ack, epoch: int, now_s: int) -> tuple[int, ...]:
        """Notice that the gateway has numbers that this database never gave: it lost its tail and gave them again."""
        last = self._last_sequence(epoch)
        highest = max([ack.cumulative, *(end for _first, end in ack.ranges)])
        if highest <= last or epoch != self._database.epoch:
            return ()
        incidents.record(
            self._database, "store.tail-lost", {"epoch": f"{epoch:016x}", "last": last, "acked": highest}, now_s
        )
        start_epoch(self._database, "tail-lost", now_s)
        given_again = self._known_at_start if epoch == self._start_epoch else 0
        where = {"epoch": _key(epoch), "start": given_again, "state": ParcelState.QUEUED}
        sql = "SELECT sequence FROM parcels WHERE epoch = :epoch AND state = :state AND sequence > :start"
        clashed = tuple(sequence for (sequence,) in self._database.rows(sql, where) if ack.covers(sequence))
        for sequence in clashed:
            self._update(_QUEUED, {"epoch": _key(epoch), "sequence": sequence}, state=int(ParcelState.CLASHED))
        return clashed

    def renumber(self, sequences: Iterable[int], epoch: int, seal: Reseal) -> int:
        """Give clashed parcels new numbers in the current epoch; return their count. `seal` gets a batch's meaning."""
        count = 0
        with self._database.atomic():
            for sequence in sequences:
                where = {"epoch": _key(epoch), "sequence": sequence, "state": ParcelState.CLASHED}
                clash = "epoch = :epoch AND sequence = :sequence AND state = :state"
                sql = f"SELECT sealed, rows, schema_digest, deadline_s, token, added_s FROM parcels WHERE {clash}"
                row = self._database.row(sql, where)
                if row is None:
                    continue
                old = replace(unseal(row[0]), epoch=epoch)
                base, digest = bases.base_of(old), row[2]
                reseal = partial(seal, meaning=bases.meaning(self._database, base, digest))
                self._database.delete("parcels", clash, where)
                values = {"rows": row[1], "schema_digest": digest, "deadline_s": row[3], "token": row[4]}
                self._insert(old.kind, old.precedence, old.payload, reseal, row[5], values, base)
                count += 1
        return count

    # -- looking and cleaning -----------------------------------------------------------------------------------------

    def counts(self) -> tuple[Count, ...]:
        """Return how many parcels there are by precedence and state."""
        sql = "SELECT precedence, state, count(*), sum(length(sealed)) FROM parcels GROUP BY 1, 2 ORDER BY 1, 2"
        return tuple(
            Count(Precedence(precedence), ParcelState(state), number, sealed_bytes)
            for precedence, state, number, sealed_bytes in self._database.rows(sql)
        )

    def bytes_queued(self) -> int:
        """Return the bytes of all sealed parcels that wait."""
        sql = "SELECT coalesce(sum(length(sealed)), 0) FROM parcels WHERE state = :state"
        return int(self._database.value(sql, {"state": ParcelState.QUEUED}))

    def prune(self, *, kept_s: int = DELIVERED_KEPT_S, kept_max: int = DELIVERED_KEPT_MAX) -> int:
        """Delete what was delivered, or evicted and named, `kept_s` of life before the gateway was last heard.

        At most `kept_max` are kept. Quarantined parcels stay, or are tried again. Return how many rows went.
        """
        with self._database.atomic():
            lived_s = self._lived.note()
            # Closed later than now: a life that a cut has shortened, or a version before this one, by Unix time.
            self._update("closed_s > :now", {"now": lived_s}, closed_s=lived_s)
            again.try_again(self._database, lived_s)
            return eviction.delete_old(self._database, before_s=self._lived.heard_s - kept_s, kept_max=kept_max)


_QUEUED: Final = f"epoch = :epoch AND sequence = :sequence AND state = {int(ParcelState.QUEUED)}"
